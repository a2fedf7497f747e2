"""Measure whether a classifier is right as often as it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbench.statistics.classification import Figure, checked_predictions, with_interval
from xbench.statistics.resampling import RESAMPLES, resample_weights

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """The reliability of the predicted class's probability (Guo et al. 2017, section 2), and the Brier score.

    Attributes:
        edges: (M + 1,), of M equally wide bins of the confidence, each without its left edge but for the first.
        count: int (M,), samples in each bin.
        confidence: (M,), their mean confidence; NaN in an empty bin.
        accuracy: (M,), the share of them that is right; NaN in an empty bin.
        expected_calibration_error: sum over the bins of count / N x |accuracy - confidence| (Guo et al., eq. 3). It is
            biased upwards where bins are thinly filled, and so are its resamples, once more.
        brier_score: Mean squared error of the probabilities: (p(1) - y)² for two classes, in [0, 1]; for more the sum
            over the classes (Brier 1950), in [0, 2].
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    expected_calibration_error: Figure
    brier_score: Figure


def calibration(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: Sequence[str],
    seed: int = 0,
    count: int = RESAMPLES,
    bins: int = BINS,
) -> Calibration:
    """Measure how well the confidence in the predicted class fits its accuracy.

    The predicted class is the most probable one, the first of several.

    Args:
        labels: int (N,), in [0, K).
        probabilities: (N, K), K >= 2.
        groups: The patient of each sample; resampling is by patient.
        seed: Seed of the resamples.
        count: How many resamples.
        bins: M, number of bins.

    Raises:
        ValueError: Shapes do not fit, a label is out of range, or a probability is not finite.
    """
    labels, probabilities = checked_predictions(labels, probabilities, groups)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    member = np.eye(bins)[where]
    number = member.sum(0)
    excess = member * (right - confidence)[:, None]
    error = _squared_error(labels, probabilities)
    ece, brier = [], []
    for weights in resample_weights(groups, count, seed):
        total = weights.sum(1)
        ece.append(np.abs(weights @ excess).sum(1) / total)
        brier.append(weights @ error / total)
    with np.errstate(invalid="ignore"):
        return Calibration(
            edges=edges,
            count=number.astype(np.int64),
            confidence=confidence @ member / number,
            accuracy=right @ member / number,
            expected_calibration_error=with_interval(
                float(np.abs(excess.sum(0)).sum() / len(labels)), np.concatenate(ece)
            ),
            brier_score=with_interval(float(error.mean()), np.concatenate(brier)),
        )


def _squared_error(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the squared error of each sample, (N,)."""
    classes = probabilities.shape[1]
    if classes == 2:
        return np.asarray((probabilities[:, 1] - labels) ** 2)
    return np.asarray(((probabilities - np.eye(classes)[labels]) ** 2).sum(1))
