"""A classifier's figures, against the paper's confusion matrix and scikit-learn."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from xbench.statistics.classification import CLASSIFICATION, classification_metrics
from xbench.statistics.resampling import interval, resamples


def one_hot(labels: Sequence[int] | np.ndarray, classes: int = 2) -> np.ndarray:
    return np.eye(classes)[np.asarray(labels)]


class TestClassificationMetrics:
    def test_published_confusion_matrix(self) -> None:
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
    def test_agrees_with_sklearn_on_sample_and_resamples(self, classes: int) -> None:
        rng = np.random.default_rng(classes)
        labels = rng.integers(0, classes, 150)
        probabilities = np.round(rng.dirichlet(np.ones(classes), 150) + 0.5 * one_hot(labels, classes), 1)  # ties
        probabilities /= probabilities.sum(1, keepdims=True)
        groups = [str(i) for i in rng.integers(0, 80, 150)]
        found = classification_metrics(labels, probabilities, groups, seed=5, count=30)
        replicates = [reference(labels[rows], probabilities[rows]) for rows in resamples(groups, 30, 5)]
        for name, value in reference(labels, probabilities).items():
            low, high = interval(np.array([one[name] for one in replicates]))
            assert found[name][:3] == pytest.approx((value, low, high), abs=1e-9), name
        assert set(found) == set(CLASSIFICATION)

    def test_zero_by_zero_is_undefined(self) -> None:
        found = classification_metrics(np.array([0, 1, 0]), one_hot([0, 0, 0]), list("abc"), seed=0, count=20)
        assert math.isnan(found["ppv"][0])
        assert math.isnan(found["mcc"][0])
        assert found["sensitivity"][0] == 0
        assert found["npv"][0] == pytest.approx(2 / 3)

    def test_one_class_only(self) -> None:
        found = classification_metrics(
            np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]), list("ab"), seed=0, count=20
        )
        assert math.isnan(found["auc"][0])
        assert math.isnan(found["auc"][1])
        assert found["accuracy"] == pytest.approx((0.5, 0, 1, 0))

    def test_interval_leaves_out_resamples_of_one_class_and_counts_them(self) -> None:
        found = classification_metrics(
            np.array([0, 1]), np.array([[0.9, 0.1], [0.1, 0.9]]), list("ab"), seed=0, count=400
        )
        assert found["auc"][:3] == (1, 1, 1)
        single = sum(len(set(rows.tolist())) == 1 for rows in resamples(list("ab"), 400, 0))
        assert found["auc"].undefined == single > 150
        assert found["accuracy"].undefined == 0

    def test_patients_not_samples_are_resampled(self) -> None:
        labels = np.tile([0, 1], 60)
        probabilities = one_hot(np.where(np.arange(120) % 3 == 0, 1 - labels, labels)) * 0.8 + 0.1
        width = {}
        for name, groups in {"alone": np.arange(120), "by six": np.arange(120) // 60}.items():
            found = classification_metrics(labels, probabilities, groups.astype(str).tolist(), seed=0)["accuracy"]
            width[name] = found.high - found.low
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
    def test_refuses(self, labels: list[int], probabilities: np.ndarray, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            classification_metrics(labels, probabilities, ["a", "b"], seed=0)  # type: ignore[arg-type]


def reference(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """scikit-learn's figures; NaN where it would put a number for 0/0."""
    classes = probabilities.shape[1]
    judged = [1] if classes == 2 else range(classes)
    predicted = probabilities.argmax(1)

    def macro(score: Callable[..., float], **options: Any) -> np.floating:
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
