"""Rendering of a nodule: the readers' consensus outline, filled, blurred, lobed and spiculated as they rated it.

The malignancy rating is not used. The class shows only as far as the outline and the other findings show it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.special import ndtr

from xbench_lidc.outlines import Consensus, Patch
from xbench_lidc.records import Nodule
from xbench_lidc.tissue import AIR, FAT, smooth_noise

CALCIUM = 650.0
POPCORN, LAMINATED, SOLID, NON_CENTRAL, CENTRAL, NO_CALCIUM = range(1, 7)
FLUID_INSIDE, FAT_INSIDE, AIR_INSIDE = 2, 3, 4


@dataclass(frozen=True)
class Findings:
    """The readers' findings on a nodule without malignancy: means of 1..5 ratings, and shares of readers.

    Attributes:
        texture: Mean rating: 1 ground glass, 3 part solid, 5 solid.
        margin: Mean rating: 1 poorly defined, 5 sharp.
        lobulation: Mean rating: 1 none, 5 marked.
        spiculation: Mean rating: 1 none, 5 marked.
        calcium: Share of the readers who saw calcification.
        pattern: The calcification that most of these readers saw (1 popcorn .. 5 central), or 6 if no one saw any.
        content: Shares of the readers who saw fluid (2), fat (3) or air (4) inside.
    """

    texture: float
    margin: float
    lobulation: float
    spiculation: float
    calcium: float
    pattern: int
    content: dict[int, float]

    @classmethod
    def of(cls, nodule: Nodule) -> Findings:
        """Return the findings of a nodule's readers."""
        ratings = [annotation.ratings for annotation in nodule.annotations]
        calcified = [r.calcification for r in ratings if r.calcification != NO_CALCIUM]
        inside = Counter(r.internal_structure for r in ratings)
        return cls(
            texture=float(np.mean([r.texture for r in ratings])),
            margin=float(np.mean([r.margin for r in ratings])),
            lobulation=float(np.mean([r.lobulation for r in ratings])),
            spiculation=float(np.mean([r.spiculation for r in ratings])),
            calcium=len(calcified) / len(ratings),
            pattern=Counter(sorted(calcified)).most_common(1)[0][0] if calcified else NO_CALCIUM,
            content={kind: inside[kind] / len(ratings) for kind in (FLUID_INSIDE, FAT_INSIDE, AIR_INSIDE)},
        )


def depth_map(outline: Consensus, patch: Patch) -> np.ndarray:
    """Return the signed distance from the consensus outline, in mm, positive inside: float64 (size, size).

    It is measured between the scan's own pixels and interpolated, so the outline is smooth where the patch is finer.
    """
    first = [int(np.floor(patch.pixels(axis)[0])) - 1 for axis in range(2)]
    last = [int(np.ceil(patch.pixels(axis)[-1])) + 2 for axis in range(2)]
    canvas = np.zeros((last[0] - first[0], last[1] - first[1]), dtype=bool)
    mask = outline.mask
    low = [max(outline.origin[axis], first[axis]) for axis in range(2)]
    high = [min(outline.origin[axis] + mask.shape[axis], last[axis]) for axis in range(2)]
    target = tuple(slice(low[axis] - first[axis], high[axis] - first[axis]) for axis in range(2))
    source = tuple(slice(low[axis] - outline.origin[axis], high[axis] - outline.origin[axis]) for axis in range(2))
    canvas[target] = mask[source]
    distance = distance_transform_edt(canvas) - distance_transform_edt(~canvas)
    if distance.max() >= 2:  # smooth the pixel steps, but not of a nodule of two or three pixels, which would vanish
        distance = gaussian_filter(distance, 0.6)
    rows, columns = np.meshgrid(patch.pixels(0) - first[0], patch.pixels(1) - first[1], indexing="ij")
    return np.asarray(map_coordinates(distance, [rows, columns], order=1)) * patch.pixel_spacing


def add_nodule(
    tissue: np.ndarray, depth: np.ndarray, offsets: np.ndarray, findings: Findings, draw: np.random.Generator
) -> np.ndarray:
    """Return the tissue with a nodule in it.

    Args:
        tissue: Tissue without the nodule, float64 (size, size), HU.
        depth: Distance from the outline, positive inside, float64 (size, size), mm.
        offsets: Distances of the samples from the patch's centre, float64 (size,), mm.
        findings: The readers' findings, which determine the looks.
        draw: Generator for everything random.

    Returns:
        float64 (size, size), HU.
    """
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    weight = ndtr((depth - min(float(depth.max()), 0.0)) / 0.5)  # never all zero, even if the nodule is off the patch
    middle = np.array([np.sum(y * weight), np.sum(x * weight)]) / weight.sum()
    angle = np.arctan2(y - middle[0], x - middle[1])
    reach = max(float(depth.max()), 0.5)
    depth = depth + _lobes(angle, reach, findings.lobulation, draw)
    share = _body(depth, reach, findings)
    spacing = offsets[1] - offsets[0]
    share = share * (1 + (0.05 + 0.1 * (1 - _solid(findings))) * smooth_noise(len(offsets), 1.0 / spacing, draw))
    spikes = _spicules(y, x, depth, middle, findings, draw)
    share = np.clip(1 - (1 - share) * (1 - spikes), 0, 1)
    tissue = tissue + share * (draw.normal(35, 12) - tissue)
    tissue = _contents(tissue, depth, reach, findings)
    return tissue + findings.calcium * _calcification(depth, y, x, reach, findings.pattern, draw) * (CALCIUM - tissue)


