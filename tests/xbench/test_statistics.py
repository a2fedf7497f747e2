"""Resamples, intervals, paired tests, ranks and classifier figures, against closed forms and independent libraries."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk
from statsmodels.stats.multitest import multipletests

from xbench.statistics import (
    CLASSIFICATION,
    classification_metrics,
    holm,
    interval,
    paired_p,
    rank_sets,
    resamples,
)


def one_hot(labels, classes=2):
    return np.eye(classes)[np.asarray(labels)]


class TestResamples:
    def test_each_drawn_patient_brings_all_its_samples_once_per_draw(self):
        groups = ["b", "a", "b", "c", "a", "b"]
        for rows in resamples(groups, count=50, seed=1):
            times = np.bincount(rows, minlength=6)
            per_patient = {name: {times[i] for i in range(6) if groups[i] == name} for name in "abc"}
            assert all(len(counts) == 1 for counts in per_patient.values())
            assert sum(counts.pop() for counts in per_patient.values()) == 3

    def test_deterministic_and_seeded(self):
        first, again, other = (resamples(list("abcdefgh"), count=20, seed=seed) for seed in (3, 3, 4))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        assert first[0].dtype == np.int64

    def test_more_resamples_begin_with_the_fewer(self):
        few, many = (resamples(list("abcdef"), count=count, seed=0) for count in (5, 50))
        assert all(np.array_equal(a, b) for a, b in zip(few, many, strict=False))

    def test_patients_are_drawn_uniformly(self):
        drawn = np.concatenate(resamples([str(i) for i in range(10)], count=2000, seed=0))
        counts = np.bincount(drawn, minlength=10)  # expected 2000 each, standard deviation 42
        assert np.abs(counts - 2000).max() < 200

    def test_nothing_to_resample(self):
        with pytest.raises(ValueError, match="no samples"):
            resamples([])


class TestInterval:
    def test_percentiles(self):
        assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
        assert interval(np.arange(101.0), level=0.5) == pytest.approx((25, 75))

    def test_undefined_replicates_are_left_out(self):
        assert interval(np.array([np.nan, *range(101), np.nan])) == pytest.approx((2.5, 97.5))
        assert all(map(math.isnan, interval(np.array([np.nan]))))

    def test_coverage_of_a_mean_of_clustered_samples(self):
        """95 % intervals hold the true mean in 92.5 to 97 % of studies; resampling samples instead misses far more."""
        simulations, patients, each = 400, 60, 3
        rng = np.random.default_rng(7)
        groups = np.repeat(np.arange(patients), each).astype(str)
        rows = np.stack(resamples(groups, count=1000, seed=0))
        naive = rng.integers(patients * each, size=rows.shape)
        covered = np.zeros(2)
        for _ in range(simulations):
            values = np.repeat(rng.normal(size=patients), each) + 0.3 * rng.normal(size=patients * each)
            for index, drawn in enumerate((rows, naive)):
                low, high = interval(values[drawn].mean(1))
                covered[index] += low <= 0 <= high
        by_patient, by_sample = covered / simulations
        assert 0.925 <= by_patient <= 0.97
        assert by_sample < 0.85


class TestPairedP:
    def test_smoothed_count(self):
        assert paired_p(np.ones(999), np.zeros(999)) == pytest.approx(2 / 1000)
        assert paired_p(np.r_[np.ones(90), -np.ones(9)], np.zeros(99)) == pytest.approx(2 * 10 / 100)

    def test_symmetric_and_one_for_equal(self):
        a, b = np.random.default_rng(0).normal(size=(2, 200))
        assert paired_p(a, b) == paired_p(b, a)
        assert paired_p(a, a) == 1

    def test_undefined_pairs_are_left_out(self):
        a = np.r_[np.ones(99), np.nan]
        assert paired_p(a, np.zeros(100)) == pytest.approx(2 / 100)
        assert math.isnan(paired_p(np.array([np.nan]), np.array([1.0])))


class TestHolm:
    def test_agrees_with_statsmodels(self):
        rng = np.random.default_rng(0)
        for size in (1, 2, 7, 50):
            p = rng.beta(0.3, 2, size=size)
            p[: size // 3] = p[0]  # ties
            assert np.allclose(holm(p), multipletests(p, method="holm")[1], rtol=0, atol=1e-15)

    def test_undefined_is_not_a_test(self):
        assert holm(np.array([0.01, np.nan, 0.04])) == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
        assert len(holm(np.array([]))) == 0


class TestRankSets:
    def replicates(self, means, spread=0.01, count=2000):
        noise = np.random.default_rng(0).normal(size=(len(means), count))
        return np.asarray(means)[:, None] + spread * noise

    def test_identical_explainers_are_never_told_apart(self):
        same = self.replicates([0.7])[0]
        for rank in rank_sets(np.full(4, 0.7), np.stack([same] * 4), True):
            assert (rank.low, rank.high, rank.tied) == (1, 4, {0, 1, 2, 3})

    @pytest.mark.parametrize("higher", [True, False])
    def test_clearly_different_ones_always_are(self, higher):
        values = np.linspace(0, 1, 25)[np.random.default_rng(1).permutation(25)]
        ranks = rank_sets(values, self.replicates(values, spread=0.001), higher)
        expected = (-values if higher else values).argsort().argsort() + 1
        assert [rank.low for rank in ranks] == [rank.high for rank in ranks] == expected.tolist()
        assert [rank.tied for rank in ranks] == [{index} for index in range(25)]

    def test_overlapping_middle(self):
        values = [0.9, 0.5, 0.501, 0.1]
        ranks = rank_sets(np.array(values), self.replicates(values), True)
        assert [(rank.low, rank.high) for rank in ranks] == [(1, 1), (2, 3), (2, 3), (4, 4)]
        assert ranks[1].tied == ranks[2].tied == {1, 2}

    def test_undefined_values_come_last(self):
        values = [np.nan, 0.9, 0.1, np.nan]
        ranks = rank_sets(np.array(values), self.replicates(values), True)
        assert [(rank.low, rank.high) for rank in ranks] == [(3, 4), (1, 1), (2, 2), (3, 4)]
        assert ranks[0].tied == {0, 3}

    def test_nothing_or_one_to_rank(self):
        assert rank_sets(np.array([]), np.empty((0, 10)), True) == []
        assert rank_sets(np.array([0.5]), np.full((1, 10), 0.5), True) == [(1, 1, {0})]

    def test_family_wise_error_is_kept(self):
        """Ten equal explainers: some pair is told apart in at most about 5 % of 200 studies."""
        rng = np.random.default_rng(3)
        false_claims = 0
        rows = np.stack(resamples([str(i) for i in range(80)], count=500, seed=0))
        for _ in range(200):
            samples = rng.normal(size=(10, 80))
            ranks = rank_sets(samples.mean(1), samples[:, rows].mean(-1), True)
            false_claims += any(len(rank.tied) < 10 for rank in ranks)
        assert false_claims / 200 < 0.09

    def test_normal_tail_only_sharpens_a_count_at_its_end(self):
        """Two explainers, 100 replicates, none across zero: p is the normal tail, not 2 / 101."""
        gains = 4 + norm.ppf((np.arange(100) + 0.5) / 100)
        replicates = np.stack([gains, np.zeros(100)])
        told = [
            len(rank_sets(np.array([4.0, 0.0]), replicates, True, level=level)[0].tied) == 1 for level in (1e-3, 1e-6)
        ]
        assert told == [True, False]

    def test_three_patients_claim_nothing(self):
        values = np.array([0.9, 0.1])
        replicates = self.replicates(values)
        assert rank_sets(values, replicates, True, patients=3)[0].tied == {0, 1}
        assert rank_sets(values, replicates, True, patients=8)[0].tied == {0}


class TestClassificationMetrics:
    def test_published_confusion_matrix(self):
        """TP 91, FN 21, TN 99, FP 24 (Katzmann et al., table 1)."""
        labels = np.r_[np.ones(112, int), np.zeros(123, int)]
        predicted = np.r_[np.ones(91, int), np.zeros(21, int), np.zeros(99, int), np.ones(24, int)]
        found = classification_metrics(labels, one_hot(predicted), [str(i) for i in range(235)], seed=0, count=10)
        expected = {
            "accuracy": 0.8085,
            "f1": 0.8018,
            "sensitivity": 0.8125,
            "specificity": 0.8049,
            "ppv": 0.7913,
            "npv": 0.8250,
            "informedness": 0.6174,
            "markedness": 0.6163,
            "mcc": 0.6168,
            "balanced_accuracy": 0.8087,
        }
        assert {name: round(found[name][0], 4) for name in expected} == expected

    @pytest.mark.parametrize("classes", [2, 3, 5])
    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
    def test_agrees_with_sklearn_on_sample_and_resamples(self, classes):
        rng = np.random.default_rng(classes)
        labels = rng.integers(0, classes, 150)
        probabilities = np.round(rng.dirichlet(np.ones(classes), 150) + 0.5 * one_hot(labels, classes), 1)  # ties
        probabilities /= probabilities.sum(1, keepdims=True)
        groups = [str(i) for i in rng.integers(0, 80, 150)]
        found = classification_metrics(labels, probabilities, groups, seed=5, count=30)
        replicates = [reference(labels[rows], probabilities[rows]) for rows in resamples(groups, 30, 5)]
        for name, value in reference(labels, probabilities).items():
            low, high = interval(np.array([one[name] for one in replicates]))
            assert found[name] == pytest.approx((value, low, high), abs=1e-9), name
        assert set(found) == set(CLASSIFICATION)

    def test_zero_by_zero_is_undefined(self):
        found = classification_metrics([0, 1, 0], one_hot([0, 0, 0]), list("abc"), seed=0, count=20)
        assert math.isnan(found["ppv"][0])
        assert math.isnan(found["mcc"][0])
        assert found["sensitivity"][0] == 0
        assert found["npv"][0] == pytest.approx(2 / 3)

    def test_one_class_only(self):
        found = classification_metrics([1, 1], np.array([[0.2, 0.8], [0.6, 0.4]]), list("ab"), seed=0, count=20)
        assert math.isnan(found["auc"][0])
        assert math.isnan(found["auc"][1])
        assert found["accuracy"] == pytest.approx((0.5, 0, 1))

    def test_interval_leaves_out_resamples_of_one_class(self):
        low, high = classification_metrics([0, 1], np.array([[0.9, 0.1], [0.1, 0.9]]), list("ab"), seed=0)["auc"][1:]
        assert (low, high) == (1, 1)

    def test_patients_not_samples_are_resampled(self):
        labels = np.tile([0, 1], 60)
        probabilities = one_hot(np.where(np.arange(120) % 3 == 0, 1 - labels, labels)) * 0.8 + 0.1
        width = {}
        for name, groups in {"alone": np.arange(120), "by six": np.arange(120) // 60}.items():
            _, low, high = classification_metrics(labels, probabilities, groups.astype(str).tolist(), seed=0)[
                "accuracy"
            ]
            width[name] = high - low
        assert width["by six"] == pytest.approx(0)  # both patients are alike: every resample has the same accuracy
        assert width["alone"] > 0.1

    @pytest.mark.parametrize(
        ("labels", "probabilities", "complaint"),
        [
            ([0, 2], np.full((2, 2), 0.5), "not classes 0 to 1"),
            ([0, 1], np.full((2, 1), 0.5), "do not fit"),
            ([0, 1], np.array([[0.5, np.nan], [0.5, 0.5]]), "NaN"),
        ],
    )
    def test_refuses(self, labels, probabilities, complaint):
        with pytest.raises(ValueError, match=complaint):
            classification_metrics(labels, probabilities, ["a", "b"], seed=0)


def reference(labels, probabilities):
    """scikit-learn's figures; NaN where it would put a number for 0/0."""
    classes = probabilities.shape[1]
    judged = [1] if classes == 2 else range(classes)
    predicted = probabilities.argmax(1)

    def macro(score, **options):
        return np.mean([score(labels == c, predicted == c, zero_division=np.nan, **options) for c in judged])

    figures = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.recall_score(
            labels, predicted, average="macro", labels=range(classes), zero_division=np.nan
        ),
        "f1": macro(sk.f1_score),
        "sensitivity": macro(sk.recall_score),
        "specificity": macro(sk.recall_score, pos_label=False),
        "ppv": macro(sk.precision_score),
        "npv": macro(sk.precision_score, pos_label=False),
        "mcc": sk.matthews_corrcoef(labels, predicted),
        "auc": np.mean([sk.roc_auc_score(labels == c, probabilities[:, c]) for c in judged]),
    }
    figures["informedness"] = figures["sensitivity"] + figures["specificity"] - 1
    figures["markedness"] = figures["ppv"] + figures["npv"] - 1
    return figures
