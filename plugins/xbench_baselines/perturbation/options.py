"""Options of the explainers that change the image and observe the score."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options


class OcclusionOptions(Options):
    """Options of `occlusion`."""

    window: int | None = Field(
        None,
        ge=1,
        description="side of the occluding square, in pixels; none = square root of the image's shorter side "
        "(8 for 64 pixels, 15 for 224)",
    )
    stride: int | None = Field(None, ge=1, description="pixels between two windows; none = half a window")
    fill: Literal["zero", "mean"] = Field(
        "zero", description="value that fills a window: 0, or the image's mean per channel"
    )


class SuperpixelOptions(Options):
    """Options of every explainer that switches superpixels off."""

    n_segments: int = Field(50, ge=2, description="number of superpixels that SLIC aims at; images get about as many")
    compactness: float = Field(0.1, gt=0, description="weight of position against intensity in SLIC")
    fill: Literal["mean", "zero"] = Field(
        "mean", description="value that fills a superpixel that is off: its own mean per channel, or 0"
    )


class FeatureAblationOptions(SuperpixelOptions):
    """Options of `feature-ablation`."""


class LimeOptions(SuperpixelOptions):
    """Options of `lime`."""

    samples: int = Field(1000, ge=1, description="number of perturbed copies of an image")
    kernel_width: float = Field(0.25, gt=0, description="width of the exponential kernel on the cosine distance")
    alpha: float = Field(1.0, gt=0, description="penalty of the ridge regression")


class KernelShapOptions(SuperpixelOptions):
    """Options of `kernelshap`."""

    samples: int = Field(
        1000, ge=2, description="number of perturbed copies of an image; enough for all coalitions gives exact values"
    )


class RiseOptions(Options):
    """Options of `rise`."""

    masks: int = Field(2000, ge=1, description="number of random masks, which are the same for every image")
    cells: int = Field(7, ge=1, description="number of cells of a mask along each axis")
    probability: float = Field(0.5, gt=0, lt=1, description="probability that a cell is shown")
    centred: bool = Field(
        True, description="whether to subtract the mean score over the masks; false = the paper's equation 6"
    )
