"""Closed forms of pooling, and simulated coverage."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from xbench.leaderboard import read_submission
from xbench.leaderboard.pooling import Result, differences, pooled
from xbench.leaderboard.thinning import KEPT, as_record, from_record, thinned

Z = 1.959963984540054


@pytest.fixture
def result(handed_in: Path) -> Callable[..., Result]:
    """result(value, se, seed, replicates): a seed's result."""
    row = read_submission(handed_in).entries[0].row

    def build(
        value: float, se: float = 0.0, seed: int = 0, replicates: Sequence[float] | np.ndarray = (0.0, 0.0)
    ) -> Result:
        made = replace(row, value=value, ci_low=value - Z * se, ci_high=value + Z * se, seed=seed)
        return Result(made, thinned(np.asarray(replicates, dtype=float)), f"sampling {seed}")

    return build


def test_one_seed_keeps_its_own_interval(result: Callable[..., Result]) -> None:
    one = result(0.3, 0.02)
    found = pooled([one])
    assert (found.value, found.low, found.high) == (one.row.value, one.row.ci_low, one.row.ci_high)
    assert math.isnan(found.seed_sd)


def test_without_sampling_noise_it_is_students_interval_of_the_seeds(result: Callable[..., Result]) -> None:
    values = [0.30, 0.34, 0.35]
    found = pooled([result(value, 0.0, seed) for seed, value in enumerate(values)])
    interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), interval, rtol=1e-9)
    assert found.seed_sd == pytest.approx(np.std(values, ddof=1))


def test_without_seed_noise_more_seeds_do_not_narrow_it(result: Callable[..., Result]) -> None:
    found = pooled([result(0.3, 0.02, seed) for seed in range(5)])
    assert (found.low, found.high) == pytest.approx((0.3 - Z * 0.02, 0.3 + Z * 0.02))
    assert found.seed_sd == 0


def test_paired_differences_without_sampling_noise_are_the_paired_t_test(result: Callable[..., Result]) -> None:
    a, b = [0.30, 0.34, 0.35], [0.28, 0.33, 0.31]
    found = differences([[result(value, 0.0, seed) for seed, value in enumerate(each)] for each in (a, b)])
    assert found.paired[0, 1]
    assert found.p[0, 1] == pytest.approx(ttest_rel(a, b).pvalue)
    assert found.value[0, 1] == pytest.approx(np.mean(a) - np.mean(b)) == -found.value[1, 0]


def test_pairing_uses_the_covariance_and_only_of_the_same_resamples(result: Callable[..., Result]) -> None:
    draw = np.random.default_rng(0)
    shared = draw.normal(size=KEPT)
    series = [shared + 0.1 * draw.normal(size=KEPT) for _ in range(2)]
    se = [one.std(ddof=1) for one in series]
    members = [[result(value, one, 0, each)] for value, one, each in zip((1.0, 0.5), se, series, strict=True)]
    found = differences(members)
    width = (found.high - found.low)[0, 1] / (2 * Z)
    assert width == pytest.approx((series[0] - series[1]).std(ddof=1), rel=0.02)  # one byte a replicate
    apart = [members[0], [replace(members[1][0], sampling="other")]]
    unpaired = differences(apart)
    assert not unpaired.paired[0, 1]
    assert (unpaired.high - unpaired.low)[0, 1] / (2 * Z) == pytest.approx(math.hypot(*se))


def test_other_seeds_are_compared_by_welch(result: Callable[..., Result]) -> None:
    a, b = [0.30, 0.34, 0.35], [0.28, 0.33]
    members = [
        [result(value, 0.0, seed) for seed, value in enumerate(a)],
        [result(value, 0.0, seed + 3) for seed, value in enumerate(b)],
    ]
    found = differences(members)
    assert not found.paired[0, 1]
    assert found.p[0, 1] == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue)


def test_undefined_replicates_are_left_out_pair_by_pair(result: Callable[..., Result]) -> None:
    draw = np.random.default_rng(0)
    series = draw.normal(size=(2, 100))
    series[0, :30] = np.nan
    series[1, 90:] = np.nan
    found = differences([[result(1.0, 1.0, 0, each)] for each in series])
    width = (found.high - found.low)[0, 1] / (2 * Z)
    assert width == pytest.approx(np.nanstd(series[0] - series[1], ddof=1), rel=0.02)


def test_the_interval_of_three_seeds_covers(result: Callable[..., Result]) -> None:
    """Truth 0; patients add noise of 1 shared by the seeds, training of 0.7 to each seed."""
    draw = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        patients = draw.normal()
        values = patients + 0.7 * draw.normal(size=3)
        found = pooled([result(value, 1.0, seed) for seed, value in enumerate(values)])
        covered.append(found.low <= 0 <= found.high)
    assert 0.93 < np.mean(covered) < 0.975


def test_thinning_keeps_the_first_replicates_to_half_a_step() -> None:
    draw = np.random.default_rng(0)
    replicates = draw.normal(size=2000)
    replicates[3] = np.nan
    series = thinned(replicates)
    again = from_record(as_record(series))
    assert len(again.values) == KEPT
    assert np.isnan(again.values[3])
    kept = np.arange(KEPT) != 3
    error = np.abs(again.values - replicates[:KEPT])[kept]
    assert error.max() <= series.step / 2 * 1.0001
    assert thinned(np.full(10, 0.25)).values.tolist() == [0.25] * 10
    assert np.isnan(thinned(np.full(10, np.nan)).values).all()
