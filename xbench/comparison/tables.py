"""A comparison as the terminal shows it, and as a CSV table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xbench.comparison.blocks import AcrossBlocks
from xbench.comparison.overview import Comparison
from xbench.comparison.ranking import Ranking, Standing
from xbench.results.numbers import number
from xbench.results.rows import write_whole
from xbench.statistics.agreement import Agreement, Correlation

_NAMES = 4  # of a rank set, before the rest is counted
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # what a spreadsheet would execute, as in results.py

COLUMNS = (
    "runs",
    "dataset",
    "split",
    "model",
    "subject",
    "sign",
    "target",
    "metric",
    "card",
    "higher_is_better",
    "explainer",
    "control",
    "same_as",
    "n",
    "groups",
    "value",
    "ci_low",
    "ci_high",
    "rank",
    "rank_high",
    "rank_set",
    "reference",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
)
"""Of the CSV table."""


def comparison_tables(comparison: Comparison) -> RenderableType:
    """All of a comparison, to be printed by a rich console (plain text where that is not a terminal)."""
    parts: list[RenderableType] = []
    for run in comparison.runs:
        parts.append(Text.assemble((run.name, "bold"), f"  {run.header.created}, xbench {run.header.xbench_version}"))
    parts += [Text(f"warning: {text}", style="yellow") for text in comparison.warnings]
    for one in comparison.rankings:
        parts += [Text(), *_ranking(one)]
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
    setting, first = ranking.field.setting, ranking.standings[0].entry.row
    direction = "higher is better" if ranking.field.higher_is_better else "lower is better"
    yield Text.assemble(
        (setting.metric, "bold"),
        f" on {setting.place}  {direction}; {setting.sign} maps of the {setting.target} class; "
        f"{first.n} samples of {first.groups} patients; card {setting.card[:8]}",
    )
    table = _table("rank:r", "explainer", "value:r", "95 % CI:r")
    if ranking.reference:
        for name in (f"less {ranking.reference}", "95 % CI", "p (Holm)"):
            table.add_column(name, justify="right", no_wrap=name != f"less {ranking.reference}")
    table.add_column("not told apart from", overflow="fold")
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
    name = Text(standing.entry.label, style="" if row.control else "bold")
    if standing.same_as:
        name.append(f" = {standing.same_as}", style="dim")
    cells = [Text(standing.ranks), name, Text(number(row.value)), _between(row.ci_low, row.ci_high)]
    if ranking.reference and difference is None:
        cells += [Text("reference" if standing.entry.label == ranking.reference else "–", style="dim"), Text(), Text()]
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
    """A p-value with as many decimals as matter."""
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        name, _, side = column.partition(":")
        table.add_column(name, justify="right" if side else "left", no_wrap=bool(side), overflow="fold")
    return table


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
    table = _table("average rank:r", "explainer", "not told apart from")
    for index, name in enumerate(result.explainers):
        words = _some(result.not_worse(index), len(result.explainers))
        table.add_row(Text(f"{result.average_ranks[index]:.2f}"), Text(name, style="bold"), Text(words))
    yield table


def _agreement(agreement: Agreement) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("agreement of metrics", "bold"),
        f" on {agreement.place}; Spearman's rho and Kendall's tau-b over the explainers in common",
    )
    table = _table("metrics", "common:r", "rho:r", "95 % CI:r", "p:r", "tau-b:r", "95 % CI:r", "p:r")
    for pair in agreement.pairs:
        cells = [Text(f"{pair.first} / {pair.second}"), Text(str(pair.explainers))]
        table.add_row(*cells, *_correlation(pair.spearman), *_correlation(pair.kendall))
    yield table


def _correlation(found: Correlation) -> tuple[Text, Text, Text]:
    value = "–" if math.isnan(found.value) else f"{found.value:.2f}"
    between = "–" if math.isnan(found.low) else f"[{found.low:.2f}, {found.high:.2f}]"
    return Text(value), Text(between), Text(probability(found.p))


# --- CSV -------------------------------------------------------------------------------------------------------------


def write_comparison(rankings: Iterable[Ranking], path: Path) -> None:
    """Write one line per explainer and ranking, whole or not at all; NaN is an empty cell, formulas are defused."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for ranking in rankings:
        for standing in ranking.standings:
            writer.writerow([_cell(value) for value in _record(ranking, standing)])
    write_whole(path, text.getvalue())


def _record(ranking: Ranking, standing: Standing) -> tuple[object, ...]:
    row, setting, found = standing.entry.row, ranking.field.setting, standing.difference
    differences = (found.value, found.low, found.high, found.p, found.p_holm) if found else (math.nan,) * 5
    return (
        "|".join(standing.entry.runs),
        setting.dataset,
        setting.split,
        setting.model,
        setting.subject,
        setting.sign,
        setting.target,
        setting.metric,
        setting.card,
        row.higher_is_better,
        standing.entry.label,
        row.control,
        standing.same_as,
        row.n,
        row.groups,
        row.value,
        row.ci_low,
        row.ci_high,
        standing.rank,
        standing.rank_high,
        "|".join(standing.rank_set),
        ranking.reference,
        *differences,
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text
