"""Pool several seeds into one value with its interval, and take differences of explainers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from xbench.leaderboard.thinning import Thinned
from xbench.results.rows import ScoreRow

_Z = 1.959963984540054
_DIGITS = 10


@dataclass(frozen=True)
class Result:
    """One seed's result of a cell.

    Attributes:
        row: The row as the run wrote it.
        replicates: The first replicates of its bootstrap.
        sampling: `xbench.results.replicates.sampling` of its resamples.
    """

    row: ScoreRow
    replicates: Thinned
    sampling: str

    @property
    def paired_with(self) -> tuple[str, str]:
        """Resamples and classifier. Results that share both are paired, replicate by replicate."""
        return self.sampling, self.row.model_fingerprint


@dataclass(frozen=True)
class Pooled:
    """A cell over its seeds.

    Attributes:
        value: Mean over the seeds.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        seed_sd: Standard deviation over the seeds; NaN for one.
    """

    value: float
    low: float
    high: float
    seed_sd: float


@dataclass(frozen=True)
class Differences:
    """Differences of every two explainers of a group: arrays (E, E), where [i, j] is i minus j.

    Attributes:
        value: Difference of the pooled values.
        low: Lower end of the 95 % interval, which is for this difference alone.
        high: Upper end of that interval.
        p: Two-sided p of "they are equal", not corrected.
        paired: bool, whether both have the same seeds, resamples and classifiers throughout.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    paired: np.ndarray


def pooled(results: Sequence[Result]) -> Pooled:
    """Return the mean over seeds with its interval. A single seed keeps its run's interval.

    The patients are the same for every seed and training is not, so the variance of the mean is W + B / S: W the mean
    of the runs' bootstrap variances, B the variance of their values, S their number. The interval is Student's, with
    (S - 1) (1 + W S / B)^2 degrees of freedom (Satterthwaite 1946; Rubin 1987, eq. 3.1.6, has the same form).
    """
    values = [result.row.value for result in results]
    value = math.fsum(values) / len(values)
    if len(values) == 1:
        return Pooled(value, results[0].row.ci_low, results[0].row.ci_high, math.nan)
    between = math.fsum((of_seed - value) ** 2 for of_seed in values) / (len(values) - 1)
    within = math.fsum(_variance(result.row) for result in results) / len(values)
    half = float(_half_width(np.array(within), np.array(between / len(values)), np.array(len(values) - 1.0)))
    return Pooled(*map(_rounded, (value, value - half, value + half, math.sqrt(between))))


def _rounded(value: float) -> float:
    """Round to ten digits: derived tables must not differ where a library rounds the last bit otherwise."""
    return float(f"{value:.{_DIGITS}g}")


def _variance(row: ScoreRow) -> float:
    """Return the bootstrap variance by the row's interval: all replicates say it better than those that were kept."""
    return ((row.ci_high - row.ci_low) / (2 * _Z)) ** 2


def _freedom(within: np.ndarray, between: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return the degrees of freedom of W + `between`, which itself has `freedom`; infinite where `between` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(between > 0, freedom * (1 + within / between) ** 2, np.inf)


def _half_width(within: np.ndarray, between: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    quantile: np.ndarray = student.ppf(0.975, _freedom(within, between, freedom))
    width: np.ndarray = quantile * np.sqrt(within + between)
    return width


def differences(members: Sequence[Sequence[Result]]) -> Differences:
    """Take the differences of all pairs of explainers with a value.

    Of two that were scored with the same seeds, the difference is taken seed by seed. W is then the mean variance of
    the paired replicates' differences, or of the sum of variances where a seed's are not paired. B is the variance of
    the differences. Of others, W and B / S are those of the two values, added.

    Args:
        members: The results of each of E explainers, by seed.
    """
    values = np.array([math.fsum(result.row.value for result in results) / len(results) for results in members])
    within = _added([float(np.mean([_variance(result.row) for result in results])) for results in members])
    parts = np.array(
        [np.var([result.row.value for result in results], ddof=1) / len(results) if len(results) > 1 else 0.0
         for results in members]
    )  # fmt: skip
    between = _added(parts)
    weights = np.array([part**2 / max(len(results) - 1, 1) for part, results in zip(parts, members, strict=True)])
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(between > 0, between**2 / _added(weights), np.inf)  # Welch's
    paired = np.zeros(within.shape, dtype=bool)
    for seeds, group in _by_seeds(members).items():
        at = np.ix_(group, group)
        columns = [[members[index][seed] for index in group] for seed in range(len(seeds))]
        spread = [_paired_variance(column) for column in columns]
        within[at] = np.mean([variance for variance, _ in spread], axis=0)
        paired[at] = np.all([same for _, same in spread], axis=0)
        if len(seeds) > 1:
            scores = np.array([[result.row.value for result in column] for column in columns])  # (S, E)
            between[at] = (scores[:, :, None] - scores[:, None]).var(0, ddof=1) / len(seeds)
            freedom[at] = len(seeds) - 1
    gain = values[:, None] - values
    half = _half_width(within, between, freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(gain == 0, 0.0, np.abs(gain) / np.sqrt(within + between))
    p = 2 * student.sf(ratio, _freedom(within, between, freedom))
    return Differences(gain, gain - half, gain + half, p, paired)


def _added(parts: Sequence[float] | np.ndarray) -> np.ndarray:
    total: np.ndarray = np.add.outer(np.asarray(parts), np.asarray(parts))
    return total


def _by_seeds(members: Sequence[Sequence[Result]]) -> dict[tuple[int, ...], list[int]]:
    indices: dict[tuple[int, ...], list[int]] = {}
    for index, results in enumerate(members):
        indices.setdefault(tuple(result.row.seed for result in results), []).append(index)
    return indices


def _paired_variance(column: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of each pair's difference at one seed (E, E), and whether it is of paired replicates."""
    kinds = [result.paired_with for result in column]
    same = np.array([[first == second for second in kinds] for first in kinds])
    count = min(len(result.replicates.codes) for result in column)
    paired = _difference_variance(np.stack([result.replicates.values[:count] for result in column]))
    return np.where(same, paired, _added([_variance(result.row) for result in column])), same


def _difference_variance(replicates: np.ndarray) -> np.ndarray:
    """Return the variance over B of each pair's difference (E, E) of (E, B), where both are defined; else NaN."""
    there = ~np.isnan(replicates)
    known = there.astype(np.float64)
    number = known @ known.T
    centre = np.where(there, replicates, 0.0).sum(1) / np.maximum(known.sum(1), 1)
    kept = np.where(there, replicates - centre[:, None], 0.0)  # near zero: the sums below lose no digits
    total = kept @ known.T - known @ kept.T
    squares = (kept**2) @ known.T + known @ (kept**2).T - 2 * kept @ kept.T
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (squares - total**2 / number) / (number - 1)
    return np.where(number > 1, np.maximum(variance, 0.0), np.nan)
