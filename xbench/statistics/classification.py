"""The figures of a classifier (Katzmann et al., Table 1), of a sample and of its resamples by patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xbench.statistics.resampling import RESAMPLES, interval, resample_weights

CLASSIFICATION = (
    "accuracy",
    "balanced_accuracy",
    "f1",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "informedness",
    "markedness",
    "mcc",
    "auc",
)


class Figure(NamedTuple):
    """A figure with its 95 % percentile interval.

    Attributes:
        value: Value on the sample.
        low: Lower end of the interval.
        high: Upper end of the interval.
        undefined: Number of resamples on which the figure is 0/0, such as those of one class only. They are left out
            of the interval.
    """

    value: float
    low: float
    high: float
    undefined: int = 0


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[str], seed: int = 0, count: int = RESAMPLES
) -> dict[str, Figure]:
    """Return `classification_figures` with 95 % percentile intervals, resampled by patient.

    Args:
        labels: int (N,), in [0, K).
        probabilities: (N, K), K >= 2.
        groups: The patient of each sample.
        seed: Seed of the resamples.
        count: How many resamples.

    Returns:
        Name (of `CLASSIFICATION`) -> figure.

    Raises:
        ValueError: Shapes do not fit, a label is out of range, or a probability is not finite.
    """
    labels, probabilities = checked_predictions(labels, probabilities, groups)
    values = classification_figures(labels, probabilities)
    chunks = [
        classification_figures(labels, probabilities, weights) for weights in resample_weights(groups, count, seed)
    ]
    return {
        name: with_interval(float(values[name][0]), np.concatenate([chunk[name] for chunk in chunks]))
        for name in CLASSIFICATION
    }


def with_interval(value: float, replicates: np.ndarray) -> Figure:
    """Return a value with the percentile interval of its replicates (B,); undefined (NaN) ones are only counted."""
    return Figure(value, *interval(replicates), undefined=int(np.isnan(replicates).sum()))


def checked_predictions(
    labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 (N,) and probabilities as float64 (N, K).

    Raises:
        ValueError: Shapes do not fit, a label is out of range, or a probability is not finite.
    """
    labels = np.asarray(labels, dtype=np.int64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if (
        probabilities.ndim != 2
        or probabilities.shape[1] < 2
        or not len(labels) == len(probabilities) == len(groups) > 0
    ):
        raise ValueError(
            f"labels {labels.shape}, probabilities {probabilities.shape} and {len(groups)} groups do not fit: "
            "(N,), (N, K >= 2) and N expected"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels {labels.min()} to {labels.max()} are not classes 0 to {probabilities.shape[1] - 1}")
    if not np.isfinite(probabilities).all():
        raise ValueError("a probability is NaN or infinite")
    return labels, probabilities


def classification_figures(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the usual figures of a classifier, for many weightings of its samples at once.

    Two classes: class 1 is the positive one. More: macro averages of one class against the rest, except accuracy and
    MCC, which have their own multi-class form (Gorodkin 2004). The predicted class is the most probable one, the first
    of several. With TP, FN, FP, TN:

        sensitivity = TP / (TP + FN), specificity = TN / (TN + FP), ppv = TP / (TP + FP), npv = TN / (TN + FN),
        f1 = 2 TP / (2 TP + FP + FN), informedness = sensitivity + specificity - 1, markedness = ppv + npv - 1,
        mcc = the correlation of truth and prediction (its square is informedness x markedness),
        auc = P(score of a positive > of a negative) + P(equal) / 2, balanced accuracy = mean recall of the classes.

    0/0 is NaN, not 0, and a macro average with a NaN is NaN.

    Args:
        labels: int64 (N,), in [0, K).
        probabilities: float64 (N, K), K >= 2.
        weights: float64 (B, N), how often each sample counts in each of B resamples; None = each once, B = 1.

    Returns:
        Name (of `CLASSIFICATION`) -> (B,).
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    classes = probabilities.shape[1]
    cell = labels * classes + probabilities.argmax(1)
    confusion = (weights @ np.eye(classes**2)[cell]).reshape(-1, classes, classes)  # [resample, true, predicted]
    area = np.stack(
        [_weighted_auc(labels == index, probabilities[:, index], weights) for index in _judged(classes)], axis=-1
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return _from_confusion(confusion) | {"auc": area.mean(-1)}


def _judged(classes: int) -> list[int]:
    """Return the classes whose one-against-the-rest figures are averaged; only the positive one of two."""
    return [1] if classes == 2 else list(range(classes))


def _from_confusion(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return the figures, (B,) each, of confusion matrices (B, true, predicted)."""
    judged = _judged(confusion.shape[1])
    total = confusion.sum((1, 2))
    correct, true, predicted = np.einsum("bkk->bk", confusion), confusion.sum(2), confusion.sum(1)
    recall = correct / true
    tp, fn, fp = correct[:, judged], (true - correct)[:, judged], (predicted - correct)[:, judged]
    tn = total[:, None] - tp - fn - fp
    sensitivity, specificity, ppv, npv = tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn)
    covariance = correct.sum(1) * total - (true * predicted).sum(1)
    spread = np.sqrt(total**2 - (true**2).sum(1)) * np.sqrt(total**2 - (predicted**2).sum(1))
    return {
        "accuracy": correct.sum(1) / total,
        "balanced_accuracy": recall.mean(1),
        "f1": (2 * tp / (2 * tp + fp + fn)).mean(1),
        "sensitivity": sensitivity.mean(1),
        "specificity": specificity.mean(1),
        "ppv": ppv.mean(1),
        "npv": npv.mean(1),
        "informedness": (sensitivity + specificity - 1).mean(1),
        "markedness": (ppv + npv - 1).mean(1),
        "mcc": covariance / spread,
    }


def _weighted_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return P(score of a positive > of a negative) + P(equal) / 2 for each row of weights (B, N)."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] > ordered[:-1]]))
    with_positive = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    with_negative = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(with_negative, axis=1) - with_negative / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        area: np.ndarray = (with_positive * below).sum(1) / (with_positive.sum(1) * with_negative.sum(1))
    return area
