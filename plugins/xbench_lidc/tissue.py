"""Rendering of lung: aerated tissue, vessels, airways, fissures and chest wall, in Hounsfield units.

No pixel comes from a patient. Everything is composed by volume: a structure takes a share of a pixel, so thin
structures fade as they do in CT. The tissue is drawn from a generator alone. It must not depend on the nodule, or the
class would show outside of it.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

LUNG, AIR, BLOOD, MUSCLE, FAT, RIB = -850.0, -990.0, 40.0, 50.0, -95.0, 420.0
SHARPNESS = 0.35
"""Standard deviation of the scanner's blur across an edge, in mm."""


def lung(offsets: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return one patch of lung without a nodule and without scanner noise.

    Args:
        offsets: Distances of the samples from the patch's centre along either axis, float64 (size,), mm.
        draw: Generator for everything random.

    Returns:
        float64 (size, size), HU.
    """
    size, spacing = len(offsets), offsets[1] - offsets[0]
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    values = (
        LUNG + draw.normal(0, 18) + (draw.normal(0, 18, 2) @ np.stack([y, x]).reshape(2, -1)).reshape(size, size) / 22
    )
    values += 16 * smooth_noise(size, 3.0 / spacing, draw) + 20 * smooth_noise(size, 0.9 / spacing, draw)
    extent = size * spacing
    values = _fill(values, 0.25 * _fissure(y, x, extent, draw), BLOOD)
    values = _airways(values, y, x, extent, draw)
    values = _fill(values, _vessels(y, x, extent, draw), BLOOD)
    return _chest_wall(values, y, x, draw)


def scanner_noise(size: int, spacing: float, draw: np.random.Generator) -> np.ndarray:
    """Return noise of a random dose, correlated over neighbouring samples: float64 (size, size), HU."""
    level = draw.uniform(25, 55)
    return np.asarray(level * smooth_noise(size, 0.45 / spacing, draw))


def smooth_noise(size: int, width: float, draw: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise of unit variance, blurred over `width` samples: float64 (size, size)."""
    noise = gaussian_filter(draw.standard_normal((size, size)), width, mode="wrap")
    return np.asarray(noise / noise.std())


def _fill(values: np.ndarray, share: np.ndarray, material: float) -> np.ndarray:
    return values + share * (material - values)


def _inside(distance: np.ndarray) -> np.ndarray:
    """Return the share of a pixel inside a blurred edge; `distance` in mm, positive inside."""
    return np.asarray(ndtr(distance / SHARPNESS))


def _vessels(y: np.ndarray, x: np.ndarray, extent: float, draw: np.random.Generator) -> np.ndarray:
    """Return the share of blood in each pixel: branching vessels in the slice, and sections of crossing vessels."""
    area = (extent / 45.0) ** 2
    course = draw.uniform(0, 2 * np.pi)
    trunks = [_trunk(extent, course, draw) for _ in range(1 + draw.poisson(2.5 * area))]
    branches = [_branch(parent, draw) for parent in trunks for _ in range(draw.integers(0, 3))]
    twigs = [_branch(parent, draw) for parent in branches for _ in range(draw.integers(0, 3))]
    shares = [_tubes(y, x, np.array(trunks + branches + twigs)[:, :, None, None])]
    shares.append(_cross_sections(y, x, draw.poisson(8.0 * area), extent, draw))
    return np.asarray(1 - np.prod(1 - np.concatenate(shares), axis=0))


def _cross_sections(y: np.ndarray, x: np.ndarray, count: int, extent: float, draw: np.random.Generator) -> np.ndarray:
    """Return the shares of round to oblong sections, (count, H, W)."""
    row, column = draw.uniform(-extent / 2, extent / 2, (2, count, 1, 1))
    angle, stretch = draw.uniform(0, np.pi, (count, 1, 1)), 1 + draw.gamma(1.0, 0.5, (count, 1, 1))
    radius = np.minimum(0.3 + draw.gamma(3.0, 0.22, (count, 1, 1)), 1.8)
    major = (x - column) * np.cos(angle) + (y - row) * np.sin(angle)
    minor = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
    return _inside(radius - np.hypot(major / stretch, minor)) * np.minimum(1, radius / 0.6)


def _trunk(extent: float, course: float, draw: np.random.Generator) -> tuple[float, ...]:
    """Return row, column, direction, curvature (1/mm), length (mm) and radius at either end (mm)."""
    direction = course + draw.normal(0, 0.5)
    row, column = draw.uniform(-0.6, 0.6, 2) * extent
    length = min(8 + draw.gamma(2.0, 10.0), 1.5 * extent)
    radius = min(0.5 + draw.gamma(2.0, 0.32), 2.4)
    start = row - 0.5 * length * np.sin(direction), column - 0.5 * length * np.cos(direction)
    return (*start, direction, draw.normal(0, 0.012), length, radius, 0.5 * radius)


def _branch(parent: tuple[float, ...], draw: np.random.Generator) -> tuple[float, ...]:
    row, column, direction, curvature, length, radius, end = parent
    along = draw.uniform(0.2, 0.9) * length
    aside = curvature * along**2
    turn = direction + np.arctan(2 * curvature * along) + draw.choice([-1, 1]) * draw.uniform(0.4, 1.0)
    start_row = row + along * np.sin(direction) + aside * np.cos(direction)
    start_column = column + along * np.cos(direction) - aside * np.sin(direction)
    width = (radius + (end - radius) * along / length) * draw.uniform(0.5, 0.8)
    return (start_row, start_column, turn, draw.normal(0, 0.02), draw.uniform(5, 18), width, 0.4 * width)


def _tubes(y: np.ndarray, x: np.ndarray, branches: np.ndarray) -> np.ndarray:
    """Return the shares of each branch, a tapering parabola: (branches, 7, 1, 1) -> (branches, H, W)."""
    row, column, direction, curvature, length, radius, end = branches.swapaxes(0, 1)
    along = (x - column) * np.cos(direction) + (y - row) * np.sin(direction)
    across = (y - row) * np.cos(direction) - (x - column) * np.sin(direction)
    aside = np.abs(across - curvature * along**2) / np.sqrt(1 + (2 * curvature * along) ** 2)
    beyond = np.maximum(0, np.abs(along - length / 2) - length / 2)
    width = radius + (end - radius) * np.clip(along / length, 0, 1)
    shown = ndtr((length - along) / (0.15 * length)) * np.minimum(1, width / 0.6)
    # A vessel that leaves the slice ends in half an ellipse.
    return np.asarray(_inside(width - np.hypot(aside, beyond / 2)) * shown)


def _airways(values: np.ndarray, y: np.ndarray, x: np.ndarray, extent: float, draw: np.random.Generator) -> np.ndarray:
    """Return the values, in some patches with bronchi in cross section: a wall around air, beside the artery."""
    for _ in range(draw.poisson(0.35 * (extent / 45.0) ** 2)):
        row, column = draw.uniform(-extent / 2, extent / 2, 2)
        lumen, stretch, angle = draw.uniform(0.8, 2.0), draw.uniform(1.0, 1.5), draw.uniform(0, np.pi)
        major = (x - column) * np.cos(angle) + (y - row) * np.sin(angle)
        minor = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
        distance = np.hypot(major / stretch, minor)
        values = _fill(values, 0.7 * _inside(lumen + 0.6 - distance), BLOOD)
        values = _fill(values, _inside(lumen - distance), AIR)
        side = lumen + 1.4
        artery = np.hypot(y - row - side * np.sin(angle + 1.6), x - column - side * np.cos(angle + 1.6))
        values = _fill(values, _inside(0.8 * lumen - artery), BLOOD)
    return values


def _fissure(y: np.ndarray, x: np.ndarray, extent: float, draw: np.random.Generator) -> np.ndarray:
    """Return the share of the thin, slightly bent sheet between two lobes, in every seventh patch; else zeros."""
    angle, offset, bend, present = (
        draw.uniform(0, np.pi),
        draw.uniform(-0.5, 0.5) * extent,
        draw.normal(0, 0.006),
        draw.random(),
    )
    if present > 1 / 7:
        return np.zeros_like(y)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(np.exp(-0.5 * ((across - offset - bend * along**2) / 0.6) ** 2))


def _chest_wall(values: np.ndarray, y: np.ndarray, x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return the values, in every fourth patch with the chest wall: muscle, fat and a rib behind a curved pleura."""
    angle, depth, radius = draw.uniform(0, 2 * np.pi), draw.uniform(14, 26), draw.uniform(70, 140)
    slant, thickness, present = draw.uniform(-30, 30), draw.uniform(3, 7), draw.random()
    if present > 1 / 4:
        return values
    away, beside = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    beyond = np.hypot(away - depth + radius, beside) - radius
    values = _fill(values, _inside(beyond), MUSCLE)
    values = _fill(values, 0.8 * _inside(beyond - thickness) * _inside(thickness + 2.5 - beyond), FAT)
    rib = 1 - np.hypot((away - depth - thickness) / 4.0, (beside - slant) / 11.0)
    values = _fill(values, _inside(4.0 * rib), RIB)
    return _fill(values, 0.75 * _inside(4.0 * rib - 1.5), 120.0)
