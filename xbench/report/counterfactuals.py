"""Counterfactual images, side by side with what they change, and the film strip from one class to the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from xbench.report.canvas import BLUE, DPI, FAINT, GREEN, MUTED, VERMILLION, drawing, save, wrapped
from xbench.results.counterfactuals import CounterfactualArrays
from xbench.results.gallery import robust_scale

_CELL, _GAP, _MARGIN = 1.18, 0.06, 0.12  # inches
_NAMES, _BAR, _CAPTION, _BETWEEN, _TITLES, _FOOT = 0.2, 0.05, 0.17, 0.18, 0.34, 0.56
_TALLEST = 26.0  # a page
_COLOURS = "RdBu_r"


def counterfactual_strips(stem: Path, found: CounterfactualArrays, warning: str = "") -> list[Path]:
    """Draw what an explainer makes of each image when asked for another class (Katzmann et al., Figure 6).

    For two classes, a row holds x, G-(x), G+(x), the differences G-(x) - x and G+(x) - x, and the explainer's map R.
    Below it runs the film strip from class 0 over x to class 1. For more classes, there is a strip for each, with its
    difference at the end.

    Images are shown from 0 (black) to 1 (white), three channels as RGB, any other number as their mean. Differences are
    means over channels, red where brighter. Those of one image share a scale and R has its own; each scale ends at the
    99th percentile of the absolute values, which is written below. Bars and numbers below images are the classifier's
    probability.

    Args:
        stem: Path without suffix. If one page won't hold all samples, pages are numbered: `<stem>-1.svg`, ...
        found: The images.
        warning: Warning that a reader must know before trusting them, shown in red.

    Returns:
        The SVG and PNG files, page by page; none without samples.
    """
    if not len(found.ids):
        return []
    sheet = _Sheet(found)
    fixed = 0.34 + (0.18 if warning else 0) + _TITLES + _FOOT
    most = max(1, int((_TALLEST - fixed) // sheet.block))
    starts = range(0, len(found.ids), most)
    paths: list[Path] = []
    for page, start in enumerate(starts, start=1):
        members = range(start, min(start + most, len(found.ids)))
        several = len(starts) > 1
        name = stem.with_name(f"{stem.name}-{page}") if several else stem
        title = f"{found.explainer}: {found.dataset}, {found.model}" + (
            f" ({page} of {len(starts)})" if several else ""
        )
        height = fixed + len(members) * sheet.block
        with drawing(sheet.width, height, title) as figure:
            axes = figure.add_axes((0, 0, 1, 1))  # in inches
            axes.set_axis_off()
            top = height - 0.34
            if warning:
                axes.text(_MARGIN, top, f"warning: {warning}", color=VERMILLION, fontsize=7.5, va="center")
                top -= 0.18
            sheet.titles(axes, top - _TITLES + 0.04)
            for row, index in enumerate(members):
                sheet.sample(axes, top - _TITLES - row * sheet.block, index)
            sheet.foot(axes)
            axes.set(xlim=(0, sheet.width), ylim=(0, height), aspect="auto")
            paths += save(figure, name)
    return paths


class _Sheet:
    """The layout of a page, in inches.

    Args:
        found: The images drawn.
    """

    def __init__(self, found: CounterfactualArrays) -> None:
        self.found = found
        self.two = len(found.classes) == 2
        self.columns = 6 if self.two else len(found.t) + 2
        self.width = 2 * _MARGIN + self.columns * (_CELL + _GAP) - _GAP
        size = found.images.shape[2:]
        self.shape = (_CELL * size[0] / max(size), _CELL * size[1] / max(size))
        frames = len(found.t)
        small = (self.width - 2 * _MARGIN + _GAP) / frames - _GAP
        self.small = (small * size[0] / max(size), small * size[1] / max(size))
        under = _BAR + _CAPTION
        lines = [self.shape[0], self.small[0] + 0.12] if self.two else [self.shape[0]] * len(found.classes)
        self.block = _NAMES + sum(line + under for line in lines) + _BETWEEN

    def titles(self, axes: Axes, bottom: float) -> None:
        found = self.found
        names = [wrapped(name, 18) for name in found.classes]
        if self.two:
            words = ["x", f"G−(x), toward\n{names[0]}", f"G+(x), toward\n{names[1]}", "G−(x) − x", "G+(x) − x"]
        else:
            words = [*("x" if t == 0 else "G(x)" if t == 1 else f"t = {t:g}" for t in found.t), "G(x) − x"]
        words += ["R, the map"] if found.relevance is not None else []
        for column, text in enumerate(words):
            axes.text(self._left(column), bottom, text, va="bottom", fontsize=7.5)

    def sample(self, axes: Axes, top: float, index: int) -> None:
        """Draw one image with all that is made of it, under the height `top`."""
        self._names(axes, top, index)
        top -= _NAMES
        found = self.found
        frames, chances = found.frames[index].astype(np.float32), found.probabilities[index]
        changes = frames - found.images[index].astype(np.float32)
        changes = changes.mean(2)  # (S, T, H, W)
        ends = (0, -1) if self.two else (-1,)
        scale = robust_scale(np.stack([changes[:, end] for end in ends]))
        if self.two:
            for column, frame in enumerate((found.start, 0, -1)):
                self._image(axes, self._left(column), top, self.shape, frames[0, frame], chances[0, frame], 1)
            for column, end in enumerate(ends, start=3):
                self._change(axes, column, top, changes[0, end], scale)
            self._relevance(axes, 5, top, index)
            self._strip(axes, top - self.shape[0] - _BAR - _CAPTION - 0.12, frames[0], chances[0])
            return
        for aim in range(len(found.classes)):
            for column in range(len(found.t)):
                place = (self._left(column), top)
                self._image(axes, *place, self.shape, frames[aim, column], chances[aim, column], aim)
            self._change(axes, len(found.t), top, changes[aim, -1], scale, f" toward {found.classes[aim]}")
            if aim == 0:
                self._relevance(axes, len(found.t) + 1, top, index)
            top -= self.shape[0] + _BAR + _CAPTION

    def _names(self, axes: Axes, top: float, index: int) -> None:
        found = self.found
        chances = found.probabilities[index, 0, found.start]
        predicted, label = int(chances.argmax()), int(found.labels[index])
        words = f"predicted {found.classes[predicted]} {chances[predicted]:.2f}" + (
            "" if predicted == label else "  (wrong)"
        )
        height = top - _NAMES + 0.05
        axes.text(_MARGIN, height, found.classes[label], fontsize=7, fontweight="bold")
        axes.text(self._left(1), height, words, fontsize=6.5, color=GREEN if predicted == label else VERMILLION)
        axes.text(self.width - _MARGIN, height, found.ids[index], fontsize=6, color=MUTED, ha="right")

    def _strip(self, axes: Axes, top: float, frames: np.ndarray, chances: np.ndarray) -> None:
        left, step = _MARGIN, self.small[1] + _GAP
        if self.small[0] > self.small[1]:  # tall images leave room at the sides
            step = (self.width - 2 * _MARGIN + _GAP) / len(frames)
        for t, frame, chance in zip(self.found.t, frames, chances, strict=True):
            axes.text(left, top + 0.02, f"t = {t:g}".replace("-", "−"), fontsize=5.5, color=MUTED, va="bottom")
            self._image(axes, left, top, self.small, frame, chance, 1)
            left += step

    def _image(
        self,
        axes: Axes,
        left: float,
        top: float,
        size: tuple[float, float],
        image: np.ndarray,
        chances: np.ndarray,
        aim: int,
    ) -> None:
        """Draw (C, H, W), and below it the probability of class `aim`."""
        shown = np.clip(image if len(image) == 3 else image.mean(0, keepdims=True), 0, 1)
        _picture(axes, left, top, size, np.moveaxis(np.broadcast_to(shown, (3, *shown.shape[1:])), 0, -1))
        bottom, chance = top - size[0] - _BAR - 0.02, float(chances[aim])
        axes.add_patch(Rectangle((left, bottom), size[1], _BAR, color=BLUE if self.two else FAINT, linewidth=0))
        axes.add_patch(Rectangle((left, bottom), size[1] * chance, _BAR, color=VERMILLION, linewidth=0))
        axes.text(left, bottom - 0.02, f"p = {chance:.2f}", fontsize=6, va="top")

    def _change(self, axes: Axes, column: int, top: float, values: np.ndarray, scale: float, words: str = "") -> None:
        """Draw (H, W), with its scale below it."""
        left = self._left(column)
        _picture(axes, left, top, self.shape, mpl.colormaps[_COLOURS](values / scale / 2 + 0.5)[..., :3])
        corner = (left, top - self.shape[0])
        axes.add_patch(Rectangle(corner, *self.shape[::-1], fill=False, edgecolor=FAINT, linewidth=0.5))
        axes.text(left, top - self.shape[0] - _BAR - 0.04, f"±{scale:.2g}{words}", fontsize=6, va="top")

    def _relevance(self, axes: Axes, column: int, top: float, index: int) -> None:
        found = self.found
        if found.relevance is not None and found.targets is not None:
            values = found.relevance[index]
            name = f" for {found.classes[int(found.targets[index])]}"
            self._change(axes, column, top, values, robust_scale(values), name)

    def _left(self, column: int) -> float:
        return _MARGIN + column * (_CELL + _GAP)

    def foot(self, axes: Axes) -> None:
        """Say what the colours and the bars mean."""
        ramp = mpl.colormaps[_COLOURS](np.linspace(0, 1, 256))[None, :, :3]
        _picture(axes, _MARGIN, 0.52, (0.1, 2.0), ramp)
        for text, x, align in _ends():
            axes.text(x, 0.39, text, ha=align, va="top", fontsize=6.5)
        for words, height in zip(self._notes(), (0.16, 0.05), strict=True):
            axes.text(_MARGIN, height, words, fontsize=6, color=MUTED, va="bottom")

    def _notes(self) -> tuple[str, str]:
        changes = "Differences of an image share one scale, R has its own: ± the 99th percentile of absolute values."
        if self.two:
            name = self.found.classes[1]
            return changes, f"p and the red bar: probability of {name}. Strip: x + |t| (G±(x) − x), x at t = 0."
        return changes, "p and the red bar: probability of the row's class c. Strip: x + t (G(x) − x), G toward c."


def _ends() -> Iterator[tuple[str, float, str]]:
    yield "darker; R: against", _MARGIN, "left"
    yield "0", _MARGIN + 1.0, "center"
    yield "brighter; R: for", _MARGIN + 2.0, "right"


def _picture(axes: Axes, left: float, top: float, size: tuple[float, float], picture: np.ndarray) -> None:
    """Draw RGB (H, W, 3) under the height `top`."""
    tall, wide = size
    smoothing = "none" if max(picture.shape) <= max(size) * DPI else "auto"
    opaque = np.full((*picture.shape[:2], 4), 255, dtype=np.uint8)  # what matplotlib resamples fastest
    opaque[..., :3] = np.rint(255 * picture)
    axes.imshow(opaque, extent=(left, left + wide, top - tall, top), interpolation=smoothing, aspect="auto")
