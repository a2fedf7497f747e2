"""The terminal's table of a paper's numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xbench.results.numbers import number
from xbench.results.paper import PAPER_FILE, BesidePaper, Pairing, PaperRow, beside_paper
from xbench.results.rows import ScoreRow


def beside_tables(papers: Sequence[PaperRow], rows: Sequence[ScoreRow]) -> RenderableType:
    """Set each printed column beside the run's values of the same labels, for a rich console.

    Ranks are among the methods that both have. A column that the run does not measure is named in a line.

    Args:
        papers: The paper's numbers, in the labels of the run.
        rows: The scores of the run.
    """
    found = beside_paper(papers, rows)
    parts: list[RenderableType] = [Text("beside the paper", style="bold")]
    for column in found:
        if column.methods:
            parts += [*_part(column), Text()]
    absent = dict.fromkeys(f"{column.citation}, {column.metric}" for column in found if not column.methods)
    parts += [Text(f"not in this run, see {PAPER_FILE}: {text}", style="dim") for text in absent]
    return Group(*parts)


def _part(column: BesidePaper) -> Iterator[RenderableType]:
    sign = "" if column.sign == "original" else f", {column.sign} values"
    yield Text.assemble((column.citation, "bold"), f"  {column.metric} on {column.dataset}{sign}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("method", overflow="fold")
    for name in ("paper", "rank", "ours", "95 % CI", "rank"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("explainer", overflow="fold")
    for pairing in column.pairings:
        table.add_row(*_cells(pairing))
    yield table
    if not math.isnan(column.rho):
        yield Text(f"Spearman's rho of the two orders: {column.rho:.2f} ({column.methods} methods)")


def _cells(pairing: Pairing) -> tuple[Text, ...]:
    paper, ours = pairing.paper, pairing.ours
    interval = f" [{number(paper.ci_low)}, {number(paper.ci_high)}]" if not math.isnan(paper.ci_low) else ""
    value, around = (number(ours.value), f"[{number(ours.ci_low)}, {number(ours.ci_high)}]") if ours else ("–", "")
    texts = (
        paper.method,
        number(paper.value) + interval,
        _rank(pairing.paper_rank),
        value,
        around,
        _rank(pairing.rank),
        paper.explainer,
    )
    return tuple(Text(text) for text in texts)


def _rank(rank: float) -> str:
    """Write a rank; tied methods share their mean: "1", "2.5"."""
    return "" if math.isnan(rank) else f"{rank:g}"
