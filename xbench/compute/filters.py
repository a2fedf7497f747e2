"""Gaussian filters of batches of images, on whatever device they lie."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from xbench.runtime.devices import upload


def gaussian_blur(images: torch.Tensor, sigma: float, radius: int | None = None, inside: bool = False) -> torch.Tensor:
    """Blur images along their spatial axes with a Gaussian, mirrored at the borders (scipy's mode `reflect`).

    Own code because scipy's `gaussian_filter` computes on the host. Its filter is taken along each axis as a matrix, so
    that the numbers are scipy's, any sigma goes with any size, and an axis costs one product for the whole batch.

    Args:
        images: (N, C, *spatial). Maps (N, *spatial) go in as `maps[:, None]`.
        sigma: Standard deviation in pixels.
        radius: Reach of the window in pixels; four standard deviations if not given.
        inside: Whether only the positions are kept at which the window lies inside the image. An axis shorter than the
            window has none, and keeps all. Needs `radius`.

    Returns:
        Of the type of `images`: (N, C, *spatial), or with `inside` (N, C, *smaller), 2 radius less along each axis.

    Raises:
        ValueError: `inside` without a radius.
    """
    if inside and radius is None:
        raise ValueError("inside=True needs the radius of the window")
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        # Row i of the filtered identity matrix has the weights with which all pixels enter pixel i.
        weights = gaussian_filter1d(np.eye(size), sigma, axis=0, radius=radius)
        if inside and radius is not None and size > 2 * radius:
            weights = weights[radius : size - radius]
        matrix = upload(torch.from_numpy(weights).to(images.dtype), images.device)
        images = torch.tensordot(images, matrix, dims=([axis], [1])).movedim(-1, axis)
    return images
