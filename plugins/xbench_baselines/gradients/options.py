"""Options of the gradient family; the defaults are those of Brocki et al., section 2, where they give one."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options


class GradientOptions(Options):
    """Options of `gradient` and `input-x-gradient`, and of whatever else starts from the score of the target."""

    score: Literal["class", "neuron"] = Field(
        "class", description="class: S_c; neuron: the one output neuron z for both classes, as Brocki et al. left it"
    )


class BackpropagationOptions(GradientOptions):
    """Options of `deconvolution` and `guided-backpropagation`."""


class NoiseOptions(Options):
    """Options of `smoothgrad-squared` and `vargrad`, where the sign of the score doesn't matter."""

    samples: int = Field(15, ge=1, description="noisy copies of each image (n)")
    sigma: float = Field(0.15, ge=0, description="standard deviation of the noise, as a share of the image's range")


class SmoothGradOptions(NoiseOptions, GradientOptions):
    """Options of `smoothgrad`."""


class IntegratedGradientsOptions(Options):
    """Options of `integrated-gradients`."""

    steps: int = Field(25, ge=1, description="points on the path from the baseline to the image (m)")
    rule: Literal["right", "gauss-legendre"] = Field(
        "right", description="right: Riemann sum over k/m, k = 1..m; gauss-legendre: a closer integral, same passes"
    )
    baseline: Literal["black", "white", "mean"] = Field(
        "black", description="0, 1, or the mean of each channel of the image itself"
    )


class IntegratedGradientsBWOptions(Options):
    """Options of `integrated-gradients-bw`."""

    steps: int = Field(25, ge=1, description="points on each of the two paths (m)")
    rule: Literal["right", "gauss-legendre"] = Field("right", description="as for integrated-gradients")
    baselines: Literal["black-white", "min-max"] = Field(
        "black-white", description="0 and 1, or the darkest and the brightest value of the image itself"
    )


class ExpectedGradientsOptions(Options):
    """Options of `expected-gradients`."""

    samples: int = Field(200, ge=1, description="pairs of a training image and a point on the path to it")
    pool: int = Field(1000, ge=1, description="most training images to draw from")


class GradientShapOptions(ExpectedGradientsOptions):
    """Options of `gradient-shap`."""

    sigma: float = Field(0.15, ge=0, description="standard deviation of the noise, as a share of the image's range")


class IterativeSaliencyOptions(Options):
    """Options of `iterative-saliency`."""

    abnormal: int = Field(1, ge=0, description="index of the abnormal class: inpainting ends when it isn't predicted")
    iterations: int = Field(20, ge=1, le=20, description="most maps to add up (T)")
    gamma: float = Field(0.9, gt=0, le=1, description="weight of each map relative to the one before")
    share: float = Field(0.01, gt=0, lt=1, description="share of the pixels, the most salient, to inpaint each time")
    dilation: int = Field(2, ge=0, description="pixels by which they are widened first")
