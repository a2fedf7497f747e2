"""Show a comparison on the terminal, and write it as a CSV table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xbench.comparison.blocks import AcrossBlocks
from xbench.comparison.overview import Comparison
from xbench.comparison.ranking import Ranking, Standing
from xbench.results.cells import csv_text
from xbench.results.numbers import number
from xbench.results.standings import Difference
from xbench.runtime.files import write_text
from xbench.statistics.agreement import Agreement, Correlation

_NAMES = 4  # how many names of a rank set are shown before the rest is counted
_UNTESTED = Difference(value=math.nan, low=math.nan, high=math.nan, p=math.nan, p_holm=math.nan)

COLUMNS: dict[str, type] = {
    "runs": str,
    "dataset": str,
    "split": str,
    "model": str,
    "subject": str,
    "sign": str,
    "target": str,
    "metric": str,
    "card": str,
    "higher_is_better": bool,
    "explainer": str,
    "control": bool,
    "same_as": str,
    "n": int,
    "groups": int,
    "value": float,
    "ci_low": float,
    "ci_high": float,
    "rank": int,
    "rank_high": int,
    "rank_set": str,
    "reference": str,
    "difference": float,
    "difference_low": float,
    "difference_high": float,
    "p": float,
    "p_holm": float,
}
"""Columns of the CSV table, with their types; lists are joined by "|"."""


def comparison_tables(comparison: Comparison) -> RenderableType:
    """Return the tables of a comparison for a rich console (plain text if that is not a terminal)."""
    parts: list[RenderableType] = []
    for run in comparison.runs:
        parts.append(Text.assemble((run.name, "bold"), f"  {run.header.created}, xbench {run.header.xbench_version}"))
    parts += [Text(f"warning: {text}", style="yellow") for text in comparison.warnings]
    for ranking in comparison.rankings:
        parts += [Text(), *_ranking(ranking)]
    if comparison.apart:
        parts += [Text(), Text("not ranked together", style="bold")]
    for apart in comparison.apart:
        parts.append(Text(f"{apart.first} | {apart.second}"))
        parts += [Text(f"  {reason}") for reason in apart.reasons]
    for across in comparison.blocks:
        parts += [Text(), *_across(across)]
    for agreement in comparison.agreements:
        parts += [Text(), *_agreement(agreement)]
    return Group(*parts)


# --- rankings --------------------------------------------------------------------------------------------------------


def _ranking(ranking: Ranking) -> Iterator[RenderableType]:
    setting, first = ranking.group.setting, ranking.standings[0].entry.row
    direction = "higher is better" if ranking.group.higher_is_better else "lower is better"
    yield Text.assemble(
        (setting.metric, "bold"),
        f" on {setting.place}  {direction}; {setting.sign} maps of the {setting.target} class; "
        f"{first.n} samples of {first.groups} patients; card {setting.card[:8]}",
    )
    table = _table()
    _add_columns(table, "rank", numbers=True)
    _add_columns(table, "explainer")
    _add_columns(table, "value", "95 % CI", numbers=True)
    if ranking.reference:
        table.add_column(f"less {ranking.reference}", justify="right")
        _add_columns(table, "95 % CI", "p (Holm)", numbers=True)
    table.add_column("can't be told apart from", overflow="fold")
    for standing in ranking.standings:
        style = "dim" if standing.entry.row.control else ""
        table.add_row(*_standing(standing, ranking), style=style)
    yield table
    yield from _words(ranking)


def _words(ranking: Ranking) -> Iterator[Text]:
    tested = any(standing.difference for standing in ranking.standings)
    if tested and not ranking.chosen:
        yield Text(f"p: of all pairs, since {ranking.reference} was found to be the best, not named", style="dim")
    elif ranking.chosen and not ranking.reference:
        yield Text("the explainer to compare with is not in this ranking", style="yellow")
    elif ranking.reference and not tested and len(ranking.standings) > 1:
        yield Text("differences: not tested, for want of replicates", style="dim")


def _standing(standing: Standing, ranking: Ranking) -> list[Text]:
    row, difference = standing.entry.row, standing.difference
    name = Text(standing.explainer, style="" if row.control else "bold")
    if standing.same_as:
        name.append(f" = {standing.same_as}", style="dim")
    cells = [Text(standing.ranks), name, Text(number(row.value)), _between(row.ci_low, row.ci_high)]
    if ranking.reference and difference is None:
        cells += [Text("reference" if standing.explainer == ranking.reference else "–", style="dim"), Text(), Text()]
    elif difference is not None:
        cells += [
            Text(number(difference.value)),
            _between(difference.low, difference.high),
            Text(probability(difference.p_holm)),
        ]
    return [*cells, Text(_some(standing.rank_set, len(ranking.standings)))]


def _some(names: Sequence[str], total: int) -> str:
    if len(names) > _NAMES and len(names) >= total - 1:
        return "all others"
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def _between(low: float, high: float) -> Text:
    return Text("–" if math.isnan(low) or math.isnan(high) else f"[{number(low)}, {number(high)}]")


def probability(p: float) -> str:
    """Return a p-value with as many decimals as matter."""
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def _add_columns(table: Table, *names: str, numbers: bool = False) -> None:
    """Add columns of numbers, which are never broken over lines, or of text."""
    for name in names:
        table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")


# --- over datasets, over metrics -------------------------------------------------------------------------------------


def _across(across: AcrossBlocks) -> Iterator[RenderableType]:
    result = across.result
    yield Text.assemble(
        (across.setting.metric, "bold"),
        f" over {result.blocks} datasets or models, {across.setting.sign} maps, {across.device} at precision "
        f"{across.precision}: {'; '.join(across.places)}",
    )
    if math.isnan(result.statistic):
        yield Text("Friedman's test needs at least three explainers in common", style="dim")
    else:
        yield Text(
            f"Friedman: chi² {result.statistic:.2f}, p {probability(result.p)}; "
            f"by permutation p {probability(result.p_permutation)}"
        )
    yield Text(f"Nemenyi: average ranks {result.critical_difference:.2f} apart differ (5 % for all pairs at once)")
    table = _table()
    _add_columns(table, "average rank", numbers=True)
    _add_columns(table, "explainer", "can't be told apart from")
    for index, name in enumerate(result.explainers):
        words = _some(result.not_worse(index), len(result.explainers))
        table.add_row(Text(f"{result.average_ranks[index]:.2f}"), Text(name, style="bold"), Text(words))
    yield table


def _agreement(agreement: Agreement) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("agreement of metrics", "bold"),
        f" on {agreement.place}; Spearman's rho and Kendall's tau-b over the explainers in common",
    )
    table = _table()
    _add_columns(table, "metrics")
    _add_columns(table, "common", "rho", "95 % CI", "p", "tau-b", "95 % CI", "p", numbers=True)
    for pair in agreement.pairs:
        cells = [Text(f"{pair.first} / {pair.second}"), Text(str(pair.explainers))]
        table.add_row(*cells, *_correlation(pair.spearman), *_correlation(pair.kendall))
    yield table


def _correlation(correlation: Correlation) -> tuple[Text, Text, Text]:
    value = "–" if math.isnan(correlation.value) else f"{correlation.value:.2f}"
    between = "–" if math.isnan(correlation.low) else f"[{correlation.low:.2f}, {correlation.high:.2f}]"
    return Text(value), Text(between), Text(probability(correlation.p))


# --- CSV -------------------------------------------------------------------------------------------------------------


def write_comparison(rankings: Iterable[Ranking], path: Path) -> None:
    """Write one line per explainer and ranking, whole or not at all; NaN is an empty cell, formulas are defused."""
    records = (_record(ranking, standing) for ranking in rankings for standing in ranking.standings)
    write_text(path, csv_text(COLUMNS, records))


def _record(ranking: Ranking, standing: Standing) -> dict[str, object]:
    difference = standing.difference or _UNTESTED
    return {
        **vars(standing.entry.row),  # its setting too
        "runs": "|".join(standing.entry.runs),
        "explainer": standing.explainer,
        "same_as": standing.same_as,
        "rank": standing.rank,
        "rank_high": standing.rank_high,
        "rank_set": "|".join(standing.rank_set),
        "reference": ranking.reference,
        "difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "p": difference.p,
        "p_holm": difference.p_holm,
    }
