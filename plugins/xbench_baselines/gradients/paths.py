"""Gradients along paths from a reference to the image: integrated gradients, expected gradients, GradientSHAP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from xbench import Batch, DatasetInfo, Explainer, Session, Split
from xbench.compute.passes import differentiable, gradient_rows, gradients, mean_over_samples
from xbench.runtime.devices import upload
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive
from xbench_baselines.background import Background
from xbench_baselines.gradients.options import (
    ExpectedGradientsOptions,
    GradientShapOptions,
    IntegratedGradientsBWOptions,
    IntegratedGradientsOptions,
)
from xbench_baselines.gradients.smoothing import ImageNoise


class Points(NamedTuple):
    """R points on R straight paths.

    Attributes:
        start: The references x', (R, C, *spatial).
        end: The images x, (R, C, *spatial).
        alpha: Share of the way from x' to x, (R,).
        weight: Weights with mean 1 over the samples of an image, (R,).
    """

    start: torch.Tensor
    end: torch.Tensor
    alpha: torch.Tensor
    weight: torch.Tensor


def path_mean(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    samples: int,
    points: Callable[[torch.Tensor, torch.Tensor], Points],
) -> torch.Tensor:
    """Return the mean of weight (x - x') dS_c/dx at x' + alpha (x - x') over an image's samples, summed over channels.

    Args:
        model: The model, (N, C, *spatial) -> logits.
        images: Images, (N, C, *spatial).
        targets: Classes, int64 (N,).
        samples: Number of points per image.
        points: Function from indices of images, int64 (R,), and numbers of samples, int64 (R,), to the points of these
            rows.

    Returns:
        The maps, (N, *spatial).
    """
    network = differentiable(model, images, len(images) * samples)

    def term(which: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        start, end, alpha, weight = points(which, numbers)
        difference = end - start
        column = (-1, *[1] * (images.ndim - 1))
        found = gradients(network, torch.addcmul(start, difference, alpha.view(column)), targets[which])
        return found.mul_(difference).sum(1).mul_(weight.view(column[:-1]))

    return mean_over_samples(images, samples, term, gradient_rows(model, images))


class _Rule:
    """Nodes and weights of a quadrature on [0, 1]. The weights have mean 1."""

    def __init__(self, name: str, steps: int, like: torch.Tensor) -> None:
        if name == "right":
            alpha, weight = np.arange(1, steps + 1) / steps, np.ones(steps)
        else:
            nodes, weights = np.polynomial.legendre.leggauss(steps)
            alpha, weight = (nodes + 1) / 2, weights / 2 * steps
        self.alpha, self.weight = (
            upload(torch.from_numpy(values).to(like.dtype), like.device) for values in (alpha, weight)
        )


class IntegratedGradients(Explainer):
    """A = sum over channels of (x - x') int_0^1 dS_c/dx(x' + a (x - x')) da (Sundararajan et al. 2017, equation 1).

    As in Brocki et al., section 2, x' is black, and the integral is a right Riemann sum over a = k/m, k = 1..m, m = 25.
    `rule=gauss-legendre` is far closer to the integral with as many passes. Completeness: the map sums to
    S_c(x) - S_c(x'), as exactly as the rule integrates. Pixels equal to the reference get 0.

    Positive = evidence for the target. Brocki et al. "invert the sign" of this method where class 0 is predicted by
    their one output neuron z. Explaining S_c, with S_1 = z and S_0 = -z, does the same.

    This is own code because captum's puts all steps of all images into one pass unless it is given a number of rows,
    and runs the two paths of `IntegratedGradientsBW` one after the other. The maps are equal.
    """

    options: IntegratedGradientsOptions

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        baseline = self._baseline(images)
        rule = _Rule(self.options.rule, self.options.steps, images)

        def points(which: torch.Tensor, numbers: torch.Tensor) -> Points:
            return Points(baseline[which], images[which], rule.alpha[numbers], rule.weight[numbers])

        return path_mean(model, images, targets, self.options.steps, points)

    def _baseline(self, images: torch.Tensor) -> torch.Tensor:
        if self.options.baseline == "mean":
            return images.flatten(2).mean(2).view(*images.shape[:2], *[1] * (images.ndim - 2)).expand_as(images)
        return images.new_full((), float(self.options.baseline == "white")).expand_as(images)


class IntegratedGradientsBW(Explainer):
    """The mean of two `IntegratedGradients`, from black and from white: Brocki et al., section 2, "IG-BW".

    Brocki et al. do not say how to combine the two. The mean follows XRAI's authors (Kapishnikov et al. 2019), whose
    code uses the image's own minimum and maximum instead (`baselines=min-max`). Completeness: the map sums to
    S_c(x) - (S_c(black) + S_c(white)) / 2. Signs are as for `IntegratedGradients`.
    """

    options: IntegratedGradientsBWOptions

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        steps = self.options.steps
        rule, ends = _Rule(self.options.rule, steps, images), self._ends(images)

        def points(which: torch.Tensor, numbers: torch.Tensor) -> Points:
            step = numbers % steps
            start = ends[which, numbers // steps].view(-1, *[1] * (images.ndim - 1)).expand(-1, *images.shape[1:])
            return Points(start, images[which], rule.alpha[step], rule.weight[step])

        return path_mean(model, images, targets, 2 * steps, points)

    def _ends(self, images: torch.Tensor) -> torch.Tensor:
        """Return the values of the two references of each image, (N, 2)."""
        if self.options.baselines == "min-max":
            values = images.flatten(1)
            return torch.stack([values.amin(1), values.amax(1)], 1)
        black, white = images.new_zeros(len(images)), images.new_ones(len(images))
        return torch.stack([black, white], 1)


class ExpectedGradients(Explainer):
    """A = E over x' ~ D and a ~ U(0, 1) of (x - x') dS_c/dx(x' + a (x - x')), summed over channels.

    Erion et al. 2021 (arXiv:1906.10670, equation 3). D is a pool of at most 1000 training images, drawn by `fit`. Each
    image draws its x' and its a by its own seed, and repeats an x' only after the whole pool. Completeness holds in
    expectation: the map sums to about S_c(x) - E S_c(x').

    Positive = evidence for the target. As for `IntegratedGradients`, explaining S_c is what Brocki et al. call the
    inversion of signs.

    This is own code because captum's `GradientShap` (at stdevs=0) draws from numpy's global generator, so that a map
    depends on the batch, and holds all samples in memory.
    """

    options: ExpectedGradientsOptions
    _STREAM = "expected gradients"

    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:  # noqa: ARG002
        """Draw the pool."""
        pool = Background.draw(train, self.options.pool, session)
        session.facts["background images"] = len(pool)

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:  # noqa: ARG002
        """Read the pool."""
        self._pool = Background.load(folder, device)

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        count = self.options.samples
        references = _draws(batch.seeds ^ derive(0, self._STREAM, "references"), count, len(self._pool))
        alpha = uniform_field(batch.seeds ^ derive(0, self._STREAM, "alpha"), (count,)).to(batch.images)
        end = self._end(batch)

        def points(which: torch.Tensor, numbers: torch.Tensor) -> Points:
            share = alpha[which, numbers]
            return Points(self._pool[references[which, numbers]], end(which, numbers), share, torch.ones_like(share))

        return path_mean(model, batch.images, targets, count, points)

    def _end(self, batch: Batch) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the ends of the paths: indices of images (R,), numbers of samples (R,) -> (R, C, *spatial)."""
        return lambda which, _: batch.images[which]


class GradientShap(ExpectedGradients):
    """`ExpectedGradients` with normal noise on the image: A = E of (x + e - x') dS_c/dx(x' + a (x + e - x')).

    This approximation of SHAP values (Lundberg & Lee 2017) is called `GradientExplainer` in shap and `GradientShap` in
    captum, whose definition it follows. The noise depends on the image's range, sigma (max x - min x), as for
    SmoothGrad. Neither paper gives a strength. With sigma = 0, it is expected gradients. Signs are the same too.
    """

    options: GradientShapOptions
    _STREAM = "gradient shap"

    def _end(self, batch: Batch) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        noise = ImageNoise(batch, self.options.samples, self.options.sigma, self._STREAM)
        return lambda which, numbers: noise.on(batch.images[which], which, numbers)


def _draws(seeds: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """Draw `count` of `size` numbers for each seed, none twice before all have been drawn: int64 (N, count)."""
    rounds = -(-count // size)
    order = uniform_field(seeds, (rounds, size)).argsort(dim=2, stable=True)
    return order.flatten(1)[:, :count]
