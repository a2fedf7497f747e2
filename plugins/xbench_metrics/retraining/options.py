"""Options of the accuracies on binarised maps."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from xbench import Field, Options, Schedule


class BinarisationOptions(Options):
    """Base of options for the rule that makes a mask of a map, whose pixels are kept or occluded."""

    threshold: float = Field(
        0.9, ge=0, le=1, description="T; important pixels are those with floor(I + T) = 1, which means I >= 1 - T"
    )
    normalisation: Literal["positive", "minmax", "none"] = Field(
        "positive",
        description="scaling of a map to I in [0, 1], for the threshold: positive = cut off negative values, then "
        "min-max; minmax = min-max of the whole map (if its negative values mean 'a little'); none = the map as it is "
        "(VINet's maps lie in (0, 1])",
    )
    shares: str = Field(
        "",
        description="shares of each map's highest pixels to use instead of the threshold, separated by commas (0.1: "
        "the top 10 %); with several, the value is the area under the curve; empty = use the threshold",
    )

    @field_validator("shares", mode="before")
    @classmethod
    def _listed(cls, shares: object) -> object:
        """Accept a list or a number too, as they may stand in a configuration file."""
        values = shares if isinstance(shares, list | tuple) else [shares]
        return ",".join(str(value) for value in values)

    @field_validator("shares")
    @classmethod
    def _rising(cls, shares: str) -> str:
        try:
            values = sorted({float(word) for word in shares.split(",") if word.strip()})
        except ValueError:
            raise ValueError("must be numbers separated by commas, such as 0.05,0.1,0.2") from None
        if not all(0 <= value <= 1 for value in values):
            raise ValueError("must be shares of the pixels, from 0 to 1")
        return ",".join(f"{value:.10g}" for value in values)

    @property
    def top(self) -> tuple[float, ...]:
        """The shares in ascending order, or an empty tuple if the threshold decides."""
        return tuple(float(word) for word in self.shares.split(",") if word)


class AccuracyOptions(BinarisationOptions):
    """Base of options for the way in which right answers are counted."""

    accuracy: Literal["plain", "balanced"] = Field(
        "plain", description="plain = share of right answers (as in the paper); balanced = mean over the classes"
    )


class FilledAccuracyOptions(AccuracyOptions):
    """Base of options for the fill of hidden pixels."""

    fill: Literal["zero", "mean"] = Field(
        "zero",
        description="value that replaces a pixel: zero (as in the paper), or the training split's mean per channel",
    )


class OccludeAccuracyOptions(FilledAccuracyOptions):
    """Options of `occlude_accuracy`."""


class TesterSchedule(Schedule):
    """Training schedule of a classifier that a metric needs."""

    held_out: float = Field(
        0.2, gt=0, lt=1, description="share of the training images held out, by patient, for early stopping"
    )
    epochs: int = Field(40, ge=0, description="maximum number of passes over the training images")
    patience: int = Field(20, ge=1, description="stop after this many epochs without a better held-out cross entropy")
    train_batch: int = Field(16, ge=2, description="training batch size")
    learning_rate: float = Field(2e-3, gt=0, description="learning rate of Adam")


class TesterOptions(TesterSchedule):
    """Architecture, schedule and number of the classifiers that are trained on masked images."""

    tester: str = Field(
        "tiny",
        pattern=r"^(tiny|timm:.+)$",
        description="classifier to train; tiny = three convolutions; timm:<name> = a classifier of timm, from scratch "
        "(timm:resnet18 in the paper)",
    )
    seeds: int = Field(
        1, ge=1, description="number of testers, each trained from its own seed; to publish, use 3 or more"
    )


class KeepAccuracyOptions(TesterOptions, FilledAccuracyOptions):
    """Options of `keep_accuracy`."""


class MaskOnlyAccuracyOptions(TesterOptions, AccuracyOptions):
    """Options of `mask_only_accuracy`."""
