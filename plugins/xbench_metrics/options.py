"""Options of the metrics."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options
from xbench_metrics.retraining.options import TesterSchedule


class ShiftOptions(TesterSchedule):
    """Options of `classifier_shift`: who judges the changed images, and in what state."""

    judge: str = Field(
        "explained",
        pattern=r"^(explained|tiny|timm:.+)$",
        description="explained = the classifier explained; tiny, timm:<name> = another one, trained from scratch on "
        "the training images (three convolutions, or a classifier of timm): an adversarial change means nothing to it",
    )
    blur: float = Field(
        0.0, ge=0, description="standard deviation, in pixels, of a Gaussian blur before an image is judged; 0 = none"
    )
    noise: float = Field(
        0.0, ge=0, description="standard deviation of Gaussian noise added before an image is judged; 0 = none"
    )


class ClassificationOptions(Options):
    """Options of `classification`."""

    figure: Literal[
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
    ] = Field("balanced_accuracy", description="which of the classifier's figures is the value")


class CostOptions(Options):
    """Options of `cost`."""

    figure: Literal["seconds", "forward_passes", "backward_passes", "fit_seconds", "peak_bytes", "fit_peak_bytes"] = (
        Field(
            "seconds",
            description="seconds, forward and backward passes of the classifier: of one map; fit_seconds: of a trained "
            "explainer's training; peak_bytes, fit_peak_bytes: most memory that making the maps, or the training, "
            "needs at a time, networks included (on a CPU that of the whole process)",
        )
    )
