"""The rule that makes ranks of pairwise tests, against orders known beforehand."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import norm

from xbench.statistics.ranking import PairTests, bootstrap_tests, rank_sets, ranks
from xbench.statistics.resampling import holm, resamples


class TestRankSets:
    def replicates(self, means: Sequence[float] | np.ndarray, spread: float = 0.01, count: int = 2000) -> np.ndarray:
        noise = np.random.default_rng(0).normal(size=(len(means), count))
        return np.asarray(means)[:, None] + spread * noise

    def test_identical_explainers_are_never_told_apart(self) -> None:
        same = self.replicates([0.7])[0]
        for rank in rank_sets(np.full(4, 0.7), np.stack([same] * 4), True):
            assert (rank.low, rank.high, rank.tied) == (1, 4, {0, 1, 2, 3})

    @pytest.mark.parametrize("higher", [True, False])
    def test_clearly_different_ones_always_are(self, higher: bool) -> None:
        values = np.linspace(0, 1, 25)[np.random.default_rng(1).permutation(25)]
        ranks = rank_sets(values, self.replicates(values, spread=0.001), higher)
        expected = (-values if higher else values).argsort().argsort() + 1
        assert [rank.low for rank in ranks] == [rank.high for rank in ranks] == expected.tolist()
        assert [rank.tied for rank in ranks] == [{index} for index in range(25)]

    def test_overlapping_middle(self) -> None:
        values = [0.9, 0.5, 0.501, 0.1]
        ranks = rank_sets(np.array(values), self.replicates(values), True)
        assert [(rank.low, rank.high) for rank in ranks] == [(1, 1), (2, 3), (2, 3), (4, 4)]
        assert ranks[1].tied == ranks[2].tied == {1, 2}

    def test_undefined_values_have_no_rank(self) -> None:
        values = [np.nan, 0.9, 0.1, np.nan]
        ranks = rank_sets(np.array(values), self.replicates(values), True)
        assert [(rank.low, rank.high) for rank in ranks] == [(0, 0), (1, 1), (2, 2), (0, 0)]
        assert [rank.tied for rank in ranks] == [set(), {1}, {2}, set()]

    def test_nothing_or_one_to_rank(self) -> None:
        assert rank_sets(np.array([]), np.empty((0, 10)), True) == []
        assert rank_sets(np.array([0.5]), np.full((1, 10), 0.5), True) == [(1, 1, {0})]

    def test_family_wise_error_is_kept(self) -> None:
        """Ten equal explainers: some pair is told apart in at most about 5 % of 200 studies."""
        rng = np.random.default_rng(3)
        false_claims = 0
        rows = np.stack(resamples([str(i) for i in range(80)], count=500, seed=0))
        for _ in range(200):
            samples = rng.normal(size=(10, 80))
            ranks = rank_sets(samples.mean(1), samples[:, rows].mean(-1), True)
            false_claims += any(len(rank.tied) < 10 for rank in ranks)
        assert false_claims / 200 < 0.09

    def test_normal_tail_only_sharpens_a_count_at_its_end(self) -> None:
        """Two explainers, 100 replicates, none across zero: p is the normal tail, not 2 / 101."""
        gains = 4 + norm.ppf((np.arange(100) + 0.5) / 100)
        replicates = np.stack([gains, np.zeros(100)])
        told = [
            len(rank_sets(np.array([4.0, 0.0]), replicates, True, level=level)[0].tied) == 1 for level in (1e-3, 1e-6)
        ]
        assert told == [True, False]

    def test_three_patients_claim_nothing(self) -> None:
        values = np.array([0.9, 0.1])
        replicates = self.replicates(values)
        assert rank_sets(values, replicates, True, patients=3)[0].tied == {0, 1}
        assert rank_sets(values, replicates, True, patients=8)[0].tied == {0}


class TestRanks:
    """The rule alone, whoever made the tests."""

    def three(self, gain: Sequence[float], p: Sequence[float]) -> PairTests:
        first, second = np.triu_indices(3, k=1)
        return PairTests(first, second, np.array(gain), np.array(p))

    @pytest.mark.parametrize("higher", [True, False])
    def test_only_what_is_told_apart_after_holm_counts(self, higher: bool) -> None:
        """Of p 0.01, 0.02 and 0.2 Holm leaves 0.03 and 0.04 below 0.05: the first of three beats both others."""
        gain = [1.0, 2.0, 1.0] if higher else [-1.0, -2.0, -1.0]
        found = ranks(self.three(gain, [0.01, 0.02, 0.2]), np.ones(3, dtype=bool), higher)
        assert found == [(1, 1, {0}), (2, 3, {1, 2}), (2, 3, {1, 2})]
        found = ranks(self.three(gain, [0.01, 0.03, 0.2]), np.ones(3, dtype=bool), higher)
        assert found == [(1, 2, {0, 2}), (2, 3, {1, 2}), (1, 3, {0, 1, 2})]

    def test_neither_equal_values_nor_undefined_tests_tell_apart(self) -> None:
        found = ranks(self.three([0.0, 1.0, 1.0], [1e-9, np.nan, 1e-9]), np.ones(3, dtype=bool), True)
        assert found == [(1, 3, {0, 1, 2}), (1, 2, {0, 1}), (2, 3, {0, 2})]

    def test_one_explainer_against_the_others_is_a_smaller_family(self) -> None:
        values = np.array([0.3, 0.2, np.nan, 0.1])
        replicates = values[:, None] + np.random.default_rng(0).normal(size=(4, 200))
        every = bootstrap_tests(values, replicates)
        assert list(zip(every.first, every.second, strict=True)) == [(0, 1), (0, 3), (1, 3)]
        assert every.p_holm.tolist() == holm(every.p).tolist()
        some = every.against(3)
        assert list(zip(some.first, some.second, strict=True)) == [(0, 3), (1, 3)]
        assert some.p.tolist() == every.p[1:].tolist()
        assert some.p_holm.tolist() == holm(every.p[1:]).tolist()
