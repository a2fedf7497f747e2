"""Check what holds between the rows of a submission, and between them and its header."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from xbench.leaderboard.findings import quoted
from xbench.leaderboard.records import Entry, Submission
from xbench.leaderboard.rules import Fault
from xbench.provenance import digest
from xbench.results.naming import bare_name
from xbench.results.rows import RunHeader, ScoreRow
from xbench.results.standings import Setting

Numbered = tuple[int, Fault]
"""Index of the row (-1: the header), and what is wrong."""

_SHARED = (*(field.name for field in dataclasses.fields(Setting)), "model_fingerprint")
"""The fields that are equal in all rows that a run ranks together."""


def inner_faults(submission: Submission) -> Iterator[Numbered]:
    """Yield everything in a submission that contradicts something else in it."""
    rows = [entry.row for entry in submission.entries]
    yield from _run_faults(rows, submission.run)
    yield from _duplicates(rows)
    yield from _fingerprint_faults(rows)
    cards = _card_faults(submission.run)
    for index, row in enumerate(rows):
        if row.status == "ok":
            for fault in _header_misfits(row, submission.run, cards):
                yield index, fault
    yield from _rank_faults(submission.entries)


def _run_faults(rows: Sequence[ScoreRow], run: RunHeader) -> Iterator[Numbered]:
    """Check what a whole run has one of: as the header says, else as the first row does."""
    for name, said in (("seed", run.config), ("precision", run.config), ("device", run.environment)):
        wanted = said.get(name, getattr(rows[0], name))
        for index, row in enumerate(rows):
            if getattr(row, name) != wanted:
                yield index, (name, f"{quoted(getattr(row, name))} is not the run's {quoted(wanted)}")


def _groups(rows: Iterable[tuple[int, ScoreRow]], key: Callable[[ScoreRow], Hashable]) -> dict[Hashable, list[int]]:
    indices: dict[Hashable, list[int]] = {}
    for index, row in rows:
        indices.setdefault(key(row), []).append(index)
    return indices


def _duplicates(rows: Sequence[ScoreRow]) -> Iterator[Numbered]:
    cells = _groups(enumerate(rows), lambda row: (*(getattr(row, name) for name in _SHARED), row.explainer))
    for first, *others in cells.values():
        for index in others:
            yield index, ("explainer", f"{quoted(rows[index].explainer)} has this cell on line {first + 2} already")


def _fingerprint_faults(rows: Sequence[ScoreRow]) -> Iterator[Numbered]:
    """Check that one fingerprint is one thing, and the same number where the thing is a number."""
    good = [(index, row) for index, row in enumerate(rows) if row.status == "ok"]
    maps_of = ("dataset", "model", "resolved", "subject", "split", "target")
    for field, names in {
        "dataset_fingerprint": ("dataset",),
        "model_fingerprint": ("dataset", "model"),
        "maps_fingerprint": maps_of,
        # An unsigned map serves both columns, so the sign may differ.
        "fingerprint": (*maps_of, "metric", "n", "groups", "value", "ci_low", "ci_high", "higher_is_better"),
    }.items():
        yield from _one_to_one(rows, good, field, names)
    for names, field in (
        (("dataset",), "dataset_fingerprint"),
        ((*maps_of, "sign"), "maps_fingerprint"),
        (("explainer",), "resolved"),
    ):
        for first, *others in _groups(good, functools.partial(_values, names=names)).values():
            for index in others:
                if getattr(rows[index], field) != getattr(rows[first], field):
                    yield index, (field, f"is not that of line {first + 2}, which is of the same {names[-2:][0]}")


def _one_to_one(
    rows: Sequence[ScoreRow], good: Sequence[tuple[int, ScoreRow]], field: str, names: Sequence[str]
) -> Iterator[Numbered]:
    for first, *others in _groups(good, lambda row: getattr(row, field)).values():
        for index in others:
            for name in names:
                mine, theirs = getattr(rows[index], name), getattr(rows[first], name)
                if repr(mine) != repr(theirs):  # NaN is the same as NaN here
                    text = f"is that of line {first + 2}, where {name} is {quoted(theirs)}, not {quoted(mine)}"
                    yield index, (field, text)
                    break


def _values(row: ScoreRow, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in names)


# --- rows and header -------------------------------------------------------------------------------------------------


def _card_faults(run: RunHeader) -> dict[str, str]:
    """Return what is wrong with each card that is not named by its own hash."""
    faults = {}
    for name, card in run.cards.items():
        own = digest(card)[:16] if isinstance(card, Mapping) else ""
        if own != name:
            faults[name] = f"card {name} in the header has the hash {own or 'of no card'}"
    return faults


def _header_misfits(row: ScoreRow, run: RunHeader, cards: Mapping[str, str]) -> Iterator[Fault]:
    card = run.cards.get(row.card)
    if row.card in cards:
        yield "card", cards[row.card]
    elif card is None:
        yield "card", f"{row.card} is not among the cards of the header"
    else:
        for name, mine in (("metric", bare_name(row.metric)), ("sign", row.sign), ("split", row.split)):
            if card.get(name) != mine:
                yield "card", f"its {name} is {quoted(card.get(name))}, the row's {quoted(mine)}"
    dataset = next((item for item in run.datasets if item["name"] == row.dataset), None)
    if dataset is None:
        yield "dataset", f"{quoted(row.dataset)} is not among the datasets of the header"
    else:
        if dataset.get("fingerprint") != row.dataset_fingerprint:
            yield "dataset_fingerprint", f"{row.dataset} has {quoted(dataset.get('fingerprint'))} in the header"
        most = _size(dataset, row.split)
        if row.n > most:
            yield "n", f"{row.n} samples of the {most} in split {row.split} of {row.dataset}"
    places = [item for item in run.models if (item["name"], item.get("dataset")) == (row.model, row.dataset)]
    if not places:
        yield "model", f"{quoted(row.model)} on {row.dataset} is not among the models of the header"
    elif all(item.get("fingerprint") != row.model_fingerprint for item in places):
        yield "model_fingerprint", f"{row.model} has {quoted(places[0].get('fingerprint'))} in the header"


def _size(dataset: Mapping[str, Any], split: str) -> float:
    """Return the number of samples of a split; infinite where the header does not say."""
    counts = dataset.get("class_counts")
    of_split = counts.get(split) if isinstance(counts, Mapping) else None
    if not isinstance(of_split, Mapping):
        return math.inf
    return sum(count for count in of_split.values() if isinstance(count, int))


# --- ranks -----------------------------------------------------------------------------------------------------------


def _rank_faults(entries: Sequence[Entry]) -> Iterator[Numbered]:
    rows = [entry.row for entry in entries]
    good = [(index, row) for index, row in enumerate(rows) if row.status == "ok"]
    for members in _groups(good, lambda row: _values(row, _SHARED)).values():
        by_name = {rows[index].explainer: index for index in members}
        judged = [index for index in members if not rows[index].same_as]
        for index in members:
            yield from ((index, fault) for fault in _set_faults(index, by_name, rows))
        for index in judged:
            yield from ((index, fault) for fault in _own_rank_faults(rows[index], [rows[other] for other in judged]))


def _set_faults(index: int, by_name: Mapping[str, int], rows: Sequence[ScoreRow]) -> Iterator[Fault]:
    row = rows[index]
    if row.same_as:
        original = rows[by_name[row.same_as]] if row.same_as in by_name else None
        if original is None or original is row or original.same_as:
            yield "same_as", f"{quoted(row.same_as)} is not another explainer that is ranked here"
        elif (row.rank, row.rank_high, row.rank_set) != (original.rank, original.rank_high, original.rank_set):
            yield "rank", f"{row.ranks or 'none'}, not that of {row.same_as}, which gives the same maps"
        return
    for name in row.rank_set:
        if name not in by_name:
            yield "rank_set", f"{quoted(name)} is not ranked here"
        elif name == row.explainer:
            yield "rank_set", "it names the explainer itself"
        elif row.explainer not in rows[by_name[name]].rank_set:
            yield "rank_set", f"{name} does not name {row.explainer} in turn"
    if len(set(row.rank_set)) < len(row.rank_set):
        yield "rank_set", "it names an explainer twice"


def _own_rank_faults(row: ScoreRow, judged: Sequence[ScoreRow]) -> Iterator[Fault]:
    """Check ranks against values and rank sets, by the rule of `xbench.statistics.ranking.ranks`.

    What has no value has no rank. The tests behind the rank sets are not at hand here, only the sets.
    """
    scored = [other for other in judged if not math.isnan(other.value)]
    low, high = 0, 0
    if not math.isnan(row.value):
        defined = [other for other in scored if other is not row and other.explainer not in row.rank_set]
        ahead = sum((other.value > row.value) == row.higher_is_better for other in defined if other.value != row.value)
        behind = sum((other.value < row.value) == row.higher_is_better for other in defined if other.value != row.value)
        low, high = 1 + ahead, len(scored) - behind
        for other in defined:
            if other.value == row.value:
                yield "rank_set", f"{other.explainer} has the same value but is missing in it"
    if (row.rank, row.rank_high) != (low, high):
        yield "rank", f"{row.rank} to {row.rank_high}; values and rank sets give {low} to {high}"
