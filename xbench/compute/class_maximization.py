"""Images that maximise a class score of a model. They show the model, not an image, and no metric scores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from xbench.contracts.explainer import undisturbed
from xbench.contracts.model import class_scores, probabilities
from xbench.errors import PluginError
from xbench.runtime.devices import upload
from xbench.runtime.randomness import isolated, normal_field
from xbench.runtime.seeding import derive

if TYPE_CHECKING:
    from xbench.contracts.dataset import DatasetInfo

_NUDGE = 1e-2  # standard deviation of the starting noise where the gradient at zeros is zero


@dataclass(frozen=True)
class ClassImages:
    """The images that `class_maximization` found, one per class.

    Attributes:
        images: float32 (K, C, *spatial). Values may lie outside [0, 1] unless `clamp` was set.
        scores: S_c of the image of class c, float32 (K,).
        probabilities: p_c of that image, float32 (K,).
    """

    images: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray


def class_maximization(
    model: nn.Module,
    info: DatasetInfo,
    steps: int = 200,
    learning_rate: float = 0.05,
    penalty: float = 1e-2,
    seed: int = 0,
    clamp: bool = False,
) -> ClassImages:
    """Find the image of each class: argmax_I S_c(I) - penalty ||I||^2 (Simonyan et al. 2014, equation 1).

    Adam ascends from zeros, with all classes in one batch. A class whose gradient at zeros is zero (because all ReLUs
    are off) starts from faint noise instead. The best image on the way is kept. A linear score w I has its maximum at w
    / (2 penalty).

    Pixel values are free. The result usually lies far outside of [0, 1], and its score far above the score of any real
    image. `clamp` keeps every step in [0, 1].

    Args:
        model: Module from images (N, C, *spatial) to logits (N, K) or (N, 1), on any device. It is not changed.
        info: The dataset, for C, *spatial and the classes.
        steps: Number of steps of Adam.
        learning_rate: Learning rate of Adam.
        penalty: Weight lambda of the squared norm.
        seed: Seed of the noise.
        clamp: Whether to keep pixels in [0, 1].

    Raises:
        PluginError: The model's scores at the start are not one finite number per class.
    """
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    classes = len(info.classes)
    with undisturbed(model), isolated(seed, "class maximization"), torch.enable_grad():
        images = _start(model, (classes, info.channels, *info.spatial), device, seed)
        optimizer = torch.optim.Adam([images], lr=learning_rate)
        best, highest = images.detach().clone(), torch.full((classes,), -torch.inf, device=device)
        for step in range(steps + 1):
            values = _scores(model, images) - penalty * (images**2).flatten(1).sum(1)
            with torch.no_grad():
                better = values > highest
                highest = torch.where(better, values, highest)
                best = torch.where(better.view(-1, *[1] * (images.ndim - 1)), images, best)
            if step == steps:
                break
            images.grad = torch.autograd.grad(-values.sum(), images)[0]
            optimizer.step()
            if clamp:
                images.data.clamp_(0, 1)
        with torch.no_grad():
            logits = model(best)
            parts = best, class_scores(logits).diagonal(), probabilities(logits).diagonal()
    return ClassImages(*(part.float().cpu().numpy() for part in parts))


def _start(model: nn.Module, shape: tuple[int, ...], device: torch.device, seed: int) -> torch.Tensor:
    """Return the start: zeros that require a gradient, or noise for classes whose gradient at zeros is zero."""
    images = torch.zeros(shape, device=device, requires_grad=True)
    scores = _scores(model, images)
    if scores.shape != shape[:1] or not bool(torch.isfinite(scores).all()):
        raise PluginError(f"the model's scores of an image of zeros are not {shape[0]} finite numbers, one per class")
    if not scores.requires_grad:
        raise PluginError("the model's scores do not depend on the image for autograd")
    slope = torch.autograd.grad(scores.sum(), images, allow_unused=True, materialize_grads=True)[0]
    dead = (slope == 0).flatten(1).all(1)
    seeds = upload(torch.tensor([derive(seed, "class maximization", index) for index in range(shape[0])]), device)
    noise = _NUDGE * normal_field(seeds, shape[1:])
    return torch.where(dead.view(-1, *[1] * (len(shape) - 1)), noise, images.detach()).requires_grad_()


def _scores(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return S_c of the image of class c: (K, C, *spatial) -> (K,)."""
    return class_scores(model(images)).diagonal()
