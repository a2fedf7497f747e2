"""A panel is one folder; the page is a list of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xbench.comparison import compare, read_runs
from xbench.report.page import Source, write_report
from xbench.report.panels import PANELS

if TYPE_CHECKING:
    from tests.xbench.conftest import Browser
    from tests.xbench.report.conftest import RunFolder


EXPLAINERS = {"vinet": 0.6, "gradient": 0.3, "random": 0.0}

GUIDE = (Path(__file__).parents[4] / "docs" / "report.md").read_text()
FILES = ("panel.py", "template.html.j2", "script.js")


def block(name: str) -> str:
    """The block of the guide that begins with the path of a file of the panel."""
    blocks = re.findall(r"```\w+\n(.*?)```", GUIDE, re.S)
    return next(text for text in blocks if f"panels/counts/{name}" in text.splitlines()[0])


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The panel of the guide, in a folder of its own."""
    folder = tmp_path / "lib" / "their_panel"
    folder.mkdir(parents=True)
    files = {"__init__.py": "", "style.css": "#counts-body { letter-spacing: 3px; }"}
    files |= {name: block(name) for name in FILES}
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder.parent))
    from their_panel.panel import CountsPanel

    yield CountsPanel()
    for name in ("their_panel.panel", "their_panel"):
        sys.modules.pop(name, None)


@pytest.fixture
def page(run_folder: type[RunFolder], stranger: Any, tmp_path: Path) -> Path:
    """A report with that panel behind the first of xbench's."""
    run = run_folder(tmp_path / "run", EXPLAINERS, metrics=("fidelity", "dice")).scores().header()
    panels = (PANELS[0], stranger, *PANELS[1:])
    return write_report(
        compare(read_runs([run.path])), [Source("run", run.path)], tmp_path / "page", panels, figures=False
    )


def test_a_folder_is_all_that_a_panel_takes(page: Path, browser: Browser) -> None:
    opened = browser.open(page)
    assert opened.text("main > section > h2")[:3] == ["Ranking", "How many samples", "Curves"]
    assert opened.text(".sections a")[:3] == ["Ranking", "Samples", "Curves"]
    assert opened.text("#counts p") == ["Runs: 1"]
    assert opened.text("#counts-body") == ["60 images"]
    assert opened("getComputedStyle(document.querySelector('#counts-body')).letterSpacing") == "3px"
    opened.choose("#metric", "dice")
    assert opened.text("#counts-body") == ["60 images"]
    opened.choose("#metric", "all metrics")
    assert opened.text("#counts-body") == ["– images"]
    assert "Counts" in opened.text(".downloads a")
    assert opened.complaints() == []


def test_panels_share_the_data_of_a_place_under_their_names(page: Path) -> None:
    text = (page.parent / "data" / "place-0.js").read_text()
    place = json.loads(text[text.index("{") : text.rindex(")")])
    assert place["counts"] == {"fidelity": 60, "dice": 60}
    assert set(place) == {"ranking", "curves", "agreement", "cost", "counts"}


def test_a_reader_without_javascript_is_told_which_sections_need_it_and_which_files_do_not(page: Path) -> None:
    words = re.search(r"<noscript>(.*?)</noscript>", page.read_text(), re.S)[1]
    named = re.search(r"from this folder alone: (.*?)\.", words)[1].split(", ")
    sections = re.findall(r'<a href="#\w+">([^<]+)</a></li>', page.read_text())
    assert named == [section for section in sections if section in named]
    assert {"Ranking", "Samples", "Curves"} <= set(named)
    assert not {"Metrics", "Gallery"} & set(named)  # one has no script, the other nothing to show here
    files = re.findall(r'<a href="([^"]+)">', words)
    assert "tables/scores.csv" in files
    assert all((page.parent / name).is_file() for name in files)


def test_every_panel_has_a_name_of_its_own_and_is_where_the_name_says() -> None:
    names = [panel.name for panel in PANELS]
    assert len(set(names)) == len(names)
    for panel in PANELS:
        assert re.fullmatch("[a-z]+", panel.name)
        assert type(panel).__module__ == f"xbench.report.panels.{panel.name}.panel"
