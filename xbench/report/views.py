"""Figures of class maximisation: for each class, the image that maximises its score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from xbench.report.canvas import DPI, INK, MUTED, drawing, save, wrapped

_MOST = 6  # panels side by side
_CELL, _GAP, _MARGIN, _HEAD, _CAPTION, _FOOT = 1.9, 0.16, 0.12, 0.36, 0.46, 0.34  # inches
_NOTE = "A picture of the model, not of an image: each panel was climbed to from zeros, with S - penalty x |image|²."
_RANGE = "Images of the dataset lie between 0 and 1; the scale below each panel is its own."


def class_views(
    stem: Path,
    title: str,
    classes: Sequence[str],
    images: np.ndarray,
    scores: np.ndarray,
    probabilities: np.ndarray,
) -> list[Path]:
    """Draw one panel for each class, with its image and the score that the image reaches.

    An image is stretched from its smallest to its largest value. Three channels are shown as RGB, any other number as
    their mean in grey, and a volume by its middle slice. The scale below a panel says which pixel values are black and
    white.

    Args:
        stem: Path without suffix.
        title: The heading of the figure.
        classes: K names.
        images: float (K, C, *spatial), as `xbench.compute.class_maximization.class_maximization` gives them.
        scores: (K,), the S_c reached.
        probabilities: (K,), the p_c reached.

    Returns:
        The SVG and the PNG file; none without classes.
    """
    if not len(classes):
        return []
    columns = min(len(classes), _MOST)
    rows = math.ceil(len(classes) / columns)
    names = [wrapped(name, 26) for name in classes]
    lines = 0.15 * max(name.count("\n") for name in names)
    planes = [_plane(np.asarray(image, dtype=np.float32)) for image in images]
    tall, wide = (_CELL * side / max(planes[0].shape[1:]) for side in planes[0].shape[1:])
    cell_height = _HEAD + lines + tall + _CAPTION
    width = max(5.4, 2 * _MARGIN + columns * (_CELL + _GAP) - _GAP)
    height = (0.34 if title else 0.08) + rows * cell_height + _FOOT
    with drawing(width, height, title) as figure:
        sheet = figure.add_axes((0, 0, 1, 1))  # in inches
        sheet.set_axis_off()
        for index, name in enumerate(names):
            row, column = divmod(index, columns)
            left = _MARGIN + column * (_CELL + _GAP)
            top = height - (0.34 if title else 0.08) - row * cell_height - _HEAD - lines
            reached = f"S = {scores[index]:.3g}   p = {probabilities[index]:.2f}"
            sheet.text(left, top + 0.19, name, fontsize=8, fontweight="bold", va="bottom")
            sheet.text(left, top + 0.04, reached, fontsize=7.5, va="bottom", color=INK)
            _panel(sheet, left, top, (tall, wide), planes[index])
        sheet.text(_MARGIN, 0.2, _NOTE, fontsize=6, color=MUTED, va="bottom")
        sheet.text(_MARGIN, 0.07, _RANGE, fontsize=6, color=MUTED, va="bottom")
        sheet.set(xlim=(0, width), ylim=(0, height), aspect="auto")
        return save(figure, stem)


def stretched(image: np.ndarray) -> np.ndarray:
    """Stretch (C, H, W) to (H, W, 3) in [0, 1]: the smallest value black, the largest white; mid-grey if constant."""
    shown = _shown(image)
    low, high = float(shown.min()), float(shown.max())
    scaled = (shown - low) / (high - low) if high > low else np.full_like(shown, 0.5)
    return np.moveaxis(np.broadcast_to(scaled, (3, *scaled.shape[1:])), 0, -1)


def _panel(sheet: Axes, left: float, top: float, size: tuple[float, float], image: np.ndarray) -> None:
    """Draw the picture under the height `top`, and its grey scale."""
    tall, wide = size
    picture, shown = stretched(image), _shown(image)
    smoothing = "none" if max(picture.shape) <= _CELL * DPI else "auto"
    sheet.imshow(picture, extent=(left, left + wide, top - tall, top), interpolation=smoothing, aspect="auto")
    bar, ramp = top - tall - 0.14, np.linspace(0, 1, 256)[None, :, None].repeat(3, axis=2)
    sheet.imshow(ramp, extent=(left, left + _CELL, bar, bar + 0.08), aspect="auto", interpolation="none")
    for value, x, align in ((shown.min(), left, "left"), (shown.max(), left + _CELL, "right")):
        sheet.text(x, bar - 0.03, f"{float(value):.3g}", ha=align, va="top", fontsize=6.5)


def _shown(image: np.ndarray) -> np.ndarray:
    """Return three channels as they are, else their mean: (C, H, W) -> (3 or 1, H, W)."""
    return image if len(image) == 3 else image.mean(0, keepdims=True)


def _plane(image: np.ndarray) -> np.ndarray:
    """Return (C, H, W): the middle slice of a volume, a strip for a line."""
    if image.ndim == 4:
        return image[:, image.shape[1] // 2]
    return image[:, None] if image.ndim == 2 else image
