"""Class sensitivity: does the map change with the class?"""

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

    The two classes are the explained class and, of the others, the one with the highest score. 0 means that the map is
    the same for every class. VisualBackProp, the difference of a reconstruction and most trained masks have this value
    by design: they show what a network looks at, not which evidence speaks for which class. With 1, the maps have
    nothing in common. With 2, they are opposite.

    A classifier with one output neuron, or with two that mirror each other after training, has S_0 = -S_1. A signed
    gradient method then has the value 2 and its absolute values have 0, by arithmetic. So with two classes, the metric
    is only informative for signed maps. With more classes, it is informative for both signs.
    """

    needs = frozenset({"explain"})
    options: ClassSensitivityOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the similarity of the maps of the two classes.

        Returns:
            spearman: Rank correlation of the two maps, float64 (N,). NaN for images beyond `limit`.
            other: The other class, int64 (N,). -1 for images beyond `limit`.
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
        """Return 1 - the mean correlation."""
        return 1 - mean_of_defined(observations["spearman"])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what is compared."""
        return {
            "similarity": "rank correlation over the pixels, average ranks for ties; two constant maps are equal",
            "other class": "the one of the highest score beside the class explained",
            "aggregation": "mean over the images",
        }
