"""Options of the metrics."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options
from xbench_metrics.retraining.options import TesterSchedule


class ShiftOptions(TesterSchedule):
    """Options of `classifier_shift`: the classifier that judges the changed images, and how they are altered before."""

    judge: str = Field(
        "explained",
        pattern=r"^(explained|tiny|timm:.+)$",
        description="classifier that judges the images; explained = the explained classifier; tiny (three "
        "convolutions), timm:<name> = another one, trained from scratch on the training images, which adversarial "
        "changes do not fool",
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
    ] = Field("balanced_accuracy", description="figure of the classifier that is the value")


class CostOptions(Options):
    """Options of `cost`."""

    figure: Literal["seconds", "forward_passes", "backward_passes", "fit_seconds", "peak_bytes", "fit_peak_bytes"] = (
        Field(
            "seconds",
            description="seconds, forward_passes, backward_passes = per map; fit_seconds = training of a trained "
            "explainer; peak_bytes, fit_peak_bytes = largest memory in use while maps are made, or during training, "
            "networks included (on a CPU, memory of the whole process)",
        )
    )
