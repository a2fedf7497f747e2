"""Images that are cheap to make: a bright blob on texture."""

from __future__ import annotations

import numpy as np


def nodules(count: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images with one blob each, (N, 1, H, W), on texture that can be segmented, their labels and masks."""
    from scipy.ndimage import gaussian_filter

    draws = np.random.default_rng(0)
    texture = gaussian_filter(draws.random((count, size, size)), (0, 2, 2))
    texture = (texture - texture.min()) / np.ptp(texture) * 0.4
    rows, columns = np.ogrid[:size, :size]
    centres = draws.uniform(0.3, 0.7, (count, 2)) * size
    radii = draws.uniform(0.08, 0.16, count) * size
    away = (rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2
    masks = away <= radii[:, None, None] ** 2
    labels = np.arange(count) % 2
    images = texture + masks * (0.3 + 0.2 * labels[:, None, None])
    return images[:, None].astype(np.float32), labels, masks
