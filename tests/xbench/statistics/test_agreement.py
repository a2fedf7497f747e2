"""Rank correlations of metrics: the papers' own tables, scipy as reference, exact permutation p, intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from xbench.statistics.agreement import Agreement, agreement
from xbench.statistics.correlation import kendall, spearman

# Brocki et al., Tables 1 to 3, as printed: fidelity F x 10, ROC-AUC, maximum XRAI Dice; first original, then absolute.
ESTIMATORS = (
    "SmoothGradSQ",
    "SmoothGrad",
    "IntGradBW",
    "ExpectedGrad",
    "Backpropagation",
    "Deconvolution",
    "IntGrad",
)
PRINTED = {
    "original": {
        "fidelity": (6.2, 3.4, 0.0, 3.6, 0.1, 2.6, 0.0),
        "roc-auc": (0.96, 0.70, 0.56, 0.67, 0.62, 0.71, 0.53),
        "xrai-dice": (0.57, 0.58, 0.51, 0.55, 0.54, 0.34, 0.36),
    },
    "absolute": {
        "fidelity": (6.2, 6.1, 5.7, 5.6, 4.9, 4.4, 4.2),
        "roc-auc": (0.96, 0.92, 0.91, 0.87, 0.90, 0.81, 0.91),
        "xrai-dice": (0.57, 0.55, 0.64, 0.42, 0.55, 0.47, 0.63),
    },
}


def printed(sign: str) -> Agreement:
    return agreement(sign, ESTIMATORS, {metric: np.array(values) for metric, values in PRINTED[sign].items()})


class TestPublishedTables:
    @pytest.mark.parametrize(
        ("sign", "rho", "short"),
        [
            ("original", (0.8469, 0.6667, 0.3929), (0.85, 0.67, 0.39)),
            ("absolute", (0.6847, 0.1261, 0.6182), (0.69, 0.13, 0.62)),
        ],
    )
    def test_metrics_that_look_at_the_model_and_at_the_expert_rank_differently(
        self, sign: str, rho: tuple[float, ...], short: tuple[float, ...]
    ) -> None:
        """`short` is 1 - 6 sum d^2 / (n (n^2 - 1)), which is right without ties only: .69 for .68."""
        found = printed(sign)
        assert [(pair.first, pair.second) for pair in found.pairs] == [
            ("fidelity", "roc-auc"),
            ("fidelity", "xrai-dice"),
            ("roc-auc", "xrai-dice"),
        ]
        assert [pair.spearman.value for pair in found.pairs] == pytest.approx(rho, abs=5e-5)
        gaps = [((found.ranks[one] - found.ranks[other]) ** 2).sum() for one, other in ((0, 1), (0, 2), (1, 2))]
        assert [1 - 6 * gap / (7 * 48) for gap in gaps] == pytest.approx(short, abs=0.00501)
        assert all(pair.explainers == 7 for pair in found.pairs)

    def test_ranks_share_their_mean_where_values_tie(self) -> None:
        found = printed("original")
        assert found.ranks[0].tolist() == [1, 3, 6.5, 2, 5, 4, 6.5]
        assert found.matrix("spearman")[0, 1] == found.matrix("spearman")[1, 0] == found.pairs[0].spearman.value
        assert found.matrix("kendall").diagonal().tolist() == [1, 1, 1]

    @pytest.mark.parametrize("sign", ["original", "absolute"])
    def test_exact_p_is_what_random_orders_come_to(self, sign: str) -> None:
        for pair in printed(sign).pairs:
            one, other = (np.array(PRINTED[sign][name]) for name in (pair.first, pair.second))
            for found, reference in ((pair.spearman, spearmanr), (pair.kendall, kendalltau)):
                draw = np.random.default_rng(0)
                chances = [
                    abs(reference(one, draw.permutation(other))[0]) >= abs(found.value) - 1e-9 for _ in range(400)
                ]
                assert found.p == pytest.approx(np.mean(chances), abs=0.08)

    def test_kendall_exact_p_agrees_with_scipy_without_ties(self) -> None:
        one, other = np.arange(7.0), np.array([0.0, 2, 1, 3, 6, 4, 5])
        found = agreement("", ESTIMATORS, {"a": one, "b": other}).pairs[0]
        assert found.kendall.p == pytest.approx(kendalltau(one, other, method="exact").pvalue, abs=1e-12)


VALUES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12)


class TestCorrelations:
    @given(VALUES)
    def test_scipy_agrees_with_ties_and_all(self, pairs: list[tuple[int, int]]) -> None:
        first, second = np.array(pairs, dtype=float).T
        for ours, reference in ((spearman, spearmanr), (kendall, kendalltau)):
            if np.ptp(first) and np.ptp(second):
                assert float(ours(first, second)) == pytest.approx(reference(first, second)[0], abs=1e-6)
            else:
                assert math.isnan(ours(first, second))

    @given(VALUES)
    def test_monotone_transforms_change_nothing(self, pairs: list[tuple[float, float]]) -> None:
        first, second = np.array(pairs, dtype=float).T
        for ours in (spearman, kendall):
            np.testing.assert_allclose(ours(np.exp(first), second**3), ours(first, second), atol=1e-12)

    def test_many_columns_at_once(self) -> None:
        first, second = np.random.default_rng(0).integers(0, 5, size=(2, 9, 20)).astype(float)
        for ours in (spearman, kendall):
            each = [float(ours(first[:, column], second[:, column])) for column in range(20)]
            np.testing.assert_allclose(ours(first, second), each, atol=1e-12)


class TestAgreement:
    def test_same_and_opposite_orders(self) -> None:
        values = np.arange(6.0)
        found = agreement("", list("abcdef"), {"m": values, "same": values**3, "against": -values})
        assert [pair.kendall.value for pair in found.pairs] == pytest.approx([1, -1, -1])
        assert [pair.spearman.value for pair in found.pairs] == pytest.approx([1, -1, -1])
        # Two of the 720 orders are as extreme: the same one and its reverse.
        assert all(pair.spearman.p == pair.kendall.p == pytest.approx(2 / 720) for pair in found.pairs)

    def test_many_explainers_are_permuted_at_random_and_p_is_never_0(self) -> None:
        values = np.arange(20.0)
        found = agreement("", [str(index) for index in range(20)], {"a": values, "b": values}).pairs[0]
        assert found.spearman.p == found.kendall.p == pytest.approx(1 / 10000)

    def test_random_orders_give_uniform_p(self) -> None:
        draw = np.random.default_rng(0)
        names = [str(index) for index in range(10)]
        p = [agreement("", names, dict(zip("ab", draw.normal(size=(2, 10)), strict=True))).pairs[0] for _ in range(200)]
        for kind in ("spearman", "kendall"):
            assert np.mean([getattr(pair, kind).p for pair in p]) == pytest.approx(0.5, abs=0.07)

    def test_a_pair_uses_the_explainers_both_have(self) -> None:
        nan = math.nan
        values = {"a": np.array([1, 2, 3, nan, 9]), "b": np.array([2, 4, nan, 0, 6]), "c": np.array([nan] * 5)}
        found = agreement("", list("vwxyz"), values)
        assert [pair.explainers for pair in found.pairs] == [3, 0, 0]
        assert found.pairs[0].spearman.value == pytest.approx(1)
        assert math.isnan(found.pairs[1].spearman.value)
        assert math.isnan(found.pairs[1].kendall.p)
        np.testing.assert_array_equal(found.ranks[1], [3, 2, nan, 4, 1])

    def test_an_order_without_noise_has_an_interval_of_no_width(self) -> None:
        values = np.arange(5.0)
        replicates = np.repeat(values[:, None], 100, axis=1)
        found = agreement("", list("abcde"), {"a": values, "b": -values}, {"a": replicates, "b": -replicates}).pairs[0]
        assert (found.spearman.low, found.spearman.high) == pytest.approx((-1, -1))

    def test_a_noisy_order_has_a_wide_one_and_undefined_resamples_are_left_out(self) -> None:
        draw = np.random.default_rng(0)
        values = np.arange(8.0)
        replicates = {name: values[:, None] + 4 * draw.normal(size=(8, 400)) for name in "ab"}
        pair = agreement("", list("abcdefgh"), {"a": values, "b": values}, replicates).pairs[0]
        assert pair.spearman.high - pair.spearman.low > 0.5
        replicates["a"][3, :399] = math.nan
        left = agreement("", list("abcdefgh"), {"a": values, "b": values}, replicates).pairs[0]
        assert left.kendall.low == left.kendall.high

    def test_no_interval_without_replicates(self) -> None:
        values = np.arange(4.0)
        pair = agreement("", list("abcd"), {"a": values, "b": values}, {"a": np.ones((4, 10))}).pairs[0]
        assert math.isnan(pair.spearman.low)
        assert pair.spearman.value == 1
