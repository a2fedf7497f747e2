"""Masks from the readers' outlines on a slice: on the scan's own pixels as in pylidc, then on a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.measure import grid_points_in_poly

from xbench_lidc.records import Annotation, Contour, Nodule

CONSENSUS = 0.5


@dataclass(frozen=True)
class Patch:
    """A square grid of samples in millimetres around a point of a slice.

    Attributes:
        size: Number of samples along each side.
        spacing: Distance between samples in mm.
        centre: Middle of the patch, (row, column), in pixels of the scan.
        pixel_spacing: Distance between the scan's pixels in mm.
    """

    size: int
    spacing: float
    centre: tuple[float, float]
    pixel_spacing: float

    @property
    def offsets(self) -> np.ndarray:
        """Distances of the samples from the centre along one axis, float64 (size,), mm."""
        return (np.arange(self.size) - (self.size - 1) / 2) * self.spacing

    def pixels(self, axis: int) -> np.ndarray:
        """Return the samples' pixel coordinates in the scan along `axis` (0 rows, 1 columns): float64 (size,)."""
        return np.asarray(self.centre[axis] + self.offsets / self.pixel_spacing)


@dataclass(frozen=True)
class Consensus:
    """The readers' agreement on one slice, on the scan's own pixels.

    Attributes:
        share: Share of the readers who included a pixel, float64 (h, w).
        origin: Position of `share[0, 0]` in the scan, (row, column).
    """

    share: np.ndarray
    origin: tuple[int, int]

    @property
    def mask(self) -> np.ndarray:
        """Pixels that at least half of the readers included (as pylidc's `consensus`), bool (h, w)."""
        return np.asarray(self.share >= CONSENSUS)

    def sample(self, patch: Patch) -> np.ndarray:
        """Return the mask on a patch, by nearest neighbour: bool (size, size)."""
        mask = self.mask
        rows, columns = (np.floor(patch.pixels(axis) + 0.5).astype(np.int64) - self.origin[axis] for axis in range(2))
        inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
        nearest = mask[np.clip(rows, 0, mask.shape[0] - 1)[:, None], np.clip(columns, 0, mask.shape[1] - 1)]
        return np.asarray(inside & nearest)


def consensus(nodule: Nodule, slice_index: int) -> Consensus:
    """Return the readers' agreement on one slice. Readers without an outline there count as including nothing."""
    drawn = [_on_slice(annotation, slice_index) for annotation in nodule.annotations]
    points = np.concatenate([contour.points for contours in drawn for contour in contours] or [np.zeros((1, 2), int)])
    origin = points.min(axis=0)
    shape = tuple(points.max(axis=0) - origin + 1)
    share = np.mean([_enclosed(contours, origin, shape) for contours in drawn], axis=0)
    return Consensus(share, (int(origin[0]), int(origin[1])))


def _on_slice(annotation: Annotation, slice_index: int) -> list[Contour]:
    return [contour for contour in annotation.contours if contour.slice_index == slice_index]


def _enclosed(contours: list[Contour], origin: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels inside one reader's outlines and outside the holes, without the outlines: bool (h, w).

    LIDC's readers drew around the outermost pixels of the nodule. The order and the rule are those of pylidc's
    `boolean_mask`.
    """
    mask = np.zeros(shape, dtype=bool)
    for contour in sorted(contours, key=lambda contour: not contour.inclusion):
        points = contour.points - origin
        inside = grid_points_in_poly(shape, points, binarize=False) == 1  # type: ignore[no-untyped-call]
        mask = mask | inside if contour.inclusion else mask & ~inside
        mask[points[:, 0], points[:, 1]] = False
    return mask
