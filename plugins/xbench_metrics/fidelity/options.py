"""Options of fidelity."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from xbench import Field, Options


class FidelityOptions(Options):
    """Options of `fidelity`."""

    step: float = Field(0.025, gt=0, le=0.5, description="share of the pixels removed at each step; must divide 1")
    removal: Literal["auto", "opposite", "zero", "mean", "blur", "noise"] = Field(
        "auto",
        description="value that replaces a removed pixel: opposite = the intensity that the dataset declares for the "
        "image's class; zero; mean = mean of the training split per channel; blur = the blurred image; noise = "
        "U(0, 1); auto = opposite if the dataset declares it, else mean",
    )
    score: Literal["accuracy", "probability", "logit"] = Field(
        "accuracy",
        description="height of the curves: accuracy against the true label (as in the paper), or the probability or "
        "score (logit) S_c of the class that the map explains",
    )
    curve: Literal["difference", "mif", "lif"] = Field(
        "difference",
        description="difference = area(LiF) - area(MiF); mif = how far MiF falls below the whole image; lif = how far "
        "LiF stays above the image with all pixels removed",
    )
    blur_sigma: float = Field(10.0, gt=0, description="standard deviation of the blur of removal=blur, in pixels")

    @field_validator("step")
    @classmethod
    def _divides_one(cls, step: float) -> float:
        if abs(round(1 / step) * step - 1) > 1e-9:
            raise ValueError(f"must divide 1; the nearest step that does is {1 / round(1 / step):.6g}")
        return step

    @property
    def steps(self) -> int:
        """K, the number of steps from the whole image to the image with all pixels removed."""
        return round(1 / self.step)
