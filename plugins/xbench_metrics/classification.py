"""Classification: how good is the classifier whose maps are scored?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xbench import Case, DatasetInfo, Metric, Observations, probabilities
from xbench.statistics.classification import classification_figures
from xbench_metrics.options import ClassificationOptions


class Classification(Metric):
    """A figure of the classifier itself (Katzmann et al., Table 1); it does not depend on the maps.

    The formulas are in `xbench.statistics.classification.classification_figures`. The header of every run shows these
    figures with intervals. With two classes, class 1 is the positive one. With more, the figure is the macro average of
    each class against the rest.

    Higher is better. 0/0 is NaN, not 0: a figure that needs both classes is undefined on samples of one class, and a
    macro average with an undefined class is undefined.
    """

    options: ClassificationOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the classifier's answer for each sample.

        Returns:
            probabilities: Class probabilities, float64 (N, K).
            predicted: The most probable class (the first one on a tie), int64 (N,).
        """
        given = probabilities(torch.from_numpy(np.array(case.logits)).double()).numpy()
        return {"probabilities": given, "predicted": given.argmax(1)}

    def summarise(self, observations: Observations) -> float:
        """Return the figure that the option `figure` names."""
        labels, given = observations["label"], observations["probabilities"]
        if not len(labels):
            return float("nan")
        return float(classification_figures(labels, given)[self.options.figure][0])

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what the figure means."""
        two = len(info.classes) == 2
        return {
            "score": "the class of the largest probability; the probability itself for auc",
            "target": "none: the maps do not enter",
            "positive": info.classes[1] if two else "each class in turn against the rest, macro average",
            "undefined": "0/0 is NaN",
        }
