"""Figures of a report as SVG and PDF files, ready for a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from xbench.report.agreement import agreement_chart
from xbench.report.curves import perturbation_curves
from xbench.report.page.rankings import Place
from xbench.report.scores import score_chart
from xbench.results.naming import file_name

KINDS = ("svg", "pdf")

Files = dict[str, str]
"""Kind of a file -> its path in the report."""


def draw_figures(place: Place, folder: Path, note: Callable[[str], None]) -> dict[tuple[str, str], Files]:
    """Draw a place's rankings (both signs in one chart), curves and agreements into `folder`/figures.

    Args:
        place: One dataset and model.
        folder: The report.
        note: Told what is being drawn.

    Returns:
        ("scores", metric), ("curves", metric and sign, by a blank) or ("agreement", sign's place) -> the files.
    """
    found: dict[tuple[str, str], Files] = {}
    figures = folder / "figures"

    def keep(kind: str, name: str, paths: Sequence[Path]) -> None:
        found[kind, name] = {path.suffix[1:]: path.relative_to(folder).as_posix() for path in paths}

    for metric in place.metrics:
        note(f"{metric}, {place.title}")
        rows = [
            one.entry.row
            for ranking in place.rankings
            if ranking.group.setting.metric == metric
            for one in ranking.standings
        ]
        stem = figures / file_name("scores", place.dataset, place.model, metric)
        keep("scores", metric, score_chart(stem, f"{metric} on {place.title}", rows, KINDS))
    for table in place.curves:
        stem = figures / file_name("curves", place.dataset, place.model, table.metric, table.sign)
        title = f"{table.metric} on {place.title}" + ("" if table.sign == "original" else ", absolute values")
        paths = perturbation_curves(stem, title, table.series, table.x_label, table.y_label, KINDS)
        keep("curves", f"{table.metric} {table.sign}", paths)
    for agreement in place.agreements:
        keep("agreement", agreement.place, agreement_chart(figures, agreement, KINDS))
    return found
