"""Options of the gradient family. Defaults are those of Brocki et al., section 2, where the paper gives them."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options


class GradientOptions(Options):
    """Options of `gradient`, `input-x-gradient` and the others that start from the score of the target."""

    score: Literal["class", "neuron"] = Field(
        "class", description="score to explain: class = S_c; neuron = the one output neuron z for both classes"
    )


class BackpropagationOptions(GradientOptions):
    """Options of `deconvolution` and `guided-backpropagation`."""


class NoiseOptions(Options):
    """Options of `smoothgrad-squared` and `vargrad`, which do not depend on the sign of the score."""

    samples: int = Field(15, ge=1, description="number of noisy copies of each image (n)")
    sigma: float = Field(0.15, ge=0, description="standard deviation of the noise, as a share of the image's range")


class SmoothGradOptions(NoiseOptions, GradientOptions):
    """Options of `smoothgrad`."""


class IntegratedGradientsOptions(Options):
    """Options of `integrated-gradients`."""

    steps: int = Field(25, ge=1, description="number of points on the path from the baseline to the image (m)")
    rule: Literal["right", "gauss-legendre"] = Field(
        "right", description="right = Riemann sum over k/m, k = 1..m; gauss-legendre = more exact with as many passes"
    )
    baseline: Literal["black", "white", "mean"] = Field(
        "black", description="reference image: 0, 1, or the image's own mean per channel"
    )


class IntegratedGradientsBWOptions(Options):
    """Options of `integrated-gradients-bw`."""

    steps: int = Field(25, ge=1, description="number of points on each of the two paths (m)")
    rule: Literal["right", "gauss-legendre"] = Field("right", description="rule, as for integrated-gradients")
    baselines: Literal["black-white", "min-max"] = Field(
        "black-white", description="reference images: 0 and 1, or the image's own darkest and brightest value"
    )


class ExpectedGradientsOptions(Options):
    """Options of `expected-gradients`."""

    samples: int = Field(200, ge=1, description="number of pairs of a training image and a point on its path")
    pool: int = Field(1000, ge=1, description="largest number of training images to draw from")


class GradientShapOptions(ExpectedGradientsOptions):
    """Options of `gradient-shap`."""

    sigma: float = Field(0.15, ge=0, description="standard deviation of the noise, as a share of the image's range")


class IterativeSaliencyOptions(Options):
    """Options of `iterative-saliency`."""

    abnormal: int = Field(1, ge=0, description="index of the abnormal class: inpainting ends when it isn't predicted")
    iterations: int = Field(20, ge=1, le=20, description="maximum number of maps to add up (T)")
    gamma: float = Field(0.9, gt=0, le=1, description="weight of each map relative to the one before")
    share: float = Field(0.01, gt=0, lt=1, description="share of most salient pixels to inpaint in each iteration")
    dilation: int = Field(2, ge=0, description="number of pixels by which the inpainted regions are widened")
