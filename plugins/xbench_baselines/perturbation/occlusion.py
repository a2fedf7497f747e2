"""Occlusion, and the scores of perturbed images that its relatives share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from xbench import DatasetInfo, Explainer
from xbench.compute.passes import chunks, forward
from xbench_baselines.perturbation.options import OcclusionOptions

Score = Callable[[torch.Tensor], torch.Tensor]
"""Images (R, C, *spatial) -> class scores (R, K)."""


def perturbed_scores(
    score: Score, images: torch.Tensor, targets: torch.Tensor, perturb: Callable[[slice], torch.Tensor]
) -> torch.Tensor:
    """The target's score of perturbed images, made as they are needed.

    Args:
        score: Class scores.
        images: (N, C, *spatial), like which the perturbed images are.
        targets: int64 (R,), of each perturbed image.
        perturb: Rows from the R perturbed images -> (r, C, *spatial).

    Returns:
        (R,).
    """
    scores = images.new_empty(len(targets))

    def work(start: int, stop: int) -> None:
        rows = slice(start, stop)
        scores[rows] = score(perturb(rows)).gather(1, targets[rows, None]).squeeze(1)

    chunks(len(targets), images, work)
    return scores


class Occlusion(Explainer):
    """A(p) = mean over the windows w that cover p of S_c(x) - S_c(x with w filled) (Zeiler & Fergus 2014, section 4.2).

    Positive where hiding the pixel's surroundings costs the target score. Every pixel of a window carries the window's
    full drop, as in captum: the map does not add up to the drop. Windows start every `stride` pixels and the last one
    reaches the border, where it is cut off if it does not fit. Any number of spatial axes.

    Not captum's own, which evaluates window after window (or a fixed number at a time), builds each one by padding, and
    sums up in the size of the image; the same maps here are a product of two small matrices.
    """

    options: OcclusionOptions

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Refuses windows that do not fit, and strides that leave pixels between them."""
        window, stride = self._window_and_stride(info.spatial)
        if window > min(info.spatial):
            return f"a window of {window} pixels does not fit into images of {' x '.join(map(str, info.spatial))}"
        if stride > window:
            return f"a stride of {stride} pixels leaves pixels between windows of {window} without a value"
        return None

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        spatial = images.shape[2:]
        covers = [_covers(size, *self._window_and_stride(spatial), images.device) for size in spatial]
        score = forward(model, images)
        whole = score(images).gather(1, targets[:, None])
        drops = whole - self._occluded(score, images, targets, covers)
        maps = drops.view(len(images), *(len(cover) for cover in covers))
        for axis, cover in enumerate(covers, start=1):
            # The windows' cover is a product over axes, so their mean is a mean along one axis after the other.
            share = cover.to(maps.dtype) / cover.sum(0).clamp(min=1)
            maps = torch.tensordot(maps, share, dims=([axis], [0])).movedim(-1, axis)
        return maps

    def _occluded(
        self, score: Score, images: torch.Tensor, targets: torch.Tensor, covers: list[torch.Tensor]
    ) -> torch.Tensor:
        """S_c with each window filled: (N, windows)."""
        positions = [len(cover) for cover in covers]
        windows = math.prod(positions)
        fill = torch.zeros_like(images[:1, :1])
        if self.options.fill == "mean":
            fill = images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
        fill = fill.expand(len(images), *fill.shape[1:])
        every = torch.arange(len(images) * windows, device=images.device)

        def perturb(rows: slice) -> torch.Tensor:
            which, window = every[rows] // windows, every[rows] % windows
            inside = _inside(covers, _along_axes(window, positions))
            return torch.where(inside, fill[which], images[which])

        return perturbed_scores(score, images, targets.repeat_interleave(windows), perturb).view(-1, windows)

    def _window_and_stride(self, spatial: tuple[int, ...]) -> tuple[int, int]:
        window = self.options.window or round(math.sqrt(min(spatial)))
        return window, self.options.stride or max(1, window // 2)


def _covers(size: int, window: int, stride: int, device: torch.device) -> torch.Tensor:
    """Which pixels of an axis each window covers: bool (windows, size)."""
    starts = stride * torch.arange(math.ceil(max(0, size - window) / stride) + 1, device=device)[:, None]
    pixels = torch.arange(size, device=device)
    return (pixels >= starts) & (pixels < starts + window)


def _along_axes(index: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, ...]:
    """The index along each axis of a flat index (R,): torch's `unravel_index`, which copies the sizes to the device."""
    found: list[torch.Tensor] = []
    for size in reversed(sizes):
        found.append(index % size)
        index = index // size
    return tuple(reversed(found))


def _inside(covers: list[torch.Tensor], index: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The windows at R positions, an index (R,) along each axis: bool (R, 1, *spatial)."""
    rows = len(index[0])
    sides = [
        cover[where].view(rows, *(1,) * (axis + 1), -1, *(1,) * (len(covers) - axis - 1))
        for axis, (cover, where) in enumerate(zip(covers, index, strict=True))
    ]
    return functools.reduce(torch.logical_and, sides)
