"""Depths of pixels in ellipses, tubes and ellipsoids, and the shares of pixels that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from xbench_contrast.anatomy import Heart, Tubes


@dataclass(frozen=True)
class View:
    """The pixels of a slice in the reference chest.

    Attributes:
        x: float64 (H, W), mm.
        y: Likewise.
        level: Their z.
        sharp: Standard deviation across an edge, mm.
    """

    x: np.ndarray
    y: np.ndarray
    level: float
    sharp: float

    def share(self, depth: np.ndarray) -> np.ndarray:
        """Of a pixel, within a blurred edge; `depth` in mm, positive inside."""
        return np.asarray(ndtr(depth / self.sharp))

    def ellipse(self, x: float, y: float, semi_axes: tuple[float, float], exponent: float = 2.0) -> np.ndarray:
        """Depth along the radius in a superellipse: float64 (H, W), mm."""
        across, down = np.abs(self.x - x) + 1e-9, np.abs(self.y - y) + 1e-9
        norm = ((across / semi_axes[0]) ** exponent + (down / semi_axes[1]) ** exponent) ** (1 / exponent)
        return np.asarray(np.hypot(across, down) * (1 / norm - 1))

    def tubes(self, tubes: Tubes) -> np.ndarray:
        """Greatest depth in the tubes of either compartment: float64 (2, H, W), mm."""
        near = _reaches(tubes, self.level)
        depth = np.full((2, *self.x.shape), -1e3)
        along = tubes.end - tubes.start
        for index in np.flatnonzero(near):
            start, axis = tubes.start[index], along[index]
            dx, dy, dz = self.x - start[0], self.y - start[1], self.level - start[2]
            place = ((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis)).clip(0, 1)
            distance = np.sqrt((dx - place * axis[0]) ** 2 + (dy - place * axis[1]) ** 2 + (dz - place * axis[2]) ** 2)
            radius = tubes.radius[index, 0] + place * (tubes.radius[index, 1] - tubes.radius[index, 0])
            here = depth[tubes.compartment[index]]
            np.maximum(here, radius - distance, out=here)
        return depth

    def chambers(self, heart: Heart) -> np.ndarray:
        """Depth in each of the heart's ellipsoids, to first order: float64 (4, H, W), mm."""
        across, down, up = (heart.axes[:, :, axis, None, None] for axis in range(3))
        centre = np.einsum("cij,cj->ci", heart.axes, heart.centre)[:, :, None, None]
        semi_axes = heart.semi_axes[:, :, None, None]
        local = (across * self.x + down * self.y + (up * self.level - centre)) / semi_axes
        norm = np.sqrt((local**2).sum(axis=1)) + 1e-9
        slope = np.sqrt(((local / semi_axes) ** 2).sum(axis=1)) + 1e-9 / heart.semi_axes.max()
        return np.asarray(norm * (1 - norm) / slope)


def _reaches(tubes: Tubes, level: float) -> np.ndarray:
    """Whether a tube comes near the level: bool (T,)."""
    margin = tubes.radius.max(axis=1) + 12
    low = np.minimum(tubes.start[:, 2], tubes.end[:, 2]) - margin
    high = np.maximum(tubes.start[:, 2], tubes.end[:, 2]) + margin
    return np.asarray((low < level) & (level < high))
