"""Rank under other conventions: which explainers keep their rank, and whose order turns round."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.results.cells import csv_text
from xbench.results.numbers import rank_range
from xbench.results.rows import ScoreRow
from xbench.runtime.files import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Conventions:
    """A grid over the explainers of a run, in the labels that its rows bear.

    Attributes:
        metrics: Label of each metric variant -> its options in the grid.
        explainers: Label of each explainer, blurred or not -> its label without the blur, and the blur.
        signs: Signs of the maps in the grid.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    explainers: Mapping[str, tuple[str, float]]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class ConventionRanks:
    """Ranks of one explainer under all conventions, by its value alone and not by tests.

    Attributes:
        explainer: Label, without the blur.
        base: Its rank under the first convention, among the explainers compared.
        best: Its best rank under any.
        worst: Its worst rank under any.
    """

    explainer: str
    base: int
    best: int
    worst: int


@dataclass(frozen=True)
class Flip:
    """Two explainers whose order turns round, where the data tell them apart both times.

    Attributes:
        better: The better one under the first convention.
        worse: The worse one, which is better under `conventions`.
        conventions: The conventions that turn the order round, by what they change of the first.
    """

    better: str
    worse: str
    conventions: tuple[str, ...]


def ranks_under(rows: Sequence[ScoreRow], conventions: Conventions) -> tuple[list[ConventionRanks], list[Flip]]:
    """Rank the explainers under every convention of a grid.

    Args:
        rows: Rows of one run of the grid, on one dataset and model.
        conventions: The grid.

    Returns:
        The explainers by their rank under the first convention, and the pairs that flip.
    """
    tables = _by_convention(rows, conventions)
    if not tables:
        return [], []
    common = set.intersection(*(set(table) for table in tables.values()))
    orders = {key: _order({name: table[name] for name in common}) for key, table in tables.items()}
    first = next(iter(orders))
    ranks = {key: {name: rank for rank, name in enumerate(order, 1)} for key, order in orders.items()}
    explainers = []
    for name in orders[first]:
        every = [of_convention[name] for of_convention in ranks.values()]
        explainers.append(ConventionRanks(name, ranks[first][name], min(every), max(every)))
    flips = []
    for better, worse in itertools.combinations(orders[first], 2):
        if _apart(tables[first], better, worse):
            turned = [
                _changed(key, first, conventions)
                for key, table in tables.items()
                if ranks[key][worse] < ranks[key][better] and _apart(table, worse, better)
            ]
            flips += [Flip(better, worse, tuple(turned))] if turned else []
    return explainers, flips


Convention = tuple[str, str, float]  # label of the metric, sign, blur


def _by_convention(rows: Sequence[ScoreRow], conventions: Conventions) -> dict[Convention, dict[str, ScoreRow]]:
    """Return convention -> explainer without its blur -> row; the first convention first."""
    blurs = dict.fromkeys(blur for _, blur in conventions.explainers.values())
    keys = itertools.product(conventions.metrics, conventions.signs, blurs)
    tables: dict[Convention, dict[str, ScoreRow]] = {key: {} for key in keys}
    for row in rows:
        if row.explainer not in conventions.explainers or row.status != "ok":
            continue
        name, blur = conventions.explainers[row.explainer]
        if (row.metric, row.sign, blur) in tables:
            tables[row.metric, row.sign, blur][name] = row
    return {key: table for key, table in tables.items() if table}


def _order(table: Mapping[str, ScoreRow]) -> list[str]:
    return sorted(table, key=lambda name: -table[name].value if table[name].higher_is_better else table[name].value)


def _apart(table: Mapping[str, ScoreRow], first: str, second: str) -> bool:
    return table[second].explainer not in table[first].rank_set


def _changed(key: Convention, first: Convention, conventions: Conventions) -> str:
    """Say what a convention changes of the first."""
    own, base = conventions.metrics[key[0]], conventions.metrics[first[0]]
    words = [f"{name}={value}" for name, value in own.items() if base.get(name) != value]
    words += [f"sign={key[1]}"] if key[1] != first[1] else []
    words += [f"blur={key[2]:g}"] if key[2] != first[2] else []
    return ", ".join(words) or key[0]


_COLUMNS: dict[str, type] = {"explainer": str, "rank": int, "best": int, "worst": int, "flips": str}


def write_ranks(explainers: Sequence[ConventionRanks], flips: Sequence[Flip], path: Path) -> None:
    """Write a CSV table, whole or not at all: a line per explainer, with the pairs it wins first and loses later."""
    records = []
    for ranks in explainers:
        lost = [f"{flip.worse} ({'; '.join(flip.conventions)})" for flip in flips if flip.better == ranks.explainer]
        records.append(vars(ranks) | {"rank": ranks.base, "flips": " | ".join(lost)})
    write_text(path, csv_text(_COLUMNS, records))


def ranks_table(explainers: Sequence[ConventionRanks], flips: Sequence[Flip]) -> RenderableType:
    """Return a table for the terminal: the first rank, the ranks under all conventions, and what turns round."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title="under all conventions", title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column, justify in (("rank", "right"), ("explainer", "left"), ("ranks under all", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for ranks in explainers:
        every = rank_range(ranks.best, ranks.worst)
        table.add_row(str(ranks.base), Text(ranks.explainer, style="bold"), every)
    lines = [
        Text(f"{flip.worse} beats {flip.better} under {'; '.join(flip.conventions)}", style="yellow") for flip in flips
    ]
    return Group(table, *lines)
