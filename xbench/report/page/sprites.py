"""Write arrays of pictures as PNG sheets in data URIs, from which panels draw galleries and strips."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from xbench.report.overlays import OPACITY, colours

MOST_BYTES = 7_000_000
"""Most bytes that the maps of one data script may take in memory. The script itself has about 4/3 as many."""
ZERO = 128
"""Grey level of a map's zero."""


def ramps() -> dict[str, Any]:
    """Return the RGB of the 255 steps of a map from -1 to 1, signed and unsigned, and the opacity of the strongest."""
    steps = np.linspace(-1, 1, 255)
    return {
        "signed": np.rint(255 * colours(steps, signed=True)).astype(int),
        "unsigned": np.rint(255 * colours(steps, signed=False)).astype(int),
        "opacity": OPACITY,
    }


def sheet(pictures: np.ndarray) -> str:
    """Return pictures, uint8 (n, H, W) or (n, H, W, 1 or 3), as a PNG of one below the other: a data URI."""
    if pictures.ndim == 4 and pictures.shape[-1] == 1:
        pictures = pictures[..., 0]
    stacked = np.ascontiguousarray(pictures.reshape(-1, *pictures.shape[2:]))
    file = io.BytesIO()
    Image.fromarray(stacked).save(file, format="PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def shown(images: np.ndarray) -> np.ndarray:
    """Return images (n, C, H, W) with 3 channels as they are, others as their mean."""
    return images if images.shape[1] == 3 else images.mean(1, keepdims=True).round().astype(np.uint8)


def halved(values: np.ndarray) -> np.ndarray:
    """Return the means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = (size // 2 for size in values.shape[-2:])
    even = values[..., : 2 * height, : 2 * width]
    means: np.ndarray = even.reshape(*values.shape[:-2], height, 2, width, 2).mean((-3, -1))
    return means
