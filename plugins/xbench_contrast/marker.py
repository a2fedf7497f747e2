"""The planted confounder: a letter burnt into a corner, as radiographers' side markers are."""

from __future__ import annotations

import numpy as np

_LETTER = np.array([[1, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=bool)
"""An R."""
BRIGHT = 1000.0
"""Its attenuation: the top of the window."""


def marker_mask(size: int, draw: np.random.Generator) -> np.ndarray:
    """Pixels of a letter near the upper left corner, where no body is: bool (size, size).

    Args:
        size: Side of the slice, at least 64; the letter has about a tenth of it.
        draw: Of its place, which varies by some pixels.
    """
    cell = size // 64
    letter = np.kron(_LETTER, np.ones((cell, cell), dtype=bool))
    row, column = draw.integers(cell, 2 * cell + 1, 2)
    mask = np.zeros((size, size), dtype=bool)
    mask[row : row + letter.shape[0], column : column + letter.shape[1]] = letter
    return mask
