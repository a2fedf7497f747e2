"""Options of DeepLIFT and DeepSHAP."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options


class DeepLiftOptions(Options):
    """Options of `deeplift`."""

    baseline: Literal["black", "white", "mean"] = Field(
        "black", description="baseline to compare the image with: black, white, or each channel's mean over the image"
    )


class DeepShapOptions(Options):
    """Options of `deepshap`."""

    background: int = Field(100, ge=1, description="number of random training images to compare each image with")
