"""Options of the metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from xbench import Field, Options, Schedule


class FidelityOptions(Options):
    """Options of `fidelity`."""

    step: float = Field(
        0.025, gt=0, le=0.5, description="share of the pixels removed from one point to the next; divides 1"
    )
    removal: Literal["auto", "opposite", "zero", "mean", "blur", "noise"] = Field(
        "auto",
        description="what replaces a removed pixel: opposite = the intensity that the dataset declares for the image's "
        "class; zero; mean = of the training split, per channel; blur = the image blurred; noise = U(0, 1); "
        "auto = opposite where the dataset declares it, else mean",
    )
    score: Literal["accuracy", "probability", "logit"] = Field(
        "accuracy",
        description="what is followed: accuracy against the true label (the paper's), or the probability or the score "
        "S_c of the class that the map explains",
    )
    curve: Literal["difference", "mif", "lif"] = Field(
        "difference",
        description="difference = area(LiF) - area(MiF); mif = how far MiF falls below the whole image; lif = how far "
        "LiF stays above the wholly removed one",
    )
    blur_sigma: float = Field(10.0, gt=0, description="standard deviation of the blur of removal=blur, in pixels")

    @field_validator("step")
    @classmethod
    def _divides_one(cls, step: float) -> float:
        if abs(round(1 / step) * step - 1) > 1e-9:
            raise ValueError(f"must divide 1; the nearest that does is {1 / round(1 / step):.6g}")
        return step

    @property
    def steps(self) -> int:
        """K: how many steps lead from the whole image to the wholly removed one."""
        return round(1 / self.step)


class RocAucOptions(Options):
    """Options of `roc_auc`."""

    protocol: Literal["exact", "trapezoid", "heights"] = Field(
        "exact",
        description="exact = mean over images of the area under each one's curve; trapezoid = area under the curve "
        "averaged over images at 201 thresholds of rank; heights = mean height of that curve, the paper's",
    )


class PointingGameOptions(Options):
    """Options of `pointing_game`."""

    tolerance: int = Field(0, ge=0, description="a hit may be so many pixels away from the mask")


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


class KeepAccuracyOptions(TesterOptions, FilledAccuracyOptions):
    """Options of `keep_accuracy`."""


class MaskOnlyAccuracyOptions(TesterOptions, AccuracyOptions):
    """Options of `mask_only_accuracy`."""
