"""Layer-wise relevance propagation and Deep Taylor decomposition.

This is own code that works on the operations that a model calls. captum's LRP raises on `nn.Flatten` and `nn.Identity`,
and so on every timm network. zennit's hooks need a canonizer for each residual architecture. Without one, each addition
doubles the relevance, which gives 256 times the start on a ResNet-18. The hooks also do not see functional calls, and
they compute each layer anew. On networks that zennit handles, this code agrees with it to 1e-5.

All methods here share these conventions:

- Relevance starts as S_c at the target's score and as 0 elsewhere. Positive relevance is evidence for the target.
- A batch norm right behind a convolution or dense layer is merged into it. Elsewhere it is a diagonal map.
- Elementwise activations pass relevance on as it is. Max pooling passes it to the largest value. Averages are linear
  layers.
- A sum of two activations splits relevance in proportion to them (zennit's `Norm`).
- In a product, the signal takes all relevance and the gate none (Arras et al. 2017), as in squeeze-and-excitation.
- Input normalisation is part of the model and passes relevance on as it is. So the relevance of a pixel is that of the
  normalised pixel.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar

import torch
from torch import nn

from xbench import DatasetInfo, Explainer, class_scores, undisturbed
from xbench.compute.gate import MAXIMA, deviation, probe, refusal
from xbench.compute.passes import differentiable
from xbench_baselines.relevance.flow import Composite, Flow, relevance
from xbench_baselines.relevance.options import (
    DeepTaylorOptions,
    LrpAlphaBetaOptions,
    LrpEpsilonOptions,
    LrpGammaBoxOptions,
    LrpGammaOptions,
    LrpPresetOptions,
)
from xbench_baselines.relevance.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, RelevanceRule, WSquare
from xbench_baselines.relevance.steps import STEPS, Ledger

_CONSERVED = 0.01
_Z_PLUS = AlphaBeta(alpha=1.0, beta=0.0, bias=False)


class _Relevance(Explainer):
    """Relevance of the pixels, (N, *spatial), summed over channels.

    Attributes:
        reaching: Least share of the start that must reach the pixels. LRP sets none, because biases may take any share.
    """

    reaching: ClassVar[float] = -math.inf

    def composite(self) -> Composite:
        """Return the rule for each kind of operation."""
        raise NotImplementedError

    def start(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the relevance at the output, from the scores of the targets: (N,) -> (N,)."""
        return scores

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        # In the copy, batch norms are folded into the layers before them. The rules would merge them in any case.
        network = differentiable(model, images, len(images))
        return relevance(network, images, targets, self.composite(), self.start).sum(1)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for operations without a rule, and for models that lose or multiply relevance.

        The test: the relevance of the pixels, plus what biases, stabilisers and closed ReLUs took, must be the start up
        to 1 %.
        """
        images = probe(info, model)
        reason = refusal(model, images, Flow(self.composite()).rules(), (*STEPS, *MAXIMA), self._needed)
        if reason is not None:
            return reason
        with undisturbed(model):
            return self._unbalanced(model, images)

    def _needed(self, operations: Counter[str]) -> str | None:  # noqa: ARG002
        return None

    def _unbalanced(self, model: nn.Module, images: torch.Tensor) -> str | None:
        with torch.no_grad():
            scores = class_scores(model(images))
        # The largest score is the best conditioned. Any start will do, because the rules are linear in the relevance.
        targets = scores.abs().argmax(1)
        ledger = Ledger(images)
        maps = relevance(model, images, targets, self.composite(), torch.ones_like, ledger)
        reached = maps.flatten(1).sum(1)
        error = deviation(reached + ledger.taken, torch.ones_like(ledger.taken))
        if error <= _CONSERVED:
            least = float(reached.min())
            return None if least >= self.reaching else f"only {least:.0%} of the relevance reaches the pixels"
        return f"relevance is not conserved through this model: its sum is off by {error:.2g} of the start"


class LrpEpsilon(_Relevance):
    """LRP with the epsilon rule in every layer (Bach et al. 2015, eq. 58).

    R_i = sum_j a_i w_ij / (z_j + epsilon sign z_j) R_j, z_j = sum_h a_h w_hj + b_j.

    On a ReLU network without gates, this is input x gradient up to epsilon, where the input is the normalised image
    (Ancona et al. 2018). So do not count the two as independent. epsilon = 1e-7 and the use of the bias are those of
    iNNvestigate's `lrp.epsilon`. Without the bias (`bias=false`), the sum is conserved, but denominators near zero can
    drown the map of a deep network in noise. `supports` refuses the model where that happens.

    Cost: one forward pass and one data-gradient of each layer, the same as for the gradient.
    """

    options: LrpEpsilonOptions

    def composite(self) -> Composite:
        """Return the epsilon rule for all operations, batch norms included."""
        rule = Epsilon(self.options.epsilon, self.options.bias)
        batch_norm = rule if self.options.bias else None
        return Composite(rule, rule, batch_norm=batch_norm, stabiliser=self.options.epsilon)


class LrpGamma(_Relevance):
    """LRP with the gamma rule in every layer (Montavon et al. 2019, section 10.2.1; signs as in Andeol et al. 2021).

    R_i = sum_j a_i (w_ij + gamma w_ij+) / (sum_h a_h (w_hj + gamma w_hj+)) R_j.

    Cost: beside the model's own pass, one forward pass and one data-gradient of each layer before a ReLU, and two of
    each other layer.
    """

    options: LrpGammaOptions

    def composite(self) -> Composite:
        """Return the gamma rule for all operations."""
        rule = Gamma(self.options.gamma, self.options.bias)
        return Composite(rule, rule)


class LrpAlphaBeta(_Relevance):
    """LRP with the alpha-beta rule in every layer (Bach et al. 2015, eq. 60); alpha = 2, beta = 1 by default.

    R_i = sum_j (alpha (a_i w_ij)+ / sum_h (a_h w_hj)+ - beta (a_i w_ij)- / sum_h (a_h w_hj)-) R_j, alpha - beta = 1.

    Cost: beside the model's own pass, two forward passes and two data-gradients of each layer, or one of each with
    alpha = 1. Where inputs have both signs, it is twice that.
    """

    options: LrpAlphaBetaOptions

    def composite(self) -> Composite:
        """Return the alpha-beta rule for all operations."""
        rule = AlphaBeta(self.options.alpha, self.options.alpha - 1, self.options.bias)
        return Composite(rule, rule)


class LrpGammaBox(_Relevance):
    """LRP by layer: z^B on the image, gamma on convolutions, epsilon on dense layers (Montavon et al. 2019).

    This is zennit's `EpsilonGammaBox(low=0, high=1)`. The box of the first layer is that of pixels in [0, 1] after the
    model's normalisation. Cost: that of `lrp-gamma`, plus three data-gradients of the first layer.
    """

    options: LrpGammaBoxOptions

    def composite(self) -> Composite:
        """Return the rule of each kind of layer."""
        gamma = Gamma(self.options.gamma, self.options.bias)
        return Composite(gamma, Epsilon(self.options.epsilon, self.options.bias), first=Box())


class LrpPresetA(_Relevance):
    """iNNvestigate's `lrp.sequential_preset_a`: alpha-beta on convolutions, epsilon = 0.1 on dense layers.

    Preset A has alpha = 1 and beta = 0. Preset B has alpha = 2 and beta = 1. The flat variants spread the relevance of
    the first layer evenly over its receptive field (Lapuschkin et al. 2019; Kohlbrenner et al. 2020). Cost: that of
    `lrp-alpha-beta`.
    """

    alpha: ClassVar[float] = 1.0
    first: ClassVar[RelevanceRule | None] = None
    options: LrpPresetOptions

    def composite(self) -> Composite:
        """Return the rule of each kind of layer."""
        convolution = AlphaBeta(self.alpha, self.alpha - 1, self.options.bias)
        return Composite(convolution, Epsilon(self.options.epsilon, self.options.bias), first=self.first)


class LrpPresetB(LrpPresetA):
    """iNNvestigate's `lrp.sequential_preset_b`: preset A with alpha = 2, beta = 1."""

    alpha = 2.0


