"""How alike two images or two maps are: structural similarity and rank correlation, a batch at a time.

Own code beside `skimage.metrics.structural_similarity` and `scipy.stats.spearmanr`, which compare one pair at a time on
the host, and beside torchmetrics, which takes one data range for a whole batch. Tests hold these functions to
scikit-image and scipy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from xbench.compute.filters import gaussian_blur
from xbench.runtime.devices import widest

_SIGMA, _RADIUS = 1.5, 5  # the 11-pixel window of Wang et al. 2004
_C1, _C2 = 0.01**2, 0.03**2  # K1 and K2 of Wang et al. 2004, squared, for a data range of 1

Means = Callable[[torch.Tensor], torch.Tensor]
"""Images (M, C, *spatial) -> the mean of each window, (M, C, *windows)."""


class SsimTerms(NamedTuple):
    """The parts of the structural similarity of each window.

    Attributes:
        luminance: l(x, y).
        covariance: 2 cov(x, y) + c2, the numerator of the contrast and structure term.
        variance: var(x) + var(y) + c2, its denominator.
    """

    luminance: torch.Tensor
    covariance: torch.Tensor
    variance: torch.Tensor

    @property
    def structure(self) -> torch.Tensor:
        """The contrast and structure term, which the coarser scales of multi-scale SSIM use alone."""
        return self.covariance / self.variance

    @property
    def similarity(self) -> torch.Tensor:
        """SSIM of each window."""
        # Multiplied before it is divided: another order would change the last bit of published scores.
        return self.luminance * self.covariance / self.variance


def ssim_terms(
    x: torch.Tensor, y: torch.Tensor, means: Means, constants: tuple[float, float] = (_C1, _C2)
) -> SsimTerms:
    """Compute the parts of the structural similarity (Wang et al. 2004, eq. 13) of each window.

    Args:
        x: First images, (N, C, *spatial), in [0, 1].
        y: Second images, with the shape of `x`.
        means: Function that averages over each window. All five moments go through it at once.
        constants: The constants c1 and c2.

    Returns:
        The parts, (N, C, *windows) each.
    """
    moments = torch.stack([x, y, x * x, y * y, x * y])
    windows = means(moments.flatten(0, 1))
    mean_x, mean_y, square_x, square_y, product = windows.view(5, len(x), *windows.shape[1:])
    c1, c2 = constants
    variance = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return SsimTerms(luminance, 2 * covariance + c2, variance + c2)


def ssim(first: torch.Tensor, second: torch.Tensor, data_range: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Compute the structural similarity (Wang et al. 2004, eq. 13) with a Gaussian window of 11 pixels, sigma 1.5.

    The mean is over the positions at which the window lies inside the image. Along an axis shorter than the window,
    where there are none, it is over all positions, with the image mirrored at its borders.

    Args:
        first: First images, (N, C, *spatial).
        second: Second images, with the shape of `first`.
        data_range: Range L of all images, or of each, (N,). If it is 0, both images are one constant, and the result
            is 1.

    Returns:
        Mean over channels and positions, in [-1, 1], (N,), as float64 or the widest type that the device has.
    """
    wide = widest(first.device)
    x, y = first.to(wide), second.to(wide)
    span = torch.as_tensor(data_range, dtype=wide, device=x.device).expand(len(x))
    scale = torch.where(span > 0, span, 1.0).view(-1, *[1] * (x.ndim - 1))
    terms = ssim_terms(x / scale, y / scale, lambda images: gaussian_blur(images, _SIGMA, _RADIUS, inside=True))
    return torch.where(span > 0, terms.similarity.flatten(1).mean(1), 1.0)


def dssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute (1 - SSIM) / 2 of images (N, C, *spatial) in [0, 1]: float64 (N,), 0 for equal images."""
    return (1 - ssim(first, second)) / 2


def map_ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute the SSIM of maps (N, *spatial), whose scale means nothing: float64 (N,).

    Each map is divided by its largest absolute value. L is the range of the two together. Its lower end is made 0 in
    both, because the product of two negative means would reverse the sign of the similarity.
    """
    wide = widest(first.device)
    x, y = _scaled(first.to(wide)), _scaled(second.to(wide))
    together = torch.cat([x.flatten(1), y.flatten(1)], 1)
    low = together.amin(1)
    floor = low.view(-1, *[1] * (x.ndim - 1))
    return ssim((x - floor)[:, None], (y - floor)[:, None], together.amax(1) - low)


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    largest = maps.flatten(1).abs().amax(1).view(-1, *[1] * (maps.ndim - 1))
    return maps / torch.where(largest > 0, largest, 1.0)


def map_spearman(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute Spearman's rank correlation of maps (N, *spatial), with average ranks for ties: float64 (N,).

    `xbench.statistics.correlation.spearman` correlates the orders of a few explainers, on the host and without torch.
    This one ranks the pixels of a batch of maps on their device. It also defines what that one leaves NaN: a constant
    map has no order. With a map that has one it correlates 0, as a random order would on average. With another constant
    map it correlates 1, because nothing has changed.
    """
    x, y = (_centred_ranks(maps.flatten(1)) for maps in (first, second))
    spread = x.norm(dim=1) * y.norm(dim=1)
    correlation = (x * y).sum(1) / torch.where(spread > 0, spread, 1.0)
    both_constant = (x == 0).all(1) & (y == 0).all(1)
    return torch.where(both_constant, 1.0, correlation.clamp(-1, 1))


def _centred_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the average ranks of each row minus their mean: (N, P) -> float64 (N, P)."""
    ordered, order = values.sort(dim=1)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    # `first` is the first place of each run of equal values, and `last` is its last place.
    first = torch.where(new, places, 0).cummax(1).values
    ends = torch.cat([new[:, 1:], torch.ones_like(new[:, :1])], 1)
    last = torch.where(ends, places, values.shape[1]).flip(1).cummin(1).values.flip(1)
    ranks = (first + last).to(widest(values.device)) / 2 - (values.shape[1] - 1) / 2
    return torch.empty_like(ranks).scatter_(1, order, ranks)
