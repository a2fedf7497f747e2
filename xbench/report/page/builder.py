"""Write the folder of a report, with the page and the files of its panels; whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.errors import UserError
from xbench.report.page.draft import Draft
from xbench.report.page.head import render
from xbench.report.page.panel import SCRIPT, STYLE, Panel, Section
from xbench.report.page.places import Place
from xbench.report.page.scripts import data_script
from xbench.report.page.sprites import ramps
from xbench.runtime.files import folder_beside, replace_folder

if TYPE_CHECKING:
    from xbench.comparison import Comparison
    from xbench.report.page.source import Source

MARK = "data/report.js"
"""The file by which a folder is known to be a report, which another report may replace."""


def write_report(
    comparison: Comparison,
    sources: Sequence[Source],
    out: Path,
    panels: Sequence[Panel],
    *,
    title: str = "",
    figures: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the report of one or several runs; a folder that holds a report is replaced.

    Args:
        comparison: Comparison of the runs.
        sources: The runs compared, in the same order.
        out: The folder.
        panels: The sections of the page, in their order.
        title: Title of the page; made from the runs if empty.
        figures: Whether to draw the figures for papers (SVG and PDF), which takes the most time.
        note: Called with what is being done.

    Returns:
        The page, `out`/index.html.

    Raises:
        UserError: `out` is something else than a report, can't be written, or a file of a run can't be read.
    """
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not a report", "name another with --out")
    try:
        with folder_beside(out) as partial:
            _write(Draft(comparison, sources, partial, figures, note), panels, title)
            replace_folder(partial, out)
    except OSError as error:
        where = error.filename or out
        raise UserError(f"can't write {where}: {error.strerror or error}", "name another place with --out") from error
    return out / "index.html"


def _write(draft: Draft, panels: Sequence[Panel], title: str) -> None:
    """Write everything, the page last."""
    places = [_place(draft, panels, at, place) for at, place in enumerate(draft.places)]
    found = {panel: panel.section(draft) for panel in panels}
    sections = {panel: section for panel, section in found.items() if section is not None}
    _copy_assets(draft, sections)
    data = {panel.name: section.data for panel, section in sections.items() if section.data is not None}
    draft.text(MARK, data_script("report", {"places": places, "panels": data, "ramps": ramps()}))
    draft.text("index.html", render(draft, title, sections))


def _place(draft: Draft, panels: Sequence[Panel], at: int, place: Place) -> dict[str, Any]:
    """Write what the panels have of a place, and return what the page knows of it before it loads that."""
    found = {panel.name: panel.of_place(draft, place) for panel in panels}
    return {
        "dataset": place.dataset,
        "model": place.model,
        "signs": place.signs,
        "metrics": place.metrics,
        "script": draft.data(f"place-{at}", {name: data for name, data in found.items() if data is not None}),
    }


def _copy_assets(draft: Draft, sections: Mapping[Panel, Section]) -> None:
    """Write what all panels share, and each panel's script and styles under its name."""
    for asset in resources.files("xbench.report.page").joinpath("assets").iterdir():
        if asset.name.endswith((".css", ".js")):
            draft.text(f"assets/{asset.name}", asset.read_text(encoding="utf-8"))
    for panel in sections:
        for name, kind in ((SCRIPT, "js"), (STYLE, "css")):
            if text := panel.file(name):
                draft.text(f"assets/panel-{panel.name}.{kind}", text)
