"""Arrays of pictures -> PNG sheets as data URIs: what the page draws galleries and strips from."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from xbench.report.overlays import OPACITY, colours
from xbench.results.counterfactuals import CounterfactualArrays
from xbench.results.gallery import GalleryArrays, robust_scale

_MOST_BYTES = 7_000_000  # of a gallery's maps, as they are in memory; a page's file holds about 4/3 of it
_ZERO = 128  # grey level of a map's zero


def gallery_data(found: GalleryArrays) -> dict[str, Any]:
    """What the page needs to leaf through a gallery; maps that would make the file too large are halved in size."""
    maps, images, masks = found.maps, found.images, found.masks
    while maps.size > _MOST_BYTES and min(maps.shape[2:]) > 16:
        maps = np.rint(_halved(maps.astype(np.float32))).astype(np.int8)
    while images.shape[2] * images.shape[3] * len(images) > _MOST_BYTES // 4:
        images, masks = _halved(images.astype(np.float32)).round().astype(np.uint8), _halved(masks.astype(float)) >= 0.5
    return {
        "classes": found.classes,
        "ids": found.ids,
        "labels": found.labels,
        "probabilities": found.probabilities,
        "height": images.shape[2],
        "width": images.shape[3],
        "images": sheet(np.moveaxis(_shown(images), 1, -1)),
        "masks": sheet(255 * masks.astype(np.uint8)),
        "has_mask": found.has_mask,
        "map_height": maps.shape[2],
        "map_width": maps.shape[3],
        "explainers": [
            {
                "name": name,
                "control": bool(found.control[index]),
                "signed": bool(found.signed[index]),
                "targets": found.targets[index],
                "maps": sheet((maps[index].astype(np.int16) + _ZERO).astype(np.uint8)),
            }
            for index, name in enumerate(found.explainers)
        ],
    }


def strip_data(found: CounterfactualArrays) -> dict[str, Any]:
    """What the page needs to slide from an image to its counterfactual; frames are cut to [0, 1]."""
    n, strips, frames, channels, height, width = found.frames.shape
    flat = found.frames.reshape(-1, channels, height, width)
    while flat.shape[2] * flat.shape[3] * len(flat) > _MOST_BYTES:
        flat = _halved(flat.astype(np.float32))
    pixels = np.rint(255 * flat.astype(np.float32).clip(0, 1)).astype(np.uint8)
    pixels = np.moveaxis(_shown(pixels), 1, -1).reshape(n, strips * frames, *pixels.shape[2:], -1)
    data: dict[str, Any] = {
        "explainer": found.explainer,
        "classes": found.classes,
        "ids": found.ids,
        "labels": found.labels,
        "t": found.t,
        "start": found.start,
        "strips": strips,
        "height": pixels.shape[2],
        "width": pixels.shape[3],
        "frames": [sheet(one) for one in pixels],
        "probabilities": found.probabilities,
        "targets": found.targets,
        "maps": None,
    }
    if found.relevance is not None:
        shares = np.stack([values / robust_scale(values) for values in found.relevance]).clip(-1, 1)
        data |= {"maps": sheet(np.rint(_ZERO + 127 * shares).astype(np.uint8)), "map_height": height}
        data |= {"map_width": width}
    return data


def ramps() -> dict[str, Any]:
    """RGB of the 255 steps of a map from -1 to 1, signed and unsigned, and the opacity of the strongest."""
    steps = np.linspace(-1, 1, 255)
    return {
        "signed": np.rint(255 * colours(steps, signed=True)).astype(int),
        "unsigned": np.rint(255 * colours(steps, signed=False)).astype(int),
        "opacity": OPACITY,
    }


def sheet(pictures: np.ndarray) -> str:
    """uint8 (n, H, W) or (n, H, W, 1 or 3) -> a PNG of one below the other, as a data URI."""
    if pictures.ndim == 4 and pictures.shape[-1] == 1:
        pictures = pictures[..., 0]
    stacked = np.ascontiguousarray(pictures.reshape(-1, *pictures.shape[2:]))
    file = io.BytesIO()
    Image.fromarray(stacked).save(file, format="PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _shown(images: np.ndarray) -> np.ndarray:
    """(n, C, H, W) with 3 channels as they are, else their mean."""
    return images if images.shape[1] == 3 else images.mean(1, keepdims=True).round().astype(np.uint8)


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = (size // 2 for size in values.shape[-2:])
    even = values[..., : 2 * height, : 2 * width]
    means: np.ndarray = even.reshape(*values.shape[:-2], height, 2, width, 2).mean((-3, -1))
    return means
