"""The gradient of the class score by the image, and the gradient times the image."""

from __future__ import annotations

import torch
from torch import nn

from xbench import DatasetInfo, Explainer, undisturbed
from xbench.compute.gate import probe
from xbench.compute.passes import differentiable, gradients
from xbench_baselines.gradients.options import GradientOptions


class Gradient(Explainer):
    """A = sum over channels of dS_c/dx, signed (Simonyan et al. 2014; Brocki et al., section 2, "Backpropagation").

    S_c is the score of the target before softmax or sigmoid. For one output neuron z, S_1 = z and S_0 = -z, so the maps
    of the two classes are each other's negative. With `score=neuron`, both are dz/dx, as in Brocki et al., who inverted
    the sign only for integrated and expected gradients.

    This is own code because captum's `Saliency` explains z for both classes of one neuron, and returns absolute values
    by default.
    """

    options: GradientOptions

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial), zero for a model that does not read its input."""
        return self._gradients(differentiable(model, images, len(images)), images, targets).sum(1)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for `score=neuron` with a model of several output neurons."""
        return several_neurons(model, info) if self._neuron else None

    def explained(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the class whose score is differentiated: `targets`, or 1 with `score=neuron` (S_1 = z)."""
        return torch.ones_like(targets) if self._neuron else targets

    def _gradients(self, network: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the gradients, (N, C, *spatial)."""
        return gradients(network, images, self.explained(targets))

    @property
    def _neuron(self) -> bool:
        return self.options.score == "neuron"


class InputTimesGradient(Gradient):
    """A = sum over channels of x dS_c/dx (Shrikumar et al. 2016, arXiv:1605.01713, section 2).

    Signs are as for the gradient. In a ReLU network without biases, the map sums to S_c and equals LRP's z-rule.
    """

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        return (images * self._gradients(differentiable(model, images, len(images)), images, targets)).sum(1)


def several_neurons(model: nn.Module, info: DatasetInfo) -> str | None:
    """Return why `score=neuron` does not fit the model, or None for a model with one output neuron."""
    with undisturbed(model), torch.no_grad():
        count = model(probe(info, model, count=1)).shape[1]
    return None if count == 1 else f"score=neuron is for models with one output neuron, and this one has {count}"
