"""Class activation maps: the last feature maps of a network, each weighted by its effect on the class score.

f_k is a feature map of h x w positions (or d x h x w). S_c is the score of the target before softmax or sigmoid: for
one output neuron, S_1 = z and S_0 = -z. g is dS_c/df. The map is made at the size of f and enlarged to the image
bilinearly (trilinearly) without aligned corners, as in the papers. It costs one forward pass, and a backward pass that
ends at f.

This is own code because captum's `LayerGradCam` needs the name of a module, leaves out the ReLU of the formula by
default, and enlarges by the nearest neighbour by default. pytorch-grad-cam computes in numpy and stretches every map to
[0, 1], so that the maps of two images can't be compared.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from xbench import DatasetInfo, Explainer, class_scores, undisturbed
from xbench.compute.gate import MAXIMA, operations_behind, probe, unanswered
from xbench.compute.passes import differentiable
from xbench_baselines.cams.features import FeatureMap, FeatureMapError, Observer, Structure, unreadable
from xbench_baselines.cams.options import CamOptions, GradCamOptions, LayerOptions
from xbench_baselines.gradients.backpropagation import GuidedBackpropagation
from xbench_baselines.gradients.options import BackpropagationOptions

_TOLERANCE = 1e-4
_NOISE = 1e-6  # a sum below this share of its terms is rounding
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class ActivationMap(Explainer):
    """Base of the family. Subclasses define how features and gradients are combined."""

    options: LayerOptions
    pooled: ClassVar[bool] = False

    def __init__(self, options: LayerOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self._observer = Observer(options.layer)

    @abstractmethod
    def combined(self, features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the maps at the size of the features: f and dS_c/df, each (N, K, *sides) -> (N, *sides)."""

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        # The copy has the same feature maps, except at a named layer: there, a convolution may contain its batch norm.
        network = model if self.options.layer else differentiable(model, images, len(images))
        head = self._head(network, images, targets)
        coarse = self.combined(head.features.detach(), head.gradients)
        return enlarged(coarse, images.shape[2:])

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for models where no feature map carries the whole score, or attention follows it."""
        images = probe(info, model)
        targets = torch.arange(len(images), device=images.device) % 2
        with undisturbed(model):
            refused = unreadable(model, images, lambda: self._head(model, images, targets).logits)
            return refused or self._refusal(self._head(model, images, targets))

    def _refusal(self, head: Head) -> str | None:  # noqa: ARG002
        """Return why a model that has feature maps can't be explained, or None."""
        return None

    def _head(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> Head:
        with torch.enable_grad():
            logits, (features,) = self._observer.run(model, images, self._chosen, _from_here)
            scores = class_scores(logits).gather(1, targets[:, None])
            if not scores.requires_grad:
                raise FeatureMapError("its logits do not depend on the feature map")
            gradients = torch.autograd.grad(scores.sum(), features, allow_unused=True, materialize_grads=True)[0]
        return Head(logits, features, gradients)

    def _chosen(self, structure: Structure) -> list[FeatureMap]:
        return [structure.feature(self.pooled)]


@dataclass(frozen=True)
class Head:
    """The part of the model that follows a feature map, for one batch.

    Attributes:
        logits: Logits (N, K), with autograd's graph from the features on.
        features: The feature map f, (N, K, *sides).
        gradients: Its gradient dS_c/df, (N, K, *sides).
    """

    logits: torch.Tensor
    features: torch.Tensor
    gradients: torch.Tensor


class Cam(ActivationMap):
    """M = sum_k w_k f_k, where S_c = sum_k w_k mean(f_k) + b_c (Zhou et al. 2016, equation 2). Signed.

    This map exists only for a network whose head is global average pooling followed by linear layers, where
    mean(M) + b_c = S_c. With global max pooling instead (Oquab et al. 2015), S_c = sum_k w_k max(f_k) + b_c, and the
    map is the same. In both cases, w_k is the sum of g_k over the positions, so the weights need not be looked up in
    the head. With `relu=true`, the map is max(M, 0).
    """

    options: CamOptions
    pooled = True

    def __init__(self, options: CamOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.signed = not options.relu

    def combined(self, features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the maps of features and gradients: (N, K, *sides) each -> (N, *sides)."""
        combined = _weighted(features, _summed(gradients))
        return combined.relu() if self.options.relu else combined

    def _chosen(self, structure: Structure) -> list[FeatureMap]:
        (feature,) = super()._chosen(structure)
        if not feature.essential:
            raise FeatureMapError("there are paths to its logits beside this feature map")
        return [feature]

    def _refusal(self, head: Head) -> str | None:
        return _not_linear_in_pooled(head)


class GradCam(ActivationMap):
    """M = max(sum_k alpha_k f_k, 0), alpha_k = mean of g_k over the positions (Selvaraju et al. 2017, equations 1, 2).

    The review of Huff et al. leaves out the mean. The map is not signed. With `relu=false` it is the sum itself, which
    is signed. For global average pooling and a linear head, that is CAM divided by the number of positions.
    """

    options: GradCamOptions

    def __init__(self, options: GradCamOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.signed = not options.relu

    def combined(self, features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the maps of features and gradients: (N, K, *sides) each -> (N, *sides)."""
        combined = _weighted(features, gradients.flatten(2).mean(2))
        return combined.relu() if self.options.relu else combined


class GradCamPlusPlus(ActivationMap):
    """M = max(sum_k w_k f_k, 0), w_k = sum over positions of a max(g, 0) (Chattopadhay et al. 2018, equations 5, 19).

    a = g^2 / (2 g^2 + F_k g^3), where F_k is the sum of f_k. The paper differentiates exp(S_c). The resulting factor is
    the same for all positions of an image and is left out. Only positions with g > 0 count, and there
    a max(g, 0) = g / (2 + F_k g). This form needs no epsilon. (Other implementations add 1e-6 to a denominator of the
    order of g^2. In many networks the denominator is smaller than 1e-6, so they effectively use another formula.) Where
    features are negative, 2 + F_k g may not be positive. The weight is 0 there. The map is not signed.
    """

    signed = False

    def combined(self, features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the maps of features and gradients: (N, K, *sides) each -> (N, *sides)."""
        positive = gradients.relu()
        total = _summed(features).view(*features.shape[:2], *[1] * (features.ndim - 2))
        denominator = 2 + total * positive
        weights = torch.where(denominator > _NOISE, positive / denominator, 0)
        return _weighted(features, _summed(weights)).relu()


class RespondCam(ActivationMap):
    """M = sum_k w_k f_k, w_k = sum(g_k f_k) / sum(f_k) over positions (Zhao et al. 2018). Signed.

    Where S_c is linear in f, M sums to S_c - b_c over the positions ("sum to score"). The weight of a channel whose sum
    vanishes is not defined, and is set to 0. The weights are those of XGrad-CAM.
    """

    def combined(self, features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the maps of features and gradients: (N, K, *sides) each -> (N, *sides)."""
        total = _summed(features)
        usable = total.abs() > _NOISE * _summed(features.abs())
        weights = _summed(features * gradients) / total.where(usable, torch.ones_like(total))
        return _weighted(features, weights.where(usable, torch.zeros_like(total)))


class LayerCam(ActivationMap):
    """M = max(sum_k max(g_k, 0) f_k, 0), position by position (Jiang et al. 2021). Not signed."""

    signed = False

    def combined(self, features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the maps of features and gradients: (N, K, *sides) each -> (N, *sides)."""
        return (gradients.relu() * features).sum(1).relu()


class GuidedGradCam(Explainer):
    """Enlarged Grad-CAM times guided backpropagation, pixel by pixel (Selvaraju et al. 2017).

    The map is zero wherever Grad-CAM is zero. Elsewhere its sign is that of guided backpropagation, summed over
    channels. This is own code because captum's version enlarges by the nearest neighbour by default, and its guided
    backpropagation misses functional ReLUs.
    """

    options: LayerOptions

    def __init__(self, options: LayerOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self._coarse = GradCam(GradCamOptions(layer=options.layer))
        self._guided = GuidedBackpropagation(BackpropagationOptions())

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        coarse = self._coarse.attribute(model, images, targets)
        return coarse * self._guided.attribute(model, images, targets)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return the reason of Grad-CAM or of guided backpropagation, if one of them can't explain the model."""
        return self._coarse.supports(model, info) or self._guided.supports(model, info)


def enlarged(maps: torch.Tensor, spatial: tuple[int, ...]) -> torch.Tensor:
    """Return maps at the size of the image, linear between the centres of positions: (N, *sides) -> (N, *spatial)."""
    return F.interpolate(maps[:, None], tuple(spatial), mode=_MODES[len(spatial)], align_corners=False).squeeze(1)


def _from_here(_: FeatureMap, values: torch.Tensor) -> torch.Tensor:
    """Let autograd's graph start at the feature map, so that nothing before it is recorded."""
    return values.requires_grad_()


def _summed(values: torch.Tensor) -> torch.Tensor:
    """Return the sums over the positions: (N, K, *sides) -> (N, K)."""
    return values.flatten(2).sum(2)


def _weighted(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted sums over channels: (N, K, *sides), (N, K) -> (N, *sides)."""
    return torch.einsum("nk...,nk->n...", features, weights)


def _not_linear_in_pooled(head: Head) -> str | None:
    """Return why S_c is neither sum_k w_k mean(f_k) + b_c nor sum_k w_k max(f_k) + b_c, or None if it is one of them.

    Where only linear operations follow f, S_c = <g, f> + b_c. This is the form with means if g is constant over the
    positions. Where only linear operations and maxima follow f, it is the form with maxima if g is zero everywhere but
    where f_k is largest.
    """
    behind = operations_behind(head.logits)
    left = unanswered(behind, MAXIMA)
    if left:
        return f"its head is not linear in the pooled feature maps: {', '.join(dict.fromkeys(left))}"
    features, gradients = head.features.detach().flatten(2), head.gradients.flatten(2)
    if MAXIMA & set(behind):
        elsewhere = gradients[features < features.amax(2, keepdim=True)]
        return "it pools neither by the global average nor by the global maximum" if elsewhere.any() else None
    spread = (gradients - gradients.mean(2, keepdim=True)).abs().max()
    constant = spread <= _TOLERANCE * gradients.abs().max()
    return None if constant else "its head weighs every position by itself: no global average pooling"
