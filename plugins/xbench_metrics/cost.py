"""Cost: what a map costs to make."""

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
    """What the maps of a split cost, as the harness measured it while they were made; lower is better.

    `seconds`, `forward_passes` and `backward_passes` are of one map: those of the whole split over its N samples.
    `fit_seconds` is the whole training of a trained explainer, 0 for others. What a copy is made from (the inner
    explainer of `blurred:<explainer>`) is included.

    `peak_bytes` is the most memory that making the maps needs at a time, `fit_peak_bytes` the training (0 for untrained
    ones). On an accelerator that is memory of the device, the networks included, above what others have left there;
    batches are those of the run, so that a larger `batch_size` needs more. On the CPU nothing tells whose memory is
    whose: it is the high-water mark of the whole process, libraries and data included.

    One measurement serves all samples, so the interval has no width: it says nothing about how much time varies from
    run to run. Seconds compare explainers of one run on one machine; passes compare them anywhere. NaN where the
    harness could not measure.
    """

    higher_is_better = False
    options: CostOptions

    def __init__(self, options: CostOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.unit = _UNITS.get(options.figure, "")

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Every figure, the same for all samples.

        Returns:
            seconds, forward_passes, backward_passes: float64 (N,), of one map.
            fit_seconds, peak_bytes, fit_peak_bytes: float64 (N,), of the whole.
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
        """The figure of `option figure`."""
        return mean_of_defined(observations[self.options.figure])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """What the figure means."""
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
