"""Images that are manipulated to change a gradient map without changing the prediction."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from xbench import Batch, class_scores
from xbench.compute.gate import undisturbed
from xbench.compute.operations import Operation, Rules
from xbench.compute.passes import gradient_rows
from xbench.runtime.devices import widest
from xbench_metrics.ranking import rank

_GRAPHS = 2  # a second derivative keeps about this many times the memory of a first one


def top_pixels(maps: torch.Tensor, seeds: torch.Tensor, share: float) -> torch.Tensor:
    """Return which pixels are in a map's top-k: (N, *spatial) -> bool (N, P). The sample's seed breaks ties."""
    flat = maps.flatten(1).float()
    k = max(1, round(share * flat.shape[1]))
    return rank(flat, seeds)[0] < k


class Attack:
    """The iterative top-k attack on the gradient map (Ghorbani et al. 2019, algorithm 1).

    Args:
        model: The classifier.
        epsilon: Largest change of a pixel.
        step_size: Size of one sign step.
        steps: Number of sign steps.
        top: Share of the pixels in the top-k.
        beta: Sharpness of the softplus that replaces ReLU.
    """

    def __init__(self, model: nn.Module, epsilon: float, step_size: float, steps: int, top: float, beta: float) -> None:
        self._model, self._epsilon, self._step_size, self._steps = model, epsilon, step_size, steps
        self._top, self._beta = top, beta

    def rows(self, images: torch.Tensor) -> int:
        """Return how many images like `images` to attack at a time, the same for every batch size of the session."""
        return max(1, gradient_rows(self._model, images) // _GRAPHS)

    def __call__(self, batch: Batch, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attack images.

        Args:
            batch: N images, on the model's device.
            targets: The class whose gradient is attacked, int64 (N,).

        Returns:
            The images, (N, C, *spatial), and the share of the gradient map's top-k that stays, (N,), float64 or the
            widest type of the device. An image is unchanged if no step keeps the prediction and displaces a pixel.
        """
        original = batch.images
        with undisturbed(self._model):
            maps, predicted = self._plain(original, targets)
            top = top_pixels(maps, batch.seeds, self._top)
            wide, apiece = widest(original.device), (-1, *[1] * (original.ndim - 1))
            best, least = original.clone(), torch.ones(len(batch), dtype=wide, device=original.device)
            moved = original
            for _ in range(self._steps):
                moved = self._step(original, moved, targets, top)
                maps, now = self._plain(moved, targets)
                share = (top & top_pixels(maps, batch.seeds, self._top)).sum(1).to(wide) / top.sum(1)
                better = (now == predicted) & (share < least)
                # Indexing with `better` would make the host wait for the device, so use `where`.
                best, least = torch.where(better.view(apiece), moved, best), torch.where(better, share, least)
        return best, least

    def _plain(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradient map |dS_c/dx|, summed over channels, and the predicted class."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            scores = class_scores(self._model(images))
            maps = _saliency(scores, images, targets, again=False)
        return maps.detach(), scores.detach().argmax(1)

    def _step(
        self, original: torch.Tensor, moved: torch.Tensor, targets: torch.Tensor, top: torch.Tensor
    ) -> torch.Tensor:
        """Return the images after a sign step that moves the gradient's mass away from the pixels `top`."""
        with torch.enable_grad():
            moved = moved.detach().requires_grad_()
            with Rules({"relu": self._softplus}):
                scores = class_scores(self._model(moved))
            maps = _saliency(scores, moved, targets, again=True).flatten(1)
            mass = (maps * top).sum(1) / maps.sum(1).clamp_min(torch.finfo(maps.dtype).tiny)
            direction = _gradient(mass.sum(), moved)
        moved = moved.detach() - self._step_size * direction.sign()
        return moved.clamp(original - self._epsilon, original + self._epsilon).clamp(0, 1)

    def _softplus(self, operation: Operation) -> torch.Tensor:
        return F.softplus(operation.input, beta=self._beta)


def _saliency(scores: torch.Tensor, images: torch.Tensor, targets: torch.Tensor, again: bool) -> torch.Tensor:
    """Return the sum over channels of |dS_c/dx|, (N, *spatial), differentiable if `again` is true."""
    return _gradient(scores.gather(1, targets[:, None]).sum(), images, again).abs().sum(1)


def _gradient(value: torch.Tensor, images: torch.Tensor, again: bool = False) -> torch.Tensor:
    """Return the derivative of a value by the images, zero where the value does not depend on them."""
    if not value.requires_grad:
        return torch.zeros_like(images)
    return torch.autograd.grad(value, images, create_graph=again, allow_unused=True, materialize_grads=True)[0]