def _solid(findings: Findings) -> float:
    return (findings.texture - 1) / 4


def _lobes(angle: np.ndarray, reach: float, lobulation: float, draw: np.random.Generator) -> np.ndarray:
    """Return the outline's lobes in mm, which the readers' polygons smooth away."""
    count, phase = draw.integers(4, 8), draw.uniform(0, 2 * np.pi)
    return np.asarray(0.12 * reach * (lobulation - 1) / 4 * (np.abs(np.cos(count * angle / 2 + phase)) - 0.64))


def _body(depth: np.ndarray, reach: float, findings: Findings) -> np.ndarray:
    """Return the share of soft tissue: a rim and a denser core, which are equal in a solid nodule."""
    blur = np.interp(findings.margin, [1, 5], [1.5, 0.4])
    ratings = [1, 2, 3, 4, 5]
    rim = np.interp(findings.texture, ratings, [0.28, 0.34, 0.45, 0.8, 1.0])
    core = np.interp(findings.texture, ratings, [0.32, 0.5, 0.95, 1.0, 1.0])
    start = reach * np.interp(findings.texture, ratings, [0.7, 0.6, 0.45, 0.2, 0.0])
    return np.asarray(ndtr(depth / blur) * (rim + (core - rim) * ndtr((depth - start) / 0.6)))


def _spicules(
    y: np.ndarray, x: np.ndarray, depth: np.ndarray, middle: np.ndarray, findings: Findings, draw: np.random.Generator
) -> np.ndarray:
    """Return the share of soft tissue in fine strands that taper outwards from the edge: float64 (size, size)."""
    strength = (findings.spiculation - 1) / 4
    edge = np.argwhere(np.abs(depth) < 0.8)
    count = round(22 * strength)
    if count == 0 or len(edge) == 0:
        return np.zeros_like(depth)
    start = edge[draw.integers(0, len(edge), count)]
    row, column = (grid[start[:, 0], start[:, 1]][:, None, None] for grid in (y, x))
    direction = np.arctan2(row - middle[0], column - middle[1]) + draw.normal(0, 0.3, (count, 1, 1))
    length = (2.0 + 5.0 * strength) * draw.uniform(0.5, 1.2, (count, 1, 1))
    width = draw.uniform(0.3, 0.6, (count, 1, 1))
    along = (x - column) * np.cos(direction) + (y - row) * np.sin(direction)
    across = (y - row) * np.cos(direction) - (x - column) * np.sin(direction)
    taper = width * np.clip(1 - along / length, 0, 1)
    strands = ndtr((taper - np.abs(across)) / 0.3) * ndtr((along + 0.5) / 0.4) * (along < length)
    return np.asarray(strands.max(axis=0) * (0.4 + 0.6 * _solid(findings)))


def _contents(tissue: np.ndarray, depth: np.ndarray, reach: float, findings: Findings) -> np.ndarray:
    """Return the tissue with fluid, fat or air in the middle, by the share of readers who saw it."""
    hollow = ndtr((depth - 0.4 * reach) / 0.5)
    for kind, material in ((FLUID_INSIDE, 5.0), (FAT_INSIDE, FAT), (AIR_INSIDE, AIR)):
        tissue = tissue + findings.content[kind] * hollow * (material - tissue)
    return tissue


def _calcification(
    depth: np.ndarray, y: np.ndarray, x: np.ndarray, reach: float, pattern: int, draw: np.random.Generator
) -> np.ndarray:
    """Return the share of calcium for a pattern (LIDC's names): float64 (size, size)."""
    if pattern == SOLID:
        return np.asarray(ndtr((depth - 0.4) / 0.4))
    if pattern == CENTRAL:
        return np.asarray(ndtr((depth - 0.5 * reach) / 0.4))
    if pattern == LAMINATED:
        return np.asarray(ndtr(depth / 0.4) * (0.5 + 0.5 * np.cos(4 * np.pi * depth / reach)))
    if pattern in (POPCORN, NON_CENTRAL):
        inside = np.argwhere(depth >= min(0.3 * reach, float(depth.max())))
        count = 5 if pattern == POPCORN else 1
        spots = inside[draw.integers(0, len(inside), count)]
        distance = np.min([np.hypot(y - y[i, j], x - x[i, j]) for i, j in spots], axis=0)
        return np.asarray(ndtr((max(0.35 * reach, 0.6) - distance) / 0.4) * ndtr(depth / 0.4))
    return np.zeros_like(depth)
