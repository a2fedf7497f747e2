"""Class sensitivity: is the map of another class another map?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xbench import Case, DatasetInfo, Metric, Observations, class_scores
from xbench.compute.similarity import map_spearman
from xbench.runtime.devices import upload
from xbench_metrics.checks.options import ClassSensitivityOptions
from xbench_metrics.subsample import Part, live_explainer, mean_of_defined, parts, subsample


class ClassSensitivity(Metric):
    """1 - Spearman's rank correlation of the maps of two classes, mean over the images; higher is better.

    The two are the class explained, and of the others the one with the highest score. 0 is a map that is the same
    whatever class is asked for: so are those of VisualBackProp, of a reconstruction's difference and of most trained
    masks, by their design; they show what a network looks at, not what speaks for which class. 1 has nothing in common,
    2 is the opposite.

    A classifier with one output neuron, or two that have come to mirror each other, has S_0 = -S_1: a signed gradient
    method then has 2 and its absolute values have 0, by arithmetic. The metric tells something about signed maps of two
    classes, and about both signs with more.
    """

    needs = frozenset({"explain"})
    options: ClassSensitivityOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """How alike the maps of the two classes are.

        Returns:
            spearman: float64 (N,), NaN for images beyond `limit`.
            other: int64 (N,), the other class; -1 beyond `limit`.
        """
        seen = {"spearman": np.full(len(case.split), np.nan), "other": np.full(len(case.split), -1)}

        def compared(part: Part) -> tuple[np.ndarray, np.ndarray]:
            scores = class_scores(torch.from_numpy(np.array(case.logits[part.rows])))
            targets = torch.from_numpy(np.array(case.targets[part.rows], dtype=np.int64))
            other = scores.scatter(1, targets[:, None], -torch.inf).argmax(1)
            maps = live_explainer(case).maps(part.batch, upload(other, part.maps.device))
            return map_spearman(part.maps, maps).cpu().numpy(), other.numpy()

        for rows, found in parts(case, subsample(case, self.options.limit), compared, "class sensitivity"):
            seen["spearman"][rows], seen["other"][rows] = found
        return seen

    def summarise(self, observations: Observations) -> float:
        """1 - the mean correlation."""
        return 1 - mean_of_defined(observations["spearman"])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """What is compared."""
        return {
            "similarity": "rank correlation over the pixels, average ranks for ties; two constant maps are equal",
            "other class": "the one of the highest score beside the class explained",
            "aggregation": "mean over the images",
        }
