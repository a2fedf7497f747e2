"""Turn tests of pairs of explainers into ranks and rank sets: the one rule of runs, comparisons and the leaderboard.

How a pair is tested differs, and is not decided here. A run and a comparison test the bootstrap replicates of one
classifier (`bootstrap_tests`). The leaderboard tests means over several trained classifiers
(`xbench.leaderboard.pooling`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xbench.statistics.resampling import holm, pair_p

LEVEL = 0.05
"""Family-wise error of the ranks: the probability that any of them is wrong."""


class Rank(NamedTuple):
    """Where an explainer may stand.

    Attributes:
        low: The best rank that the data allow, from 1; 0 for an explainer without a value, which has no rank.
        high: The worst rank that the data allow; 0 without a rank.
        tied: Indices of the explainers it can't be told apart from, itself included; empty without a rank.
    """

    low: int
    high: int
    tied: frozenset[int]


@dataclass(frozen=True)
class PairTests:
    """Tests of "the two explainers are equal", one per pair; together they are the family that Holm corrects for.

    Attributes:
        first: int (P,), index of one explainer of each pair.
        second: int (P,), index of the other explainer.
        gain: float64 (P,), value of the first explainer minus value of the second.
        p: float64 (P,), two-sided, not corrected.
    """

    first: np.ndarray
    second: np.ndarray
    gain: np.ndarray
    p: np.ndarray

    @functools.cached_property
    def p_holm(self) -> np.ndarray:
        """The p values after Holm's correction for all pairs of this family, float64 (P,)."""
        return holm(self.p)

    def against(self, index: int) -> PairTests:
        """Return the tests of one explainer against each other one, as a family of their own."""
        of_it = (self.first == index) | (self.second == index)
        return PairTests(self.first[of_it], self.second[of_it], self.gain[of_it], self.p[of_it])


def pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices (P,) and (P,) of every pair of explainers whose values (E,) are defined."""
    scored = np.flatnonzero(~np.isnan(values))
    first, second = np.triu_indices(len(scored), k=1)
    return scored[first], scored[second]


def bootstrap_tests(values: np.ndarray, replicates: np.ndarray, patients: int | None = None) -> PairTests:
    """Test every pair of explainers on common resamples, as `pair_p` does.

    Args:
        values: (E,), one per explainer; undefined (NaN) ones are not tested.
        replicates: (E, B), the values on B common resamples.
        patients: How many independent patients were resampled.
    """
    values, replicates = np.asarray(values, dtype=np.float64), np.asarray(replicates, dtype=np.float64)
    first, second = pairs(values)
    p = pair_p(values, replicates, first, second, patients)
    return PairTests(first, second, values[first] - values[second], p)


def ranks(tests: PairTests, scored: np.ndarray, higher_is_better: bool, level: float = LEVEL) -> list[Rank]:
    """Return the ranks each explainer may have, all true at once with probability 1 - level.

    The rule is that of Mogstad et al. 2024, section 3. An explainer beats another if their values differ in its favour
    and the corrected p is below `level`. Its best rank is one more than the number of explainers that beat it. Its
    worst rank leaves as many behind as it beats.

    Args:
        tests: Tests of every pair of scored explainers.
        scored: bool (E,), whether an explainer has a value. One without a value has no rank: 0, tied with nobody.
        higher_is_better: Direction of the metric.
        level: Family-wise error.

    Returns:
        One `Rank` per explainer, in their order.
    """
    told = (tests.p_holm < level) & (tests.gain != 0)  # a p of NaN tells nothing apart
    first_wins = (tests.gain > 0) == higher_is_better
    winner = np.where(first_wins, tests.first, tests.second)[told]
    loser = np.where(first_wins, tests.second, tests.first)[told]
    beats = np.zeros((len(scored), len(scored)), dtype=bool)
    beats[winner, loser] = True
    return [_rank(index, beats, scored) for index in range(len(scored))]


def _rank(index: int, beats: np.ndarray, scored: np.ndarray) -> Rank:
    """Count who beats an explainer and whom it beats; `beats[a, b]` says that a beats b."""
    number = int(scored.sum())
    if scored[index]:
        tied = scored & ~beats[index] & ~beats[:, index]
        low, high = 1 + int(beats[:, index].sum()), number - int(beats[index].sum())
    else:
        tied, low, high = np.zeros_like(scored), 0, 0
    return Rank(low, high, frozenset(np.flatnonzero(tied).tolist()))


def rank_sets(
    values: np.ndarray,
    replicates: np.ndarray,
    higher_is_better: bool,
    level: float = LEVEL,
    patients: int | None = None,
) -> list[Rank]:
    """Test every pair of explainers on common resamples and rank them.

    Args:
        values: (E,), one per explainer; undefined (NaN) ones are not tested and have no rank.
        replicates: (E, B), the values on B common resamples.
        higher_is_better: Direction of the metric.
        level: Family-wise error.
        patients: How many independent patients were resampled, as in `xbench.statistics.resampling.floored`.

    Returns:
        One `Rank` per explainer, in their order.
    """
    tests = bootstrap_tests(values, replicates, patients)
    return ranks(tests, ~np.isnan(np.asarray(values, dtype=np.float64)), higher_is_better, level)
