"""Classification: how good the classifier is whose maps are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xbench import Case, DatasetInfo, Metric, Observations, probabilities
from xbench.statistics.classification import classification_figures
from xbench_metrics.options import ClassificationOptions


class Classification(Metric):
    """A figure of the classifier itself (Katzmann et al., Table 1); it does not depend on the maps.

    Its formulas are `xbench.statistics.classification.classification_figures`, which the header of every run shows with
    intervals: for two classes, class 1 is the positive one; for more, macro averages of one class against the rest.

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
        return float(classification_figures(labels, given)[self.options.figure][0])

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """What the figure means."""
        two = len(info.classes) == 2
        return {
            "score": "the class of the largest probability; the probability itself for auc",
            "target": "none: the maps do not enter",
            "positive": info.classes[1] if two else "each class in turn against the rest, macro average",
            "undefined": "0/0 is NaN",
        }
