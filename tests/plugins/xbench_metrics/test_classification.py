"""The classifier's own figures: the paper's confusion, scikit-learn, and what every run shows."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from xbench.runtime.seeding import rng
from xbench.statistics.classification import CLASSIFICATION, classification_metrics
from xbench.testing import default_scenarios, metric_checks
from xbench_metrics.classification import Classification
from xbench_metrics.options import ClassificationOptions


def value(figure: str, labels: Sequence[int] | np.ndarray, given: np.ndarray) -> float:
    metric = Classification(ClassificationOptions(figure=figure))
    seen = {"probabilities": given, "predicted": given.argmax(1), "label": np.asarray(labels)}
    return metric.summarise(seen)


FIXTURE = {
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


@pytest.mark.parametrize(("figure", "expected"), FIXTURE.items())
def test_the_confusion_of_the_paper(figure: str, expected: float) -> None:
    """Katzmann et al.'s test set: TP 91, FN 21, TN 99, FP 24."""
    labels = np.repeat([1, 1, 0, 0], [91, 21, 99, 24])
    positive = np.repeat([0.9, 0.1, 0.2, 0.8], [91, 21, 99, 24])
    assert value(figure, labels, np.stack([1 - positive, positive], 1)) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("figure", CLASSIFICATION)
def test_is_the_figure_in_the_header_of_the_run(figure: str, classes: int) -> None:
    draw = rng(3, "figures", classes)
    labels, given = draw.integers(classes, size=60), draw.dirichlet(np.ones(classes), 60).round(1)
    expected = classification_metrics(labels, given, np.arange(60).astype(str), count=1)[figure][0]  # type: ignore[arg-type]
    assert value(figure, labels, given) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_agrees_with_scikit_learn() -> None:
    draw = rng(4, "figures")
    labels, given = draw.integers(3, size=80), draw.dirichlet(np.ones(3), 80)
    predicted = given.argmax(1)
    area = sklearn_metrics.roc_auc_score(labels, given, multi_class="ovr", average="macro")
    assert value("auc", labels, given) == pytest.approx(area)
    assert value("mcc", labels, given) == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predicted))
    assert value("f1", labels, given) == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"))
    expected = sklearn_metrics.balanced_accuracy_score(labels, predicted)
    assert value("balanced_accuracy", labels, given) == pytest.approx(expected)


def test_undefined_figures_are_nan() -> None:
    given = np.array([[0.7, 0.3], [0.6, 0.4]])
    undefined = [name for name in CLASSIFICATION if math.isnan(value(name, [0, 0], given))]
    assert undefined == ["balanced_accuracy", "f1", "sensitivity", "ppv", "informedness", "markedness", "mcc", "auc"]


@pytest.mark.parametrize("figure", ["balanced_accuracy", "auc"])
@pytest.mark.parametrize("check", [pytest.param(run, id=name) for name, run in metric_checks(default_scenarios())])
def test_classification_conforms(check: Callable[..., None], figure: str) -> None:
    check(lambda: Classification(ClassificationOptions(figure=figure)))
