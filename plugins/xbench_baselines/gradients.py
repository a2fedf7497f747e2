"""The plain gradient."""

from __future__ import annotations

import torch
from torch import nn

from xbench import Explainer, class_scores


class Gradient(Explainer):
    """dS_c/dx, signed, summed over channels (Brocki et al., section 2, "Backpropagation").

    S_c is the class's score before softmax or sigmoid; for one output neuron S_1 = z and S_0 = -z.
    """

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(N, *spatial); zero for a model that does not look at its input."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            score = class_scores(model(images)).gather(1, targets[:, None]).sum()
            if not score.requires_grad:
                return torch.zeros_like(images).sum(1)
            gradient = torch.autograd.grad(score, images, allow_unused=True, materialize_grads=True)[0]
        return gradient.sum(1)
