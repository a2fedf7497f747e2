"""Rank correlations of a few values, on the host: Spearman's rho and Kendall's tau-b.

Own code beside `scipy.stats.spearmanr` and `kendalltau`, which correlate one pair of orders a call: here all resamples
of two orders are correlated at once. Tests hold both to scipy. Maps are correlated where they lie, on their device, by
`xbench.compute.similarity.map_spearman`: this module needs no torch.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import rankdata


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Spearman's rho over the first axis of (E, ...), with average ranks for ties; NaN for a constant side."""
    return _correlation(rankdata(first, axis=0), rankdata(second, axis=0))


def kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Kendall's tau-b over the first axis of (E, ...); NaN for a constant side.

    It is the uncentred correlation of the signs of all E (E - 1) / 2 differences (Kendall 1945).
    """
    return _cosine(signs_of_differences(first), signs_of_differences(second))


def signs_of_differences(values: np.ndarray) -> np.ndarray:
    """Return the signs of the differences of all pairs along the first axis: (E, ...) -> float32 (pairs, ...)."""
    first, second = np.triu_indices(len(values), k=1)
    signs: np.ndarray = np.sign(values[first] - values[second]).astype(np.float32)
    return signs


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if not len(first):
        return np.full(first.shape[1:], math.nan)
    return _cosine(first - first.mean(0), second - second.mean(0))


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    product = (first * second).sum(0, dtype=np.float64)
    lengths = (first**2).sum(0, dtype=np.float64) * (second**2).sum(0, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(product / np.sqrt(lengths))
