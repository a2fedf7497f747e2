"""Activation maximization on the image itself, without a network that keeps it realistic, for comparison."""

from __future__ import annotations

import torch
from torch import nn

from xbench import DatasetInfo, Explainer, undisturbed
from xbench_cyclegan_am.explainer import no_gradient
from xbench_cyclegan_am.losses import log_probabilities
from xbench_cyclegan_am.options import AscentOptions
from xbench_cyclegan_am.relevance import relevance


class ActivationMaximization(Explainer):
    """Gradient ascent from the image (Erhan et al., Visualizing higher-layer features of a deep network, 2009).

    x_k is the image after some ascent steps on log P(k | x) - penalty mean (x_k - x)^2. All steps have the same root
    mean square, and the image is clipped to [0, 1]. R_c = x_c - mean over j != c of x_j, with the same sign as in
    `cyclegan-am`. The method finds what an adversary would find: high probabilities from invisible changes, which do
    not survive blur and mean nothing to another classifier. It is included to show this.
    """

    options: AscentOptions

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for a classifier without a gradient."""
        return no_gradient(model, info)

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return R of the target, or the `variant`: float32 (N, *spatial), signed intensity differences."""
        classes = log_probabilities(model(images[:1])).shape[1]
        changed = [self.transfer(model, images, torch.full_like(targets, k)) for k in range(classes)]
        return relevance(images, changed, targets, self.options.variant)

    def transfer(self, model: nn.Module, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        """Return each image after the ascent toward its class: (N, C, *spatial), in [0, 1]."""
        start = images.detach()
        changed = start.clone()
        with undisturbed(model), torch.enable_grad():
            for _ in range(self.options.steps):
                changed = self._step(model, start, changed, toward)
        return changed

    def _step(self, model: nn.Module, start: torch.Tensor, changed: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        changed = changed.requires_grad_()
        aimed = log_probabilities(model(changed)).gather(1, toward[:, None]).squeeze(1)
        penalty = self.options.penalty * ((changed - start) ** 2).flatten(1).mean(1)
        slope = torch.autograd.grad((aimed - penalty).sum(), changed)[0]
        length = slope.flatten(1).pow(2).mean(1).sqrt().clamp_min(torch.finfo(slope.dtype).tiny)
        step = self.options.step_size * slope / length.view(-1, *[1] * (slope.ndim - 1))
        return (changed + step).detach().clamp(0, 1)