class LrpPresetAFlat(LrpPresetA):
    """iNNvestigate's `lrp.sequential_preset_a_flat`: preset A with the flat rule on the image."""

    first = Flat()


class LrpPresetBFlat(LrpPresetB):
    """iNNvestigate's `lrp.sequential_preset_b_flat`: preset B with the flat rule on the image."""

    first = Flat()


class _DeepTaylor(_Relevance):
    """Base of both kinds of Deep Taylor, which have no relevance below zero."""

    signed = False

    def start(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the positive part of the score."""
        return scores.clamp(min=0)

    def _needed(self, operations: Counter[str]) -> str | None:
        return None if operations["Relu"] else "it has no ReLU, and Deep Taylor decomposes ReLU networks"


class DeepTaylor(_DeepTaylor):
    """Deep Taylor decomposition (Montavon et al. 2017): z+ in hidden layers, z^B on pixels in [0, 1].

    In hidden layers, R_i = sum_j a_i w_ij+ / (sum_h a_h w_hj+) R_j. In the first layer,
    R_i = sum_j (a_i w_ij - l_i w_ij+ - h_i w_ij-) / (its sum over i) R_j for pixels in [l_i, h_i]. The start is
    max(S_c, 0), and biases take no relevance.

    R >= 0, and its sum is max(S_c, 0). So the map of a negative score is zero. The method is only for ReLU networks,
    because the rules assume their root points. Sums of activations split relevance by positive parts (z+).

    Cost: beside the model's own pass, one forward pass and one data-gradient of each layer.
    """

    reaching = 0.5
    options: DeepTaylorOptions

    def composite(self) -> Composite:
        """Return z+ for all layers but the first, which has its own rule."""
        first = Box() if self.options.first == "box" else WSquare()
        return Composite(_Z_PLUS, _Z_PLUS, first=first, positive=True, activations=False)


class DeepTaylorInnvestigate(_DeepTaylor):
    """iNNvestigate's `deep_taylor` as it treats conv - batch norm - ReLU networks: w^2 in every layer.

    R_i = sum_j w_ij^2 / (sum_h w_hj^2) R_j. iNNvestigate uses its z+ rule only for layers that contain their ReLU, and
    these networks have none. ReLU and pooling pass relevance on like gradients. So the map depends on the image only
    through which ReLUs are open, and relevance that reaches a closed one is lost. The start is max(S_c, 0).

    One thing differs from iNNvestigate. At a sum of two activations it takes the gradient, which doubles the relevance
    at every residual block. Here the sum splits relevance by positive parts, as in `deep-taylor`.

    R >= 0, and its sum is at most max(S_c, 0). Cost: that of `deep-taylor`.
    """

    reaching = 0.0

    def composite(self) -> Composite:
        """Return w^2 for all layers."""
        rule = WSquare()
        return Composite(rule, rule, mean=Flat(), positive=True, masks=True, activations=False)
