"""Depths of pixels inside ellipses, tubes and ellipsoids, and the resulting shares of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from xbench_contrast.anatomy import Heart, Tubes


@dataclass(frozen=True)
class View:
    """The pixels of a slice in the reference chest.

    Attributes:
        x: x of the pixels, float64 (H, W), mm.
        y: y of the pixels, float64 (H, W), mm.
        level: z of the pixels, mm.
        sharp: Standard deviation of the blur across an edge, mm.
    """

    x: np.ndarray
    y: np.ndarray
    level: float
    sharp: float

    def share(self, depth: np.ndarray) -> np.ndarray:
        """Return the share of a pixel inside a blurred edge; `depth` in mm, positive inside."""
        return np.asarray(ndtr(depth / self.sharp))

    def ellipse(self, x: float, y: float, semi_axes: tuple[float, float], exponent: float = 2.0) -> np.ndarray:
        """Return the depth along the radius in a superellipse: float64 (H, W), mm."""
        across, down = np.abs(self.x - x) + 1e-9, np.abs(self.y - y) + 1e-9
        norm = ((across / semi_axes[0]) ** exponent + (down / semi_axes[1]) ** exponent) ** (1 / exponent)
        return np.asarray(np.hypot(across, down) * (1 / norm - 1))

    def tubes(self, tubes: Tubes) -> np.ndarray:
        """Return the greatest depth in the tubes of each compartment: float64 (2, H, W), mm."""
        near = _reaches(tubes, self.level)
        depth = np.full((2, *self.x.shape), -1e3)
        along = tubes.end - tubes.start
        for index in np.flatnonzero(near):
            start, axis = tubes.start[index], along[index]
            dx, dy, dz = self.x - start[0], self.y - start[1], self.level - start[2]
            share = ((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis)).clip(0, 1)
            distance = np.sqrt((dx - share * axis[0]) ** 2 + (dy - share * axis[1]) ** 2 + (dz - share * axis[2]) ** 2)
            radius = tubes.radius[index, 0] + share * (tubes.radius[index, 1] - tubes.radius[index, 0])
            here = depth[tubes.compartment[index]]
            np.maximum(here, radius - distance, out=here)
        return depth

    def chambers(self, heart: Heart) -> np.ndarray:
        """Return the depth in each of the heart's ellipsoids, to first order: float64 (4, H, W), mm."""
        across, down, up = (heart.axes[:, :, axis, None, None] for axis in range(3))
        centre = np.einsum("cij,cj->ci", heart.axes, heart.centre)[:, :, None, None]
        semi_axes = heart.semi_axes[:, :, None, None]
        local = (across * self.x + down * self.y + (up * self.level - centre)) / semi_axes
        norm = np.sqrt((local**2).sum(axis=1)) + 1e-9
        slope = np.sqrt(((local / semi_axes) ** 2).sum(axis=1)) + 1e-9 / heart.semi_axes.max()
        return np.asarray(norm * (1 - norm) / slope)


def _reaches(tubes: Tubes, level: float) -> np.ndarray:
    """Return whether each tube comes near the level: bool (T,)."""
    margin = tubes.radius.max(axis=1) + 12
    low = np.minimum(tubes.start[:, 2], tubes.end[:, 2]) - margin
    high = np.maximum(tubes.start[:, 2], tubes.end[:, 2]) + margin
    return np.asarray((low < level) & (level < high))
