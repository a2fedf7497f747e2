"""Measure how metrics agree: rank correlations between the orders in which two metrics put the same explainers."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from xbench.runtime.seeding import rng
from xbench.statistics.correlation import kendall, signs_of_differences, spearman
from xbench.statistics.resampling import interval

_EXACT = 8  # explainers, up to which all orders (40,320 of 8) are tried
_PERMUTATIONS = 9999
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Correlation:
    """A rank correlation.

    Attributes:
        value: In [-1, 1]; NaN where one side has no order (all equal, or fewer than 2 explainers).
        low: Lower end of the 95 % bootstrap interval over patients; NaN without replicates.
        high: Upper end of that interval.
        p: Two-sided p of "the orders of the two metrics are independent".
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Pair:
    """Two metrics.

    Attributes:
        first: Name of one metric.
        second: Name of the other metric.
        explainers: How many both have scored.
        spearman: Spearman's rho with average ranks for ties.
        kendall: Kendall's tau-b.
    """

    first: str
    second: str
    explainers: int
    spearman: Correlation
    kendall: Correlation


@dataclass(frozen=True)
class Agreement:
    """All pairs of metrics in one place.

    Attributes:
        place: Dataset, model and sign, in words.
        metrics: M names.
        explainers: E names.
        ranks: float64 (M, E), 1 is best, ties share their mean rank; NaN where a metric has no value.
        pairs: M (M - 1) / 2 of them, in the order of `metrics`.
    """

    place: str
    metrics: tuple[str, ...]
    explainers: tuple[str, ...]
    ranks: np.ndarray
    pairs: tuple[Pair, ...]

    def matrix(self, kind: str) -> np.ndarray:
        """Return the symmetric matrix (M, M) of "spearman" or "kendall", with 1 on the diagonal."""
        matrix = np.eye(len(self.metrics))
        for pair in self.pairs:
            first, second = self.metrics.index(pair.first), self.metrics.index(pair.second)
            matrix[first, second] = matrix[second, first] = getattr(pair, kind).value
        return matrix


def agreement(
    place: str,
    explainers: Sequence[str],
    values: Mapping[str, np.ndarray],
    replicates: Mapping[str, np.ndarray] | None = None,
) -> Agreement:
    """Correlate the orders of explainers under every pair of metrics.

    A pair is compared on the explainers that both have a value for. The interval is that of the correlation on each
    resample of the patients; a resampled order is noisier than the order itself, so intervals lean toward 0. p is by
    permutation of the explainers, of all orders up to 8 explainers, else of 9,999 random ones and the one found.

    Args:
        place: Dataset, model and whatever else all metrics share, in words.
        explainers: E names.
        values: Metric -> (E,), more being better; NaN where it has none.
        replicates: Metric -> (E, B), more being better, on resamples common to all metrics; a metric may be missing.
    """
    series = replicates or {}
    pairs = []
    for first, second in itertools.combinations(values, 2):
        both = ~np.isnan(values[first]) & ~np.isnan(values[second])
        first_values, second_values = values[first][both], values[second][both]
        if first in series and second in series:
            drawn = _resampled(series[first][both], series[second][both])
        else:
            drawn = np.empty((2, 0))
        correlations = (spearman(first_values, second_values), kendall(first_values, second_values))
        p = _permutation_p(first_values, second_values)
        rho, tau = (
            Correlation(float(value), *interval(drawn[index]), p[index]) for index, value in enumerate(correlations)
        )
        pairs.append(Pair(first, second, int(both.sum()), rho, tau))
    ranks = np.array([rankdata(-value, nan_policy="omit") for value in values.values()]).reshape(-1, len(explainers))
    return Agreement(place, tuple(values), tuple(explainers), ranks, tuple(pairs))


def _resampled(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return both correlations on every common resample: (2, B); NaN where an explainer has no value on it."""
    count = min(first.shape[1], second.shape[1])
    first, second = first[:, :count], second[:, :count]
    correlations = np.stack([spearman(first, second), kendall(first, second)])
    correlations[:, np.isnan(first).any(0) | np.isnan(second).any(0)] = math.nan
    return correlations


def _permutation_p(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the two-sided p of Spearman's rho and Kendall's tau-b (both with ties), from the same permutations."""
    if len(first) < 2 or not (np.ptp(first) and np.ptp(second)):
        return math.nan, math.nan
    ranks, signs = _permuted(tuple(first.tolist()))
    # The denominators are the same for every order, and the order found, which comes first, counts as one of them.
    products = ranks @ _centred_ranks(second), signs @ signs_of_differences(second)
    of_rho, of_tau = (float((np.abs(every) >= np.abs(every[0]) - _ROUNDING).mean()) for every in products)
    return of_rho, of_tau


@functools.lru_cache(maxsize=1)  # one metric meets all the others in turn
def _permuted(values: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return centred ranks (P, E) and signs of all differences (P, pairs) of the values in all `_orders`."""
    column = np.array(values)
    orders = _orders(len(column))
    first, second = np.triu_indices(len(column), k=1)
    signs = np.sign(column[:, None] - column[None, :]).astype(np.float32)
    return _centred_ranks(column)[orders], signs[orders[:, first], orders[:, second]]


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    ranks: np.ndarray = rankdata(values) - (len(values) + 1) / 2
    return ranks


@functools.lru_cache(maxsize=8)
def _orders(count: int) -> np.ndarray:
    """Return permutations (P, count) with the identity first: all of them, or a fixed draw."""
    if count <= _EXACT:
        return np.array(list(itertools.permutations(range(count))))
    identity = np.arange(count)
    drawn = rng(0, "agreement", count).permuted(np.broadcast_to(identity, (_PERMUTATIONS, count)), axis=1)
    return np.concatenate([identity[None], drawn])
