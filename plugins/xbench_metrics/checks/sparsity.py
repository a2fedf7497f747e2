"""Sparsity: how little of the image does a map single out? It does not show whether this is the right part."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from xbench import Case, DatasetInfo, Metric, Observations

_OVERSHOOT = 1e-5  # rounding error that resizing may add to a map in [0, 1]


class MapMetric(Metric):
    """Mean over images of one figure that depends on the map alone.

    Attributes:
        figure: Name of the observation to average.
    """

    figure: str

    @abstractmethod
    def measure(self, maps: np.ndarray) -> dict[str, np.ndarray]:
        """Return the observations of each map: float32 (n, P) -> name to float64 (n,)."""

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the observations of `measure` for every map."""

        def measured(start: int, stop: int) -> dict[str, np.ndarray]:
            maps = np.asarray(case.maps[start:stop], dtype=np.float32)
            return self.measure(maps.reshape(len(maps), -1))

        return case.observed(measured, self.figure)

    def summarise(self, observations: Observations) -> float:
        """Return the mean over the maps for which the figure is defined, or NaN if there are none."""
        values = observations[self.figure]
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")


class ImportanceLoss(MapMetric):
    """Mean of an importance map in [0, 1] over its pixels (VINet, eq. 8, L_imp): the share of the image it keeps.

    Value = mean over images of (1 / HW) sum_hw M. VINet's tables III and IV print it in hundredths. Lower is better. A
    mask whose highest pixel is 1, as in VINet, has at least 1 / HW. A constant map of 1 has 1.

    The value only compares importance maps with a common scale. The map is not normalised. If it leaves [0, 1], the
    value is NaN and does not count. A map of small values has a low mean whatever it shows (a map of zeros has 0), so
    `peak`, the map's maximum, is observed as well.
    """

    higher_is_better = False
    figure = "importance_loss"

    def measure(self, maps: np.ndarray) -> dict[str, np.ndarray]:
        """Return the mean of each map, NaN for one that leaves [0, 1], and its maximum."""
        peak = maps.max(1).astype(np.float64)
        scaled = (maps.min(1) >= -_OVERSHOOT) & (peak <= 1 + _OVERSHOOT)
        return {"importance_loss": np.where(scaled, maps.mean(1, dtype=np.float64), np.nan), "peak": peak}

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the value means."""
        return {
            "score": "mean of the map",
            "map": "as it is; one that leaves [0, 1] does not count",
            "aggregation": "mean over images",
        }


class Sparseness(MapMetric):
    """Gini index of the map's absolute values (Chalasani et al. 2020; Hurley and Rickard 2009).

    With |A| sorted, a_1 <= ... <= a_n: G = sum_k (2k - n - 1) a_k / (n sum_k a_k). G is 0 if all pixels have the same
    value, and 1 - 1/n if one pixel has everything. Scaling the map does not change it. Higher is better. A map of zeros
    counts as constant and has 0.
    """

    figure = "sparseness"

    def measure(self, maps: np.ndarray) -> dict[str, np.ndarray]:
        """Return the Gini index of each map."""
        pixels = maps.shape[1]
        values = np.sort(np.abs(maps), axis=1).astype(np.float64)
        weights = np.arange(1 - pixels, pixels, 2, dtype=np.float64)
        total = values.sum(1)
        weighed = values @ weights
        index = np.divide(weighed, pixels * total, out=np.zeros(len(maps)), where=total > 0)
        return {"sparseness": index}

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the value means."""
        return {"score": "Gini index", "map": "absolute values", "aggregation": "mean over images"}
