"""How alike two images or two maps are: structural similarity and rank correlation, a batch at a time."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from xbench.runtime.devices import upload, widest

_SIGMA, _RADIUS = 1.5, 5  # the 11-pixel window of Wang et al. 2004
_K1, _K2 = 0.01, 0.03


def ssim(first: torch.Tensor, second: torch.Tensor, data_range: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13), with a Gaussian window of 11 pixels, sigma 1.5.

    The mean is over the positions at which the window lies inside the image; along an axis shorter than the window,
    where there are none, over all, with the image mirrored at its borders.

    Args:
        first: (N, C, *spatial).
        second: Of the same shape.
        data_range: L, of all images or of each (N,). Where it is 0, both are one constant: 1.

    Returns:
        float64, or the widest that the device has, (N,), in [-1, 1]: the mean over channels and positions.
    """
    wide = widest(first.device)
    x, y = first.to(wide), second.to(wide)
    span = torch.as_tensor(data_range, dtype=wide, device=x.device).expand(len(x))
    scale = torch.where(span > 0, span, 1.0).view(-1, *[1] * (x.ndim - 1))
    x, y = x / scale, y / scale
    mean_x, mean_y, square_x, square_y, product = _windowed(torch.stack([x, y, x * x, y * y, x * y]))
    variances = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    similarity = (luminance * (2 * covariance + _K2**2) / (variances + _K2**2)).flatten(1).mean(1)
    return torch.where(span > 0, similarity, 1.0)


def dssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(1 - SSIM) / 2 of images (N, C, *spatial) in [0, 1]: float64 (N,), 0 for equal ones."""
    return (1 - ssim(first, second)) / 2


def _windowed(images: torch.Tensor) -> torch.Tensor:
    """Gaussian means of (5, N, C, *spatial) along the spatial axes."""
    for axis in range(3, images.ndim):
        size = images.shape[axis]
        window = gaussian_filter1d(np.eye(size), _SIGMA, axis=0, radius=_RADIUS)
        inside = window[_RADIUS : size - _RADIUS] if size > 2 * _RADIUS else window
        matrix = upload(torch.as_tensor(inside, dtype=images.dtype), images.device)
        images = torch.tensordot(images, matrix, dims=([axis], [1])).movedim(-1, axis)
    return images


def gaussian(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images (N, C, *spatial) blurred along the spatial axes, mirrored at the borders; of the same shape and type."""
    for axis in range(2, images.ndim):
        window = gaussian_filter1d(np.eye(images.shape[axis]), sigma, axis=0)
        matrix = upload(torch.as_tensor(window, dtype=images.dtype), images.device)
        images = torch.tensordot(images, matrix, dims=([axis], [1])).movedim(-1, axis)
    return images


def map_ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """SSIM of maps (N, *spatial), whose scale means nothing: float64 (N,).

    Each map is divided by its largest absolute value; L is the range of the two together, and its lower end is made 0
    in both, because the product of two negative means would turn the sign of the similarity round.
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


def spearman(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation of maps (N, *spatial), average ranks for ties: float64 (N,).

    A constant map has no order: with a map that has one it correlates 0, as a random order would; with another
    constant one 1, because nothing has changed.
    """
    x, y = (_centred_ranks(maps.flatten(1)) for maps in (first, second))
    spread = x.norm(dim=1) * y.norm(dim=1)
    correlation = (x * y).sum(1) / torch.where(spread > 0, spread, 1.0)
    both_constant = (x == 0).all(1) & (y == 0).all(1)
    return torch.where(both_constant, 1.0, correlation.clamp(-1, 1))


def _centred_ranks(values: torch.Tensor) -> torch.Tensor:
    """Average ranks of each row minus their mean: (N, P) -> float64 (N, P)."""
    ordered, order = values.sort(dim=1)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    # The first place of a run of equal values, and the last: the next run's first, less one.
    first = torch.where(new, places, 0).cummax(1).values
    ends = torch.cat([new[:, 1:], torch.ones_like(new[:, :1])], 1)
    last = torch.where(ends, places, values.shape[1]).flip(1).cummin(1).values.flip(1)
    ranks = (first + last).to(widest(values.device)) / 2 - (values.shape[1] - 1) / 2
    return torch.empty_like(ranks).scatter_(1, order, ranks)
