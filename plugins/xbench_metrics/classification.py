"""Classification: how good the classifier is whose maps are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xbench import Case, DatasetInfo, Metric, Observations, probabilities
from xbench_metrics.options_checks import ClassificationOptions


class Classification(Metric):
    """A figure of the classifier itself (Katzmann et al., Table 1); it does not depend on the maps.

    Two classes: class 1 is the positive one. More: macro averages of one class against the rest; accuracy and MCC in
    their own multi-class form (Gorodkin 2004). The predicted class is the most probable one. With TP, FN, FP, TN:

        sensitivity = TP / (TP + FN), specificity = TN / (TN + FP), ppv = TP / (TP + FP), npv = TN / (TN + FN),
        f1 = 2 TP / (2 TP + FP + FN), informedness = sensitivity + specificity - 1, markedness = ppv + npv - 1,
        mcc = the correlation of truth and prediction (its square is informedness x markedness),
        auc = P(score of a positive > of a negative) + P(equal) / 2, balanced accuracy = mean recall of the classes.

    Higher is better. 0/0 is NaN, not 0: a figure that needs both classes is undefined on samples of one, and a macro
    average with an undefined class is undefined.
    """

    options: ClassificationOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """What the classifier says of each sample.

        Returns:
            probabilities: float64 (N, K).
            predicted: int64 (N,), the most probable class, the first of several.
        """
        given = probabilities(torch.from_numpy(np.array(case.logits)).double()).numpy()
        return {"probabilities": given, "predicted": given.argmax(1)}

    def summarise(self, observations: Observations) -> float:
        """The figure of `option figure`."""
        labels, given = observations["label"], observations["probabilities"]
        if not len(labels):
            return float("nan")
        if self.options.figure == "auc":
            return float(np.mean([_auc(labels == index, given[:, index]) for index in _judged(given.shape[1])]))
        classes = given.shape[1]
        cells = np.bincount(labels * classes + observations["predicted"], minlength=classes**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _of_confusion(self.options.figure, cells.reshape(classes, classes).astype(np.float64))

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """What the figure means."""
        two = len(info.classes) == 2
        return {
            "score": "the class of the largest probability; the probability itself for auc",
            "target": "none: the maps do not enter",
            "positive": info.classes[1] if two else "each class in turn against the rest, macro average",
            "undefined": "0/0 is NaN",
        }


def _judged(classes: int) -> list[int]:
    """The classes whose figures against the rest are averaged: of two, only the positive one."""
    return [1] if classes == 2 else list(range(classes))


def _of_confusion(figure: str, confusion: np.ndarray) -> float:
    """Confusion (true, predicted) -> a figure."""
    correct, true, predicted, total = confusion.diagonal(), confusion.sum(1), confusion.sum(0), confusion.sum()
    if figure == "accuracy":
        return float(correct.sum() / total)
    if figure == "balanced_accuracy":
        return float((correct / true).mean())
    if figure == "mcc":
        spread = np.sqrt(total**2 - (true**2).sum()) * np.sqrt(total**2 - (predicted**2).sum())
        return float((correct.sum() * total - (true * predicted).sum()) / spread)
    judged = _judged(len(confusion))
    tp, fn, fp = correct[judged], (true - correct)[judged], (predicted - correct)[judged]
    tn = total - tp - fn - fp
    values = {
        "f1": lambda: 2 * tp / (2 * tp + fp + fn),
        "sensitivity": lambda: tp / (tp + fn),
        "specificity": lambda: tn / (tn + fp),
        "ppv": lambda: tp / (tp + fp),
        "npv": lambda: tn / (tn + fn),
        "informedness": lambda: tp / (tp + fn) + tn / (tn + fp) - 1,
        "markedness": lambda: tp / (tp + fp) + tn / (tn + fn) - 1,
    }[figure]()
    return float(values.mean())


def _auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Mann-Whitney, exact with ties; NaN where one side is empty."""
    negatives, positives = np.sort(scores[~positive]), scores[positive]
    if not len(negatives) or not len(positives):
        return float("nan")
    twice = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(twice.mean() / (2 * len(negatives)))
