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
"""A function from images (R, C, *spatial) to class scores (R, K)."""


def perturbed_scores(
    score: Score, images: torch.Tensor, targets: torch.Tensor, perturb: Callable[[slice], torch.Tensor]
) -> torch.Tensor:
    """Return the target's score of each of R perturbed images, which are made only when they are needed.

    Args:
        score: Function for class scores.
        images: The images before perturbation, (N, C, *spatial).
        targets: Class of each perturbed image, int64 (R,).
        perturb: Function from a slice of the R perturbed images to these images, (r, C, *spatial).

    Returns:
        The scores, (R,).
    """
    scores = images.new_empty(len(targets))

    def work(start: int, stop: int) -> None:
        rows = slice(start, stop)
        scores[rows] = score(perturb(rows)).gather(1, targets[rows, None]).squeeze(1)

    chunks(len(targets), images, work)
    return scores


class Occlusion(Explainer):
    """A(p) = mean over the windows w that cover p of S_c(x) - S_c(x with w filled) (Zeiler & Fergus 2014, section 4.2).

    A pixel is positive where hiding its surroundings lowers the target's score. Every pixel of a window gets the full
    drop of the window, as in captum, so the map does not sum to the drop. Windows start every `stride` pixels. The last
    one reaches the border, and is cut off there if it does not fit. Images may have any number of spatial axes.

    This is own code because captum's evaluates one window after the other (or a fixed number at a time), builds each
    window by padding, and adds up maps of the size of the image. Here, the same maps are a product of small matrices.
    """

    options: OcclusionOptions

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Return a reason for windows that do not fit, and for strides that leave pixels between windows."""
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
            # A window is the product of an interval along each axis, so the mean over windows is taken axis by axis.
            share = cover.to(maps.dtype) / cover.sum(0).clamp(min=1)
            maps = torch.tensordot(maps, share, dims=([axis], [0])).movedim(-1, axis)
        return maps

    def _occluded(
        self, score: Score, images: torch.Tensor, targets: torch.Tensor, covers: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return S_c with each window filled: (N, windows)."""
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
    """Return which pixels of an axis each window covers: bool (windows, size)."""
    starts = stride * torch.arange(math.ceil(max(0, size - window) / stride) + 1, device=device)[:, None]
    pixels = torch.arange(size, device=device)
    return (pixels >= starts) & (pixels < starts + window)


def _along_axes(index: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, ...]:
    """Return the index along each axis of a flat index (R,).

    This is own code because torch's `unravel_index` copies the sizes to the device.
    """
    found: list[torch.Tensor] = []
    for size in reversed(sizes):
        found.append(index % size)
        index = index // size
    return tuple(reversed(found))


def _inside(covers: list[torch.Tensor], index: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the pixels in R windows, which are given by an index (R,) along each axis: bool (R, 1, *spatial)."""
    rows = len(index[0])
    sides = [
        cover[where].view(rows, *(1,) * (axis + 1), -1, *(1,) * (len(covers) - axis - 1))
        for axis, (cover, where) in enumerate(zip(covers, index, strict=True))
    ]
    return functools.reduce(torch.logical_and, sides)
