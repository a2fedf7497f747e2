"""Options of the accuracies on binarised maps."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from xbench import Field, Options, Schedule


class BinarisationOptions(Options):
    """How a map becomes a mask of the pixels that are kept or occluded."""

    threshold: float = Field(
        0.9, ge=0, le=1, description="T: the important pixels are those with floor(I + T) = 1, that is I >= 1 - T"
    )
    normalisation: Literal["positive", "minmax", "none"] = Field(
        "positive",
        description="how a map becomes I in [0, 1], for the threshold: positive = its negative part is cut off, the "
        "rest min-max normalised; minmax = the whole of it is (for maps whose negative values mean 'a little'); none = "
        "as it is (VINet's own lie in (0, 1])",
    )
    shares: str = Field(
        "",
        description="instead of the threshold: the highest values of each map, as shares of its pixels, separated by "
        "commas (0.1: the top 10 %); with several, the value is the area under the curve; empty = the threshold",
    )

    @field_validator("shares", mode="before")
    @classmethod
    def _listed(cls, shares: object) -> object:
        """A list or a number, as a file of choices may hold."""
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
        """The shares, rising; empty where the threshold decides."""
        return tuple(float(word) for word in self.shares.split(",") if word)


class AccuracyOptions(BinarisationOptions):
    """How right answers are counted."""

    accuracy: Literal["plain", "balanced"] = Field(
        "plain", description="plain = share of right answers (the paper's); balanced = mean over the classes"
    )


class FilledAccuracyOptions(AccuracyOptions):
    """What stands where the classifier must not look."""

    fill: Literal["zero", "mean"] = Field(
        "zero", description="what replaces a pixel: zero (the paper's), or the mean of the training split, per channel"
    )


class OccludeAccuracyOptions(FilledAccuracyOptions):
    """Options of `occlude_accuracy`."""


class TesterSchedule(Schedule):
    """How a classifier is trained that a metric needs."""

    held_out: float = Field(
        0.2, gt=0, lt=1, description="share of the training images held out, by patient, for early stopping"
    )
    epochs: int = Field(40, ge=0, description="most passes over the training images")
    patience: int = Field(20, ge=1, description="stop after so many epochs without a better held-out cross entropy")
    train_batch: int = Field(16, ge=2, description="training batch size")
    learning_rate: float = Field(2e-3, gt=0, description="of Adam")


class TesterOptions(TesterSchedule):
    """The classifier that is trained on masked images, and how."""

    tester: str = Field(
        "tiny",
        pattern=r"^(tiny|timm:.+)$",
        description="tiny = three convolutions; timm:<name> = a classifier of timm, from scratch (the paper: "
        "timm:resnet18)",
    )
    seeds: int = Field(1, ge=1, description="testers trained, each from its own seed; publish 3 or more")


class KeepAccuracyOptions(TesterOptions, FilledAccuracyOptions):
    """Options of `keep_accuracy`."""


class MaskOnlyAccuracyOptions(TesterOptions, AccuracyOptions):
    """Options of `mask_only_accuracy`."""
