"""A field -> its ranking, and each explainer's paired difference to a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbench.comparison.fields import Entry, Field
from xbench.statistics.resampling import holm, interval, pair_p, rank_sets


@dataclass(frozen=True)
class Difference:
    """An explainer's value less the reference's, on the same resamples.

    Attributes:
        value: Of all samples.
        low: Of the 95 % percentile interval, for this difference alone.
        high: Of the same.
        p: Two-sided, of "they are equal".
        p_holm: Corrected for all comparisons of the family.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Standing:
    """Where an entry stands in its field.

    Attributes:
        entry: The row.
        rank: Best rank that the data allow; 0 if unknown.
        rank_high: Worst.
        rank_set: Labels of the entries it can't be told from.
        same_as: Label of an entry with the same maps, with which it shares its ranks; empty for none.
        difference: To the reference; None without replicates, and for the reference itself.
    """

    entry: Entry
    rank: int
    rank_high: int
    rank_set: tuple[str, ...]
    same_as: str
    difference: Difference | None

    @property
    def ranks(self) -> str:
        """The ranks that the data allow: "1" or "2–4"; empty without one."""
        return (
            "" if not self.rank else f"{self.rank}" if self.rank == self.rank_high else f"{self.rank}–{self.rank_high}"
        )


@dataclass(frozen=True)
class Ranking:
    """A field in order.

    Attributes:
        field: What was ranked.
        standings: Best first; those without a value last.
        reference: Label of what the differences are to; empty where there are none.
        chosen: The reference was named by the user, not found to be the best.
    """

    field: Field
    standings: tuple[Standing, ...]
    reference: str
    chosen: bool


def ranking(field: Field, against: str = "") -> Ranking:
    """Rank a field anew, over all runs it comes from, and hold every entry against a reference.

    Ranks and p-values are those of `xbench.statistics.resampling.rank_sets`: an entry is in the reference's rank set
    exactly if its corrected p is 0.05 or more. Holm's family depends on who chose the reference. Named beforehand, it
    is compared with each of the others: k - 1 tests. Found in the data as the best, it may be best by luck, and the
    tests of all k (k - 1) / 2 pairs are the family; less would call luck a difference.

    Explainers with the same maps are one method: they take one rank and one test.

    Args:
        field: The rows.
        against: Explainer to compare with; empty for the best that is not a control.
    """
    twins = {entry.label: twin for entry in field.entries if (twin := field.twin(entry)) is not None}
    judged = [entry for entry in field.entries if entry.label not in twins]
    ranks = _ranks(field, judged)
    reference = _reference(field, judged, against)
    differences = _differences(judged, reference, bool(against)) if reference else {}
    standings = []
    for entry in sorted(field.entries, key=lambda entry: _order(field, entry)):
        twin = twins.get(entry.label)
        like = (twin or entry).label
        low, high, tied = ranks[like]
        difference = differences.get(like)
        if twin is not None and reference in (twin, entry):
            difference = _as_twin(entry, reference)
        standings.append(Standing(entry, low, high, tied, twin.label if twin else "", difference))
    return Ranking(field, tuple(standings), reference.label if reference else "", bool(against))


def _order(field: Field, entry: Entry) -> tuple[float, str]:
    value = field.oriented(entry)
    return (math.inf if math.isnan(value) else -value, entry.label)


def _stacked(entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray] | None:
    """Values (E,) and replicates (E, B), or None where an entry has none."""
    series = [entry.replicates for entry in entries if entry.replicates is not None]
    if len(series) < len(entries) or not series:
        return None
    return np.array([entry.row.value for entry in entries]), np.stack(series)


def _ranks(field: Field, judged: Sequence[Entry]) -> dict[str, tuple[int, int, tuple[str, ...]]]:
    stacked = _stacked(judged)
    if stacked is None:  # a run's own ranks hold as long as all of it, and nothing else, is ranked
        alone = len(field.runs) == 1 and all(
            set(entry.row.rank_set) <= {other.row.explainer for other in judged} for entry in judged
        )
        labels = {entry.row.explainer: entry.label for entry in judged}
        return {
            label: (row.rank, row.rank_high, tuple(labels[name] for name in row.rank_set)) if alone else (0, 0, ())
            for label, row in ((entry.label, entry.row) for entry in judged)
        }
    found = rank_sets(*stacked, field.higher_is_better, patients=_patients(judged))
    names = [entry.label for entry in judged]
    return {
        label: (rank.low, rank.high, tuple(names[other] for other in sorted(rank.tied) if names[other] != label))
        for label, rank in zip(names, found, strict=True)
    }


def _patients(entries: Sequence[Entry]) -> int:
    return min(entry.row.groups for entry in entries)


def _reference(field: Field, judged: Sequence[Entry], against: str) -> Entry | None:
    if against:
        named = [entry for entry in field.entries if against in (entry.label, entry.row.explainer, entry.row.resolved)]
        return next((field.twin(entry) or entry for entry in named), None)
    scored = [entry for entry in judged if not math.isnan(entry.row.value)]
    users = [entry for entry in scored if not entry.row.control]
    return min(users or scored, key=lambda entry: _order(field, entry), default=None)


def _differences(judged: Sequence[Entry], reference: Entry, chosen: bool) -> dict[str, Difference]:
    scored = [entry for entry in judged if not math.isnan(entry.row.value)]
    stacked = _stacked(scored)
    if stacked is None or reference not in scored:
        return {}
    values, replicates = stacked
    at = scored.index(reference)
    first, second = np.triu_indices(len(scored), k=1)
    if chosen:
        of_reference = (first == at) | (second == at)
        first, second = first[of_reference], second[of_reference]
    p = pair_p(values, replicates, first, second, _patients(scored))
    corrected = holm(p)
    found = {}
    for index in np.flatnonzero((first == at) | (second == at)):
        other = int(first[index] + second[index] - at)
        low, high = interval(replicates[other] - replicates[at])
        gain = float(values[other] - values[at])
        found[scored[other].label] = Difference(gain, low, high, float(p[index]), float(corrected[index]))
    return found


def _as_twin(entry: Entry, reference: Entry) -> Difference | None:
    """The same maps as the reference: what differs is rounding, and no test."""
    if entry is reference or entry.replicates is None or reference.replicates is None:
        return None
    low, high = interval(entry.replicates - reference.replicates)
    return Difference(entry.row.value - reference.row.value, low, high, 1.0, 1.0)
