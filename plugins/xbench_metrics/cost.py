"""Cost: how much time, memory and how many passes does a map take?"""

from __future__ import annotations

from typing import Any

import numpy as np

from xbench import Case, DatasetInfo, Metric, Observations
from xbench_metrics.options import CostOptions
from xbench_metrics.subsample import mean_of_defined

_UNITS = {"seconds": "s", "fit_seconds": "s", "peak_bytes": "B", "fit_peak_bytes": "B"}
_OF_TRAINING = ("fit_seconds", "fit_peak_bytes")
_OF_MEMORY = ("peak_bytes", "fit_peak_bytes")


class Cost(Metric):
    """Cost of the maps of a split, as the harness measured it while they were made. Lower is better.

    `seconds`, `forward_passes` and `backward_passes` are per map: the total of the split divided by its N samples.
    `fit_seconds` is the whole training of a trained explainer, and 0 for others. The cost of an inner explainer (as in
    `blurred:<explainer>`) is included.

    `peak_bytes` is the largest memory in use while the maps are made. `fit_peak_bytes` is the same for the training (0
    for untrained explainers). On an accelerator, it is memory of the device, including the networks, above what others
    left there. The batches are those of the run, so a larger `batch_size` needs more. On a CPU, memory can't be
    attributed: there it is the high-water mark of the whole process, including libraries and data.

    All samples share one measurement, so the interval has no width and does not show how much time varies between runs.
    Seconds only compare explainers of one run on one machine. Passes compare them everywhere. The value is NaN where
    the harness could not measure.
    """

    higher_is_better = False
    options: CostOptions

    def __init__(self, options: CostOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.unit = _UNITS.get(options.figure, "")

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return all figures, with the same value for all samples.

        Returns:
            seconds, forward_passes, backward_passes: Figures per map, float64 (N,).
            fit_seconds, peak_bytes, fit_peak_bytes: Figures of the whole, float64 (N,).
        """
        count = len(case.split)
        figures = {
            "seconds": case.cost.get("seconds_maps", np.nan) / count,
            "forward_passes": case.cost.get("forward_passes", np.nan) / count,
            "backward_passes": case.cost.get("backward_passes", np.nan) / count,
            "fit_seconds": case.cost.get("seconds_fit", np.nan),
            "peak_bytes": case.cost.get("peak_bytes", np.nan),
            "fit_peak_bytes": case.cost.get("fit_peak_bytes", np.nan),
        }
        return {name: np.full(count, value, dtype=np.float64) for name, value in figures.items()}

    def summarise(self, observations: Observations) -> float:
        """Return the figure that the option `figure` names."""
        return mean_of_defined(observations[self.options.figure])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the figure means."""
        figure = self.options.figure
        memory = {
            "memory": "of the device, networks included, above what others left there; of the whole process on a CPU"
        }
        return {
            "scope": "the whole training" if figure in _OF_TRAINING else "making the maps",
            "passes": "images through the classifier explained, forward and backward",
            "aggregation": "of the split over its samples; fit_seconds and peak_bytes as they are",
            "measured": figure not in ("forward_passes", "backward_passes"),  # another time, another value
            **(memory if figure in _OF_MEMORY else {}),
        }
