"""The gallery: images, the expert's outline, and each explainer's map laid over the anatomy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from xbench.report.canvas import DPI, GREEN, INK, MUTED, VERMILLION, drawing, save, wrapped
from xbench.results.gallery import robust_scale

COLUMNS = 8
"""Columns of a page: image, outline, and at most six maps."""

_OUTLINE = "#F0E442"
_CELL, _GAP, _MARGIN, _CAPTION, _FOOT = 1.18, 0.06, 0.12, 0.36, 0.56  # inches
OPACITY = 0.9
"""How opaque the strongest value of a map is over the image."""

# RGB from the weakest to the strongest value
_FOR = np.array([[0.96, 0.50, 0.38], [0.93, 0.25, 0.16], [0.86, 0.05, 0.05]])
_AGAINST = np.array([[0.42, 0.68, 0.98], [0.16, 0.48, 0.95], [0.02, 0.25, 0.85]])
_AMOUNT = np.array([[0.60, 0.12, 0.62], [0.93, 0.47, 0.29], [0.97, 0.95, 0.20]])  # no blue: that reads as "against"


@dataclass(frozen=True)
class Overlay:
    """One explainer's map of one image.

    Attributes:
        name: The explainer.
        values: float (*spatial).
        signed: Whether positive is for the target and negative against it; else the map only says how much.
        control: Whether it must lose; its title is grey.
    """

    name: str
    values: np.ndarray
    signed: bool
    control: bool = False


@dataclass(frozen=True)
class GalleryItem:
    """One row of the gallery.

    Attributes:
        id: The sample.
        image: float (C, *spatial), in [0, 1]. If it is a volume, the slice with most of the expert's mask is shown.
        mask: bool (*spatial), or None if no expert outlined anything.
        label: The name of the true class.
        predicted: The name of the predicted class.
        probability: The probability of the predicted class.
        overlays: The maps, of the same explainers in the same order in every row.
    """

    id: str
    image: np.ndarray
    mask: np.ndarray | None
    label: str
    predicted: str
    probability: float
    overlays: Sequence[Overlay] = field(default_factory=tuple)


def gallery(stem: Path, items: Sequence[GalleryItem], title: str = "") -> list[Path]:
    """Draw the items in pages of at most `COLUMNS` columns; each page begins with the image and the outline.

    Signed maps run from blue (against the target) to red (for it), unsigned ones from purple to yellow. Each map is
    scaled to the 99th percentile of its absolute values; it is transparent near zero, so the anatomy stays visible.

    Args:
        stem: Path without suffix; several pages are numbered: `<stem>-1.svg`, ...
        items: The rows.
        title: The heading of the pages.

    Returns:
        The SVG and PNG files, page by page; none without items.
    """
    if not items:
        return []
    maps = len(items[0].overlays)
    pages = max(1, math.ceil(maps / (COLUMNS - 2)))
    share = math.ceil(maps / pages)  # pages of about equal width rather than a last page with one map
    paths = []
    for page in range(pages):
        chosen = slice(page * share, (page + 1) * share)
        name = stem if pages == 1 else stem.with_name(f"{stem.name}-{page + 1}")
        heading = title if pages == 1 else f"{title} ({page + 1} of {pages})".strip()
        paths += _page(name, heading, items, chosen)
    return paths


def _page(stem: Path, title: str, items: Sequence[GalleryItem], chosen: slice) -> list[Path]:
    shown = items[0].overlays[chosen]
    names = [wrapped(overlay.name, 15) for overlay in shown]
    heading = (0.38 if title else 0.1) + 0.13 * max(name.count("\n") + 1 for name in ["", *names])
    width = max(5.2, 2 * _MARGIN + (2 + len(shown)) * (_CELL + _GAP) - _GAP)
    height = heading + len(items) * (_CELL + _CAPTION) + _FOOT
    with drawing(width, height, title) as figure:
        sheet = figure.add_axes((0, 0, 1, 1))  # one pair of axes in inches: 64 pairs would take most of the time
        sheet.set_axis_off()
        for row, item in enumerate(items):
            _row(sheet, height - heading - row * (_CELL + _CAPTION), item, item.overlays[chosen])
        _titles(sheet, height - heading + 0.04, names, shown)
        _scales(sheet, shown)
        sheet.set(xlim=(0, width), ylim=(0, height), aspect="auto")
        return save(figure, stem)


def _row(sheet: Axes, top: float, item: GalleryItem, overlays: Sequence[Overlay]) -> None:
    """Draw one image, its outline and its maps, side by side under the height `top`."""
    plane = plane_of(item.image, item.mask)
    image = np.clip(sliced(np.asarray(item.image, dtype=np.float32), plane, leading=1), 0, 1)
    mask = None if item.mask is None else sliced(np.asarray(item.mask), plane)
    grey = np.repeat(image.mean(0)[..., None], 3, axis=-1)
    picture = np.moveaxis(image, 0, -1) if len(image) == 3 else grey
    _cell(sheet, 0, top, picture)
    _cell(sheet, 1, top, picture, mask, outline=1.1)
    for column, overlay in enumerate(overlays, start=2):
        values = sliced(np.asarray(overlay.values, dtype=np.float32), plane)
        _cell(sheet, column, top, blended(grey, values, overlay.signed), mask, outline=0.5)
        if not values.any():
            middle = _left(column) + _CELL / 2
            sheet.text(middle, top - _CELL + 0.05, "map is zero", color="white", fontsize=6, ha="center", va="bottom")
    _caption(sheet, top - _CELL - 0.03, item)


def _left(column: int) -> float:
    return _MARGIN + column * (_CELL + _GAP)


def _cell(
    sheet: Axes, column: int, top: float, picture: np.ndarray, mask: np.ndarray | None = None, outline: float = 0.0
) -> None:
    left = _left(column)
    # shown pixel by pixel where they are fewer than the sheet's; else smoothed
    smoothing = "none" if max(picture.shape) <= _CELL * DPI else "auto"
    opaque = np.full((*picture.shape[:2], 4), 255, dtype=np.uint8)  # what matplotlib resamples fastest
    opaque[..., :3] = np.rint(picture * 255)
    sheet.imshow(opaque, extent=(left, left + _CELL, top - _CELL, top), interpolation=smoothing, aspect="auto")
    if mask is not None and mask.any():
        rows, columns = ((np.arange(-1, size + 1) + 0.5) * _CELL / size for size in mask.shape)
        padded = np.pad(mask.astype(np.float32), 1)  # closes an outline that touches the border
        x, y = (left + columns).clip(left, left + _CELL), (top - rows).clip(top - _CELL, top)
        sheet.contour(x, y, padded, levels=[0.5], colors=[_OUTLINE], linewidths=outline)


def blended(grey: np.ndarray, values: np.ndarray, signed: bool) -> np.ndarray:
    """Lay a map (H, W) over an image (H, W, 3), more opaque where the map is larger: float (H, W, 3)."""
    strength = np.clip(values / robust_scale(values), -1, 1)
    amount = np.abs(strength)[..., None]
    ramp = colours(strength, signed)
    opacity = OPACITY * amount**0.75
    mixed: np.ndarray = (1 - opacity) * grey + opacity * ramp
    return mixed


def colours(strength: np.ndarray, signed: bool) -> np.ndarray:
    """Return the RGB of strengths in [-1, 1]: a ramp for each sign, or the one of amounts."""
    amount = np.abs(strength)
    ramps = (_AGAINST, _FOR) if signed else (_AMOUNT, _AMOUNT)
    at = np.linspace(0, 1, len(_FOR))
    low, high = (np.stack([np.interp(amount, at, ramp[:, band]) for band in range(3)], axis=-1) for ramp in ramps)
    return np.where(strength[..., None] < 0, low, high)


def plane_of(image: np.ndarray, mask: np.ndarray | None) -> int | None:
    """Return the slice of a volume (C, D, H, W) with most of the mask, else the middle one; None for an image."""
    if np.ndim(image) == 3:
        return None
    if mask is not None and np.any(mask):
        return int(np.asarray(mask).sum((1, 2)).argmax())
    return int(np.shape(image)[1] // 2)


def sliced(values: np.ndarray, plane: int | None, leading: int = 0) -> np.ndarray:
    """Return one plane of a volume, behind `leading` axes; an image as it is."""
    return values if plane is None else values.take(plane, axis=leading)


def _caption(sheet: Axes, top: float, item: GalleryItem) -> None:
    right = item.label == item.predicted
    words = f"predicted {item.predicted} {item.probability:.2f}" + ("" if right else "  (wrong)")
    sheet.text(_left(0), top, item.label, va="top", fontsize=7, fontweight="bold")
    sheet.text(_left(0), top - 0.13, words, va="top", fontsize=6.5, color=GREEN if right else VERMILLION)
    sheet.text(_left(1), top, item.id, va="top", fontsize=6, color=MUTED)


def _titles(sheet: Axes, bottom: float, names: Sequence[str], overlays: Sequence[Overlay]) -> None:
    controls = [False, False, *(overlay.control for overlay in overlays)]
    for column, (name, control) in enumerate(zip(["image", "expert outline", *names], controls, strict=True)):
        style: dict[str, Any] = {"color": MUTED, "fontstyle": "italic"} if control else {"color": INK}
        sheet.text(_left(column) + _CELL / 2, bottom, name, ha="center", va="bottom", fontsize=7.5, **style)


def _scales(sheet: Axes, overlays: Sequence[Overlay]) -> None:
    """Draw a bar for each kind of map on the page, as it looks over mid-grey tissue."""
    kinds = [signed for signed in (True, False) if any(overlay.signed == signed for overlay in overlays)]
    for index, signed in enumerate(kinds):
        left, right, bottom = _MARGIN + index * 2.4, _MARGIN + index * 2.4 + 2.0, 0.36
        ramp = np.linspace(-1 if signed else 0, 1, 256)[None]
        bar = blended(np.full((1, 256, 3), 0.45), ramp / robust_scale(ramp), signed)
        sheet.imshow(bar, extent=(left, right, bottom, bottom + 0.1), aspect="auto", interpolation="none")
        ends = ("against the target", "for the target") if signed else ("none", "most (unsigned map)")
        for words, x, align in zip(ends, (left, right), ("left", "right"), strict=True):
            sheet.text(x, bottom - 0.03, words, ha=align, va="top", fontsize=6.5)
        if signed:
            sheet.text((left + right) / 2, bottom - 0.03, "0", ha="center", va="top", fontsize=6.5)
    if kinds:
        words = "Each map is scaled to the 99th percentile of its absolute values; opacity follows the value."
        sheet.text(_MARGIN, 0.05, words, fontsize=6, color=MUTED, va="bottom")
