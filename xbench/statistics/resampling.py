"""Resample by patient, and say how sure a value or a difference is: intervals and paired tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import norm

from xbench.runtime.seeding import rng

RESAMPLES = 2000
_CHUNK = 1 << 21  # how many weights are held at once: 16 MiB of float64


def resamples(groups: Sequence[str], count: int = RESAMPLES, seed: int = 0) -> list[np.ndarray]:
    """Draw cluster-bootstrap resamples: patients with replacement, each with all its samples.

    See Davison & Hinkley 1997, section 3.8.

    Args:
        groups: The patient of each of N samples.
        count: How many resamples.
        seed: The same seed and groups give the same resamples, so differences of explainers are paired.

    Returns:
        `count` int64 arrays of sample indices; their lengths differ where patients have different numbers of samples.

    Raises:
        ValueError: There is no sample.
    """
    if len(groups) == 0:
        raise ValueError("no samples to resample")
    _, patient = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    members = np.argsort(patient, kind="stable").astype(np.int64)
    sizes = np.bincount(patient)
    starts = np.cumsum(sizes) - sizes
    drawn = rng(seed, "resamples").integers(len(sizes), size=(count, len(sizes)))
    return [members[_ranges(starts[row], sizes[row])] for row in drawn]


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the integers of [start, start + size) of each pair, one after the other."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - ends + sizes, sizes) + np.arange(ends[-1])


def resample_weights(groups: Sequence[str], count: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Return the resamples of `resamples` as weights. A figure that is a sum over samples then needs no loop.

    Yields:
        float64 (chunk, N), how often each resample holds each sample; `count` rows in all.
    """
    size = max(1, _CHUNK // len(groups))
    drawn = resamples(groups, count, seed)
    for start in range(0, count, size):
        yield np.stack([np.bincount(rows, minlength=len(groups)) for rows in drawn[start : start + size]]).astype(
            np.float64
        )


def interval(replicates: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap replicates (B,).

    Undefined (NaN) replicates are left out. The result is (NaN, NaN) if none is left.
    """
    defined = np.asarray(replicates, dtype=np.float64)
    defined = defined[~np.isnan(defined)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_p(replicates_a: np.ndarray, replicates_b: np.ndarray) -> float:
    """Return the two-sided bootstrap p of "a and b are equal", from replicates (B,) on the same resamples.

    p is twice the smaller share of differences on either side of zero, with ties counted on both sides. One is added
    to count and total, so p is never 0 but at least 2 / (B + 1) (Davison & Hinkley 1997, eq. 4.11). Pairs with a NaN
    are left out. The result is NaN if no pair is left.
    """
    return float(_sign_p(np.asarray(replicates_a, dtype=np.float64) - np.asarray(replicates_b, dtype=np.float64)))


def _sign_p(differences: np.ndarray) -> np.ndarray:
    """Return `paired_p` over the last axis of differences (..., B)."""
    defined = (~np.isnan(differences)).sum(-1)
    below, above = (differences <= 0).sum(-1), (differences >= 0).sum(-1)
    p = np.minimum(1.0, 2 * (np.minimum(below, above) + 1) / (defined + 1))
    return np.where(defined > 0, p, np.nan)


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's step-down adjusted p-values (Holm 1979). NaN stays NaN and is not counted as a test."""
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return adjusted


def pair_p(
    values: np.ndarray, replicates: np.ndarray, first: np.ndarray, second: np.ndarray, patients: int | None
) -> np.ndarray:
    """Return the two-sided p of each pair of explainers, not corrected for the number of pairs.

    A count of replicates can't give a p below 2 / (B + 1). After Holm that is too coarse for many explainers: 20 of
    them would need 7600 resamples before any two could be told apart. So where no replicate crosses zero, p is the
    normal tail of the difference over its bootstrap standard error, if that is smaller.

    Args:
        values: (E,), one per explainer.
        replicates: float64 (E, B), the values on the same resamples.
        first: int (P,), index of one explainer of each pair.
        second: int (P,), index of the other explainer.
        patients: Number of patients, as in `floored`; None for no floor.

    Returns:
        float64 (P,).
    """
    p = np.empty(len(first))
    for explainer in np.unique(first):  # a row of pairs at a time keeps memory at E x B
        of = first == explainer
        differences = replicates[explainer] - replicates[second[of]]
        p[of] = _refined_p(differences, values[explainer] - values[second[of]])
    return floored(p, patients)


def floored(p: np.ndarray, patients: int | None) -> np.ndarray:
    """Raise p-values to the smallest that this many independent patients allow.

    No test of G patients that all agree gives a p below 2^(1 - G), so none is claimed. A bootstrap of three patients
    would claim less.
    """
    return p if patients is None else np.maximum(p, 2.0 ** (1 - patients))


def _refined_p(differences: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Return `_sign_p` of (P, B), and the normal tail where the count of replicates has come to its end."""
    p = _sign_p(differences)
    defined = ~np.isnan(differences)
    number = defined.sum(-1)
    kept = np.where(defined, differences, 0.0)
    mean = kept.sum(-1) / np.maximum(number, 1)
    spread = np.sqrt(np.where(defined, (differences - mean[:, None]) ** 2, 0.0).sum(-1) / np.maximum(number - 1, 1))
    same_sign = np.where(defined, differences * np.sign(gains)[:, None] > 0, True).all(-1) & (number > 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = 2 * norm.sf(np.abs(gains) / spread)
    return np.where(same_sign, np.fmin(p, tail), p)
