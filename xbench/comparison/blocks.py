"""Several datasets or models: Friedman's test, average ranks and Nemenyi's critical difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from xbench.comparison.fields import Entry, Field, Setting
from xbench.runtime.seeding import rng

PLACE = ("dataset", "dataset_fingerprint", "model", "model_fingerprint", "sampling")
"""What fields of one metric card may differ in and still be blocks of one test."""

_PERMUTATIONS = 9999


@dataclass(frozen=True)
class Friedman:
    """Whether explainers differ over several datasets or models (Demsar 2006, section 3.2).

    Attributes:
        explainers: k names, best average rank first.
        average_ranks: (k,), rank 1 is best, ties share their mean rank.
        blocks: How many datasets and models, N.
        statistic: Friedman's chi-square, corrected for ties; NaN for fewer than 3 explainers.
        p: By the chi-square distribution with k - 1 degrees of freedom: for many blocks (more than 10) only.
        p_permutation: By permuting each block's values, which holds for any number of blocks.
        critical_difference: Nemenyi's: average ranks that far apart differ, at 5 % for all pairs at once.
    """

    explainers: tuple[str, ...]
    average_ranks: np.ndarray
    blocks: int
    statistic: float
    p: float
    p_permutation: float
    critical_difference: float

    def not_worse(self, index: int) -> tuple[str, ...]:
        """The other explainers whose average rank is less than the critical difference away."""
        near = np.abs(self.average_ranks - self.average_ranks[index]) < self.critical_difference
        return tuple(name for other, name in enumerate(self.explainers) if near[other] and other != index)


@dataclass(frozen=True)
class AcrossBlocks:
    """A metric over several datasets or models, all of one type of device and one precision.

    Attributes:
        setting: What the fields share, their place emptied.
        device: Type of the device.
        precision: Of the computation.
        places: Dataset and model of each block.
        runs: That the blocks come from.
        result: The test.
    """

    setting: Setting
    device: str
    precision: str
    places: tuple[str, ...]
    runs: frozenset[str]
    result: Friedman


def nemenyi(explainers: int, blocks: int, level: float = 0.05) -> float:
    """Critical difference of average ranks, q sqrt(k (k + 1) / (6 N)) (Demsar 2006, section 3.2.2).

    q is the upper quantile of the studentised range of k means with infinite degrees of freedom, over sqrt(2).
    """
    q = float(studentized_range.isf(level, explainers, np.inf)) / math.sqrt(2)
    return q * math.sqrt(explainers * (explainers + 1) / (6 * blocks))


def friedman(names: Sequence[str], values: np.ndarray) -> Friedman:
    """Friedman's test of values (N blocks, k explainers), more being better, all defined; k and N at least 2.

    Two explainers leave nothing to Friedman's test (a sign test of the blocks), so only ranks are given.
    """
    ranks = rankdata(-values, axis=1)
    blocks, count = ranks.shape
    statistic = p = permuted = math.nan
    if count > 2 and (ranks != ranks[:, :1]).any():
        statistic, p = map(float, friedmanchisquare(*ranks.T))
        permuted = _permutation_p(ranks)
    elif count > 2:
        statistic, p, permuted = 0.0, 1.0, 1.0
    average = ranks.mean(0)
    order = np.argsort(average, kind="stable")
    return Friedman(
        tuple(names[index] for index in order),
        average[order],
        blocks,
        statistic,
        p,
        permuted,
        nemenyi(count, blocks),
    )


def _permutation_p(ranks: np.ndarray) -> float:
    """How often permuted blocks spread the rank sums as much: for fixed ties, chi-square grows with that spread."""
    draw = rng(0, "friedman")
    permuted = draw.permuted(np.broadcast_to(ranks, (_PERMUTATIONS, *ranks.shape)), axis=2).sum(1)
    spread, observed = permuted.var(1), ranks.sum(0).var()
    return float((np.count_nonzero(spread >= observed - 1e-9) + 1) / (_PERMUTATIONS + 1))


def across_blocks(fields: Sequence[Field], controls: bool = False) -> list[AcrossBlocks]:
    """Friedman's test of every metric card that has at least two datasets or models with explainers in common.

    Ranks of different devices or precisions are not averaged: each has a test of its own.

    Args:
        fields: Of all runs.
        controls: Whether the controls take part.
    """
    groups: dict[tuple[Setting, tuple[str, str]], dict[Setting, Field]] = {}
    for field in fields:
        shared = field.setting.without(*PLACE)
        # A place counts once: scored again with other resamples it is the same evidence.
        for computed in dict.fromkeys(entry.row.computed for entry in field.entries):
            groups.setdefault((shared, computed), {}).setdefault(field.setting.without("sampling"), field)
    found = []
    for (setting, computed), blocks in groups.items():
        members = [_members(field, computed, controls) for field in blocks.values()]
        names = [name for name in members[0] if all(name in block for block in members)]
        parts = list(blocks.values())
        placed = list(zip(parts, members, strict=True))
        names = [name for name in names if not all(_has_twin(field, block[name], names) for field, block in placed)]
        if len(blocks) > 1 and len(names) > 1:
            values = np.array([[field.oriented(block[name]) for name in names] for field, block in placed])
            places = tuple(_places(parts))
            runs = frozenset(name for block in members for entry in block.values() for name in entry.runs)
            found.append(AcrossBlocks(setting, *computed, places, runs, friedman(names, values)))
    return found


def _places(fields: Sequence[Field]) -> Iterator[str]:
    """Dataset and model, with the runs behind where others bear the same names."""
    places = [field.setting.place for field in fields]
    for place, field in zip(places, fields, strict=True):
        yield place if places.count(place) == 1 else f"{place} ({', '.join(field.runs)})"


def _members(field: Field, computed: tuple[str, str], controls: bool) -> dict[str, Entry]:
    """The entries computed so, by a name that is the same in all fields: without the run, where it needs none."""
    found = [
        entry
        for entry in field.entries
        if entry.row.computed == computed and (controls or not entry.row.control) and not math.isnan(entry.row.value)
    ]
    names = [entry.name for entry in found]
    return {entry.name if names.count(entry.name) == 1 else entry.label: entry for entry in found}


def _has_twin(field: Field, entry: Entry, names: Sequence[str]) -> bool:
    twin = field.twin(entry)
    return twin is not None and bool({twin.name, twin.label} & set(names))
