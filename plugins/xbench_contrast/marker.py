"""The planted confounder: a letter burnt into a corner, like radiographers' side markers."""

from __future__ import annotations

import numpy as np

_LETTER = np.array([[1, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=bool)
"""Pixels of the letter R."""
BRIGHT = 1000.0
"""Attenuation of the letter in HU: the top of the window."""


def marker_mask(size: int, draw: np.random.Generator) -> np.ndarray:
    """Return the pixels of a letter near the upper left corner, outside of the body: bool (size, size).

    Args:
        size: Side of the slice in pixels, at least 64. The letter takes about a tenth of it.
        draw: Generator for the position, which varies by some pixels.
    """
    cell = size // 64
    letter = np.kron(_LETTER, np.ones((cell, cell), dtype=bool))
    row, column = draw.integers(cell, 2 * cell + 1, 2)
    mask = np.zeros((size, size), dtype=bool)
    mask[row : row + letter.shape[0], column : column + letter.shape[1]] = letter
    return mask
