"""A paper's own numbers beside those of the runs that repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xbench.report.page.draft import Draft
from xbench.report.page.panel import Panel, Section
from xbench.results.paper import PAPER_FILE, BesidePaper, beside_paper, read_paper_rows

if TYPE_CHECKING:
    from xbench.comparison import Run
    from xbench.report.page.source import Source


class PaperPanel(Panel):
    """A table for each printed column of a suite's paper."""

    name = "paper"
    title = "Beside the paper"

    def section(self, draft: Draft) -> Section | None:
        """Return the columns of all runs of a suite that has printed numbers; None without any."""
        runs = zip(draft.sources, draft.comparison.runs, strict=True)
        columns = [column for source, run in runs for column in _columns(source, run)]
        return Section({"columns": columns}) if columns else None


def _columns(source: Source, run: Run) -> Iterator[BesidePaper]:
    path = source.folder / PAPER_FILE
    if path.is_file():
        yield from beside_paper(read_paper_rows(path), run.rows)
