"""Compare over several datasets or models: Friedman's test, average ranks and Nemenyi's critical difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from xbench.comparison.groups import Entry, RankedGroup, RunSetting
from xbench.runtime.seeding import rng
from xbench.statistics.ranking import LEVEL

PLACE = ("dataset", "dataset_fingerprint", "model", "model_fingerprint", "sampling")
"""The fields in which groups of one metric card may differ and still be blocks of one test."""

_PERMUTATIONS = 9999


@dataclass(frozen=True)
class Friedman:
    """Friedman's test of whether explainers differ over several datasets or models (Demsar 2006, section 3.2).

    Attributes:
        explainers: k names, best average rank first.
        average_ranks: (k,), rank 1 is best, ties share their mean rank.
        blocks: How many datasets and models, N.
        statistic: Friedman's chi-square, corrected for ties; NaN for fewer than 3 explainers.
        p: p by the chi-square distribution with k - 1 degrees of freedom; valid only for many blocks (more than 10).
        p_permutation: p by permuting each block's values; valid for any number of blocks.
        critical_difference: Nemenyi's critical difference. Average ranks that far apart differ, at 5 % for all pairs
            at once.
    """

    explainers: tuple[str, ...]
    average_ranks: np.ndarray
    blocks: int
    statistic: float
    p: float
    p_permutation: float
    critical_difference: float

    def not_worse(self, index: int) -> tuple[str, ...]:
        """Return the other explainers whose average rank is less than the critical difference away."""
        near = np.abs(self.average_ranks - self.average_ranks[index]) < self.critical_difference
        return tuple(name for other, name in enumerate(self.explainers) if near[other] and other != index)


@dataclass(frozen=True)
class AcrossBlocks:
    """A metric over several datasets or models, all of one type of device and one precision.

    Attributes:
        setting: Setting that the groups share, with the attributes of their place emptied.
        device: Type of the device.
        precision: Precision of the computation.
        places: Dataset and model of each block.
        runs: The runs that the blocks come from.
        result: The test.
    """

    setting: RunSetting
    device: str
    precision: str
    places: tuple[str, ...]
    runs: frozenset[str]
    result: Friedman


def nemenyi(explainers: int, blocks: int, level: float = LEVEL) -> float:
    """Return the critical difference of average ranks, q sqrt(k (k + 1) / (6 N)) (Demsar 2006, section 3.2.2).

    q is the upper quantile of the studentised range of k means with infinite degrees of freedom, over sqrt(2).
    """
    q = float(studentized_range.isf(level, explainers, np.inf)) / math.sqrt(2)
    return q * math.sqrt(explainers * (explainers + 1) / (6 * blocks))


def friedman(names: Sequence[str], values: np.ndarray) -> Friedman:
    """Run Friedman's test on values (N blocks, k explainers), all defined, where more is better; k and N at least 2.

    With two explainers Friedman's test is a sign test of the blocks, so only ranks are given.
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
    """Return the share of permutations whose rank sums vary at least as much as the observed ones.

    With the ties fixed, Friedman's chi-square grows with the variance of the rank sums, so both give the same p.
    """
    draw = rng(0, "friedman")
    permuted = draw.permuted(np.broadcast_to(ranks, (_PERMUTATIONS, *ranks.shape)), axis=2).sum(1)
    spread, observed = permuted.var(1), ranks.sum(0).var()
    return float((np.count_nonzero(spread >= observed - 1e-9) + 1) / (_PERMUTATIONS + 1))


def across_blocks(groups: Sequence[RankedGroup], controls: bool = False) -> list[AcrossBlocks]:
    """Run Friedman's test on every metric card with at least two datasets or models that share explainers.

    Ranks of different devices or precisions are not averaged: each has a test of its own.

    Args:
        groups: The groups of all runs.
        controls: Whether the controls take part.
    """
    blocks_by_card: dict[tuple[RunSetting, tuple[str, str]], dict[RunSetting, RankedGroup]] = {}
    for group in groups:
        shared = group.setting.without(*PLACE)
        # A place counts once: scored again with other resamples it is the same evidence.
        for computed in dict.fromkeys(entry.row.computed for entry in group.entries):
            blocks_by_card.setdefault((shared, computed), {}).setdefault(group.setting.without("sampling"), group)
    results = []
    for (setting, computed), blocks in blocks_by_card.items():
        parts = list(blocks.values())
        members = [_members(group, computed, controls) for group in parts]
        names = _tested(parts, members)
        if len(parts) > 1 and len(names) > 1:
            pairs = zip(parts, members, strict=True)
            values = np.array([[group.oriented(block[name]) for name in names] for group, block in pairs])
            runs = frozenset(name for block in members for entry in block.values() for name in entry.runs)
            places = tuple(_places(parts))
            results.append(AcrossBlocks(setting, *computed, places, runs, friedman(names, values)))
    return results


def _tested(parts: Sequence[RankedGroup], members: Sequence[dict[str, Entry]]) -> list[str]:
    """Return the explainers that all blocks have, less those that are another one's twin in every block."""
    names = [name for name in members[0] if all(name in block for block in members)]
    blocks = list(zip(parts, members, strict=True))
    return [name for name in names if not all(_has_twin(group, block[name], names) for group, block in blocks)]


def _places(groups: Sequence[RankedGroup]) -> Iterator[str]:
    """Yield dataset and model, followed by the runs where others bear the same names."""
    places = [group.setting.place for group in groups]
    for place, group in zip(places, groups, strict=True):
        yield place if places.count(place) == 1 else f"{place} ({', '.join(group.runs)})"


def _members(group: RankedGroup, computed: tuple[str, str], controls: bool) -> dict[str, Entry]:
    """Return the entries computed so, by a name that is the same in all groups: without the run, if it needs none."""
    members = [
        entry
        for entry in group.entries
        if entry.row.computed == computed and (controls or not entry.row.control) and not math.isnan(entry.row.value)
    ]
    names = [entry.name for entry in members]
    return {entry.name if names.count(entry.name) == 1 else entry.label: entry for entry in members}


def _has_twin(group: RankedGroup, entry: Entry, names: Sequence[str]) -> bool:
    twin = group.twin(entry)
    return twin is not None and bool({twin.name, twin.label} & set(names))
