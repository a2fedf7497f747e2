"""Options of layer-wise relevance propagation and Deep Taylor decomposition."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options

_BIAS = "whether biases take their part of the relevance, as in the papers' formulas; false conserves the sum"


class LrpEpsilonOptions(Options):
    """Options of `lrp-epsilon`."""

    epsilon: float = Field(1e-7, gt=0, description="number added to the denominators, with their sign")
    bias: bool = Field(True, description=_BIAS)


class LrpGammaOptions(Options):
    """Options of `lrp-gamma`."""

    gamma: float = Field(0.25, ge=0, description="how much contributions of the output's own sign are strengthened")
    bias: bool = Field(True, description=_BIAS)


class LrpAlphaBetaOptions(Options):
    """Options of `lrp-alpha-beta`."""

    alpha: float = Field(
        2.0, ge=1, description="weight of contributions for an output; those against it have beta = alpha - 1"
    )
    bias: bool = Field(True, description=_BIAS)


class LrpGammaBoxOptions(Options):
    """Options of `lrp-gamma-box`."""

    gamma: float = Field(0.25, ge=0, description="gamma of all convolutions but the first")
    epsilon: float = Field(1e-6, gt=0, description="epsilon of dense layers")
    bias: bool = Field(True, description=_BIAS)


class LrpPresetOptions(Options):
    """Options of the presets A and B."""

    epsilon: float = Field(0.1, gt=0, description="epsilon of dense layers")
    bias: bool = Field(True, description=_BIAS)


class DeepTaylorOptions(Options):
    """Options of `deep-taylor`."""

    first: Literal["box", "w-square"] = Field(
        "box", description="rule of the first layer: box = z^B, for pixels in [0, 1]; w-square = for unbounded pixels"
    )
