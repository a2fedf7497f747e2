"""Ranks under other conventions: which explainers keep their rank, and whose order turns round."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.results.rows import ScoreRow

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Conventions:
    """A grid over the explainers of a run, in the labels that its rows bear.

    Attributes:
        metrics: Label of each metric variant -> its options in the grid.
        explainers: Label of each explainer, blurred or not -> its label without the blur, and the blur.
        signs: As of the grid.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    explainers: Mapping[str, tuple[str, float]]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """One explainer under all conventions.

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
    """Two explainers whose order turns round, both times beyond what the data leave open.

    Attributes:
        better: The better one under the first convention.
        worse: The worse one, which is better under `conventions`.
        conventions: Under which; what they change of the first.
    """

    better: str
    worse: str
    conventions: tuple[str, ...]


def standings(rows: Sequence[ScoreRow], conventions: Conventions) -> tuple[list[Standing], list[Flip]]:
    """What becomes of the ranking under the grid.

    Args:
        rows: Of one run of the grid, on one dataset and model.
        conventions: The conventions.

    Returns:
        The explainers by their rank under the first convention, and the pairs that flip.
    """
    tables = _by_convention(rows, conventions)
    if not tables:
        return [], []
    common = set.intersection(*(set(table) for table in tables.values()))
    orders = {key: _order({name: table[name] for name in common}) for key, table in tables.items()}
    first = next(iter(orders))
    ranks = {key: {name: place for place, name in enumerate(order, 1)} for key, order in orders.items()}
    found = [
        Standing(name, ranks[first][name], *_extremes(each[name] for each in ranks.values())) for name in orders[first]
    ]
    flips = [
        Flip(better, worse, turned)
        for better, worse in itertools.combinations(orders[first], 2)
        if _apart(tables[first], better, worse)
        and (
            turned := tuple(
                _changed(key, first, conventions)
                for key, table in tables.items()
                if ranks[key][worse] < ranks[key][better] and _apart(table, worse, better)
            )
        )
    ]
    return found, flips


Convention = tuple[str, str, float]  # label of the metric, sign, blur


def _by_convention(rows: Sequence[ScoreRow], conventions: Conventions) -> dict[Convention, dict[str, ScoreRow]]:
    """Convention -> explainer without its blur -> row; the first convention first."""
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


def _extremes(ranks: Iterable[int]) -> tuple[int, int]:
    every = list(ranks)
    return min(every), max(every)


def _apart(table: Mapping[str, ScoreRow], one: str, other: str) -> bool:
    return table[other].explainer not in table[one].rank_set


def _changed(key: Convention, first: Convention, conventions: Conventions) -> str:
    """What a convention changes of the first, in words."""
    own, base = conventions.metrics[key[0]], conventions.metrics[first[0]]
    words = [f"{name}={value}" for name, value in own.items() if base.get(name) != value]
    words += [f"sign={key[1]}"] if key[1] != first[1] else []
    words += [f"blur={key[2]:g}"] if key[2] != first[2] else []
    return ", ".join(words) or key[0]


def write_standings(found: Sequence[Standing], flips: Sequence[Flip], path: Path) -> None:
    """Write both as CSV: a line an explainer, with the pairs it wins at first and loses elsewhere."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["explainer", "rank", "best", "worst", "flips"])
        for one in found:
            lost = [f"{flip.worse} ({'; '.join(flip.conventions)})" for flip in flips if flip.better == one.explainer]
            writer.writerow([one.explainer, one.base, one.best, one.worst, " | ".join(lost)])


def standings_table(found: Sequence[Standing], flips: Sequence[Flip]) -> RenderableType:
    """For the terminal: the first convention's rank, the ranks under all, and under what the order turns round."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title="under all conventions", title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column, justify in (("rank", "right"), ("explainer", "left"), ("ranks under all", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for one in found:
        ranks = str(one.best) if one.best == one.worst else f"{one.best}–{one.worst}"
        table.add_row(str(one.base), Text(one.explainer, style="bold"), ranks)
    lines = [
        Text(f"{flip.worse} beats {flip.better} under {'; '.join(flip.conventions)}", style="yellow") for flip in flips
    ]
    return Group(table, *lines)
