"""The vessels of the lungs: trees of tapering branches, stored as beads that hold the branches' volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEP = 1.5
"""Distance between neighbouring beads, in mm."""
_MURRAY = 2 ** (-1 / 3)
"""Ratio of radii at a symmetric bifurcation (Murray's law)."""
_GENERATIONS = 6


@dataclass(frozen=True)
class Beads:
    """Points along vessels.

    Attributes:
        position: Positions, float64 (B, 3), mm.
        radius: Radius of the vessel at the bead, float64 (B,), mm.
        volume: Volume of the piece of vessel that the bead stands for, float64 (B,), mm^3.
        compartment: Compartment of the blood, int64 (B,).
    """

    position: np.ndarray
    radius: np.ndarray
    volume: np.ndarray
    compartment: np.ndarray

    @staticmethod
    def joined(parts: Sequence[Beads]) -> Beads:
        """Return all beads of the parts."""
        return Beads(
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.radius for part in parts]),
            np.concatenate([part.volume for part in parts]),
            np.concatenate([part.compartment for part in parts]),
        )

    def where(self, kept: np.ndarray) -> Beads:
        """Return the beads where `kept`, bool (B,), is True."""
        return Beads(self.position[kept], self.radius[kept], self.volume[kept], self.compartment[kept])


def grow(
    root: np.ndarray, side: float, radius: float, stems: int, compartment: int, draw: np.random.Generator
) -> Beads:
    """Return a tree that grows into one lung.

    Args:
        root: Start of the tree, (3,), mm.
        side: +1 for the patient's left lung, -1 for the right.
        radius: Radius of a stem, mm.
        stems: Number of branches that leave the root.
        compartment: Compartment of the blood.
        draw: Generator for everything random.
    """
    start = np.repeat(root[None], stems, axis=0)
    direction = _fan(side, stems, draw)
    wide, length = radius * draw.uniform(0.8, 1.15, stems), 26 * draw.uniform(0.8, 1.2, stems)
    parts = []
    for _ in range(_GENERATIONS):
        parts.append(_along(start, direction, length, wide, compartment))
        ends = start + direction * length[:, None]
        start, direction = np.repeat(ends, 2, axis=0), _forked(direction, draw)
        wide = np.repeat(wide, 2) * _MURRAY * draw.uniform(0.85, 1.1, len(start))
        length = np.repeat(length, 2) * 0.8 * draw.uniform(0.7, 1.25, len(start))
    return Beads.joined(parts)


def _fan(side: float, stems: int, draw: np.random.Generator) -> np.ndarray:
    """Return directions away from the middle, spread over head and feet, front and back: float64 (stems, 3)."""
    turn = 2 * np.pi * (np.arange(stems) + draw.uniform(0, 1)) / stems
    tilt = draw.uniform(0.5, 1.2, stems)
    fan = np.stack([side * np.cos(tilt), np.sin(tilt) * np.cos(turn), 1.3 * np.sin(tilt) * np.sin(turn)], axis=1)
    return np.asarray(fan / np.linalg.norm(fan, axis=1, keepdims=True))


def _forked(direction: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return the directions of two children of each branch, to either side of it: float64 (2 B, 3)."""
    across = np.cross(direction, draw.standard_normal(direction.shape))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    angle = draw.uniform(0.3, 0.9, (len(direction), 2, 1)) * np.array([[[1.0], [-1.0]]])
    children = np.cos(angle) * direction[:, None] + np.sin(angle) * across[:, None]
    return np.asarray(children.reshape(-1, 3))


def _along(start: np.ndarray, direction: np.ndarray, length: np.ndarray, radius: np.ndarray, compartment: int) -> Beads:
    """Return beads every `STEP` along the branches, which taper by a tenth."""
    counts = np.ceil(length / STEP).astype(np.int64)
    branch = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(len(branch)) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5
    share = position / counts[branch]
    wide = radius[branch] * (1 - 0.1 * share)
    return Beads(
        position=start[branch] + direction[branch] * (share * length[branch])[:, None],
        radius=wide,
        volume=np.pi * wide**2 * (length / counts)[branch],
        compartment=np.full(len(branch), compartment),
    )
