"""Options of the controls."""

from __future__ import annotations

from xbench import Field, Options


class CentreOptions(Options):
    """Options of `centre`."""

    width: float = Field(0.25, gt=0, description="standard deviation of the Gaussian, as a share of the image's side")


class BlurredOptions(Options):
    """Options of `blurred`."""

    sigma: float = Field(2.0, gt=0, description="standard deviation of the blur, in pixels")
