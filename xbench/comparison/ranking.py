"""Rank a group, and take each explainer's paired difference to a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbench.comparison.groups import Entry, RankedGroup
from xbench.results.standings import Difference, Ranked, ranked
from xbench.statistics.ranking import bootstrap_tests, rank_sets
from xbench.statistics.resampling import interval


@dataclass(frozen=True, kw_only=True)
class Standing(Ranked):
    """Where an entry stands in its group; `explainer` is its label.

    Attributes:
        entry: The row.
        difference: Difference to the reference; None without replicates, and for the reference itself.
    """

    entry: Entry
    difference: Difference | None


@dataclass(frozen=True)
class Ranking:
    """A group in order.

    Attributes:
        group: The group that was ranked.
        standings: Standings, best first; those without a value last.
        reference: Label of the entry that the differences are to; empty where there are none.
        chosen: Whether the user named the reference, rather than the ranking finding it to be the best.
    """

    group: RankedGroup
    standings: tuple[Standing, ...]
    reference: str
    chosen: bool


def ranking(group: RankedGroup, against: str = "") -> Ranking:
    """Rank a group anew, over all runs it comes from, and hold every entry against a reference.

    Ranks follow `xbench.statistics.ranking`: an entry is in the reference's rank set exactly if its corrected p is
    `LEVEL` or more. Holm's family depends on who chose the reference. A reference named beforehand is compared with
    each of the others: k - 1 tests. One that the data show to be the best may be best by luck, so the family is the
    tests of all k (k - 1) / 2 pairs. A smaller family would call luck a difference.

    Explainers with the same maps are one method: they take one rank and one test.

    Args:
        group: The rows.
        against: Explainer to compare with; empty for the best that is not a control.
    """
    twins = {entry.label: twin for entry in group.entries if (twin := group.twin(entry)) is not None}
    judged = [entry for entry in group.entries if entry.label not in twins]
    ranks = _ranks(group, judged)
    reference = _reference(group, judged, against)
    differences = _differences(judged, reference, bool(against)) if reference else {}
    standings = []
    for entry in sorted(group.entries, key=lambda entry: _order(group, entry)):
        twin = twins.get(entry.label)
        difference = differences.get((twin or entry).label)
        if twin is not None and reference in (twin, entry):
            difference = _as_twin(entry, reference)
        place = ranks[twin.label].shared_with(entry.label) if twin else ranks[entry.label]
        standings.append(Standing(**vars(place), entry=entry, difference=difference))
    return Ranking(group, tuple(standings), reference.label if reference else "", bool(against))


def _order(group: RankedGroup, entry: Entry) -> tuple[float, str]:
    value = group.oriented(entry)
    return (math.inf if math.isnan(value) else -value, entry.label)


def _stacked(entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return values (E,) and replicates (E, B), or None where an entry has none."""
    series = [entry.replicates for entry in entries if entry.replicates is not None]
    if len(series) < len(entries) or not series:
        return None
    return np.array([entry.row.value for entry in entries]), np.stack(series)


def _ranks(group: RankedGroup, judged: Sequence[Entry]) -> dict[str, Ranked]:
    stacked = _stacked(judged)
    if stacked is None:
        return _own_ranks(group, judged)
    names = [entry.label for entry in judged]
    ranks = rank_sets(*stacked, group.higher_is_better, patients=_patients(judged))
    return dict(zip(names, ranked(names, ranks), strict=True))


def _own_ranks(group: RankedGroup, judged: Sequence[Entry]) -> dict[str, Ranked]:
    """Return the ranks that a run itself found: they hold as long as all of it, and nothing else, is ranked here."""
    labels = {entry.row.explainer: entry.label for entry in judged}
    hold = len(group.runs) == 1 and all(set(entry.row.rank_set) <= set(labels) for entry in judged)
    if not hold:
        return {entry.label: Ranked(explainer=entry.label) for entry in judged}
    ranks = {}
    for entry in judged:
        row, rank_set = entry.row, tuple(labels[name] for name in entry.row.rank_set)
        ranks[entry.label] = Ranked(explainer=entry.label, rank=row.rank, rank_high=row.rank_high, rank_set=rank_set)
    return ranks


def _patients(entries: Sequence[Entry]) -> int:
    return min(entry.row.groups for entry in entries)


def _reference(group: RankedGroup, judged: Sequence[Entry], against: str) -> Entry | None:
    if against:
        named = [entry for entry in group.entries if against in (entry.label, entry.row.explainer, entry.row.resolved)]
        return next((group.twin(entry) or entry for entry in named), None)
    scored = [entry for entry in judged if not math.isnan(entry.row.value)]
    users = [entry for entry in scored if not entry.row.control]
    return min(users or scored, key=lambda entry: _order(group, entry), default=None)


def _differences(judged: Sequence[Entry], reference: Entry, chosen: bool) -> dict[str, Difference]:
    scored = [entry for entry in judged if not math.isnan(entry.row.value)]
    stacked = _stacked(scored)
    if stacked is None or reference not in scored:
        return {}
    values, replicates = stacked
    at = scored.index(reference)
    family = bootstrap_tests(values, replicates, _patients(scored))
    if chosen:
        family = family.against(at)
    differences = {}
    for index in np.flatnonzero((family.first == at) | (family.second == at)):
        other = int(family.first[index] + family.second[index] - at)
        low, high = interval(replicates[other] - replicates[at])
        differences[scored[other].label] = Difference(
            value=float(values[other] - values[at]),
            low=low,
            high=high,
            p=float(family.p[index]),
            p_holm=float(family.p_holm[index]),
        )
    return differences


def _as_twin(entry: Entry, reference: Entry) -> Difference | None:
    """Return the difference of an entry with the same maps as the reference. It is rounding and needs no test."""
    if entry is reference or entry.replicates is None or reference.replicates is None:
        return None
    low, high = interval(entry.replicates - reference.replicates)
    return Difference(value=entry.row.value - reference.row.value, low=low, high=high, p=1.0, p_holm=1.0)
