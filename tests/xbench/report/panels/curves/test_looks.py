"""Curves look alike in a run's figure and on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from xbench.contracts.roles import CurveRole
from xbench.report import perturbation_curves
from xbench.results.curves import CurveSeries, CurveTable, read_curves, write_curves

if TYPE_CHECKING:
    from tests.xbench.conftest import Browser
    from tests.xbench.report.conftest import RunFolder


EXPLAINERS = {"vinet": 0.6, "gradient": 0.3, "random": 0.0}
X = np.linspace(0, 100, 5)
ORDERS = {"least": 1 - X / 200, "most": 1 - X / 100}  # what is removed last stands first


@pytest.fixture
def made(run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path) -> Path:
    """A run folder whose curves say their roles in the file alone, and the report of it."""
    run = run_folder(tmp_path / "run", EXPLAINERS).scores().header()
    roles: dict[str, CurveRole] = {"most": "most_first", "least": "least_first"}
    series = [CurveSeries(name, name == "random", X, ORDERS, roles) for name in EXPLAINERS]
    table = CurveTable("phantom", "net", "fidelity", "original", "removed (%)", "accuracy", series)
    write_curves(table, run.path / "curves" / "one.json")
    report(run.path, "--no-figures")
    return run.path


@pytest.fixture
def drawn(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[float, ...], Any]:
    """Heights of each curve in the run's figure -> its colour."""
    panels = []
    monkeypatch.setattr(Axes, "set_title", lambda self, *_, **__: panels.append(self))
    (table,) = read_curves(made)
    perturbation_curves(tmp_path / "figure", "", table.series[:1], table.x_label, table.y_label)
    return {tuple(line.get_ydata()): line.get_color() for line in panels[0].lines}


def hue(colour: Sequence[float]) -> str:
    red, _, blue = colour
    return "blue" if blue > red else "red"


def test_the_page_and_the_figure_draw_a_role_alike(
    made: Path, drawn: dict[tuple[float, ...], Any], browser: Browser
) -> None:
    page = browser.open(made / "report" / "index.html")
    lines = page(
        "[...document.querySelectorAll('#curves .panel:first-child .curve')].map((one) => "
        "[getComputedStyle(one).stroke, getComputedStyle(one).strokeDasharray])"
    )
    shown = dict(zip(ORDERS, lines, strict=True))
    for name, heights in ORDERS.items():
        colour = [int(part) / 255 for part in re.findall(r"\d+", shown[name][0])[:3]]
        assert hue(colour) == hue(to_rgb(drawn[tuple(heights)])) == {"most": "red", "least": "blue"}[name]
    assert shown["most"][1] == "none"
    assert shown["least"][1] != "none"
    assert page.text("#curves .key > span") == ["least", "most", "control: random"]


def test_what_the_page_knows_of_a_look_is_what_the_figure_draws(made: Path) -> None:
    text = (made / "report" / "data" / "place-0.js").read_text()
    (table,) = json.loads(text[text.index("{") : text.rindex(")")])["curves"]
    assert all(one["look"] == {"least": 1, "most": 0} for one in table["series"])
