"""Selection of the scored samples that a run shows."""

from __future__ import annotations

import numpy as np

GALLERY = 24
"""Maximum number of samples in a gallery."""


def gallery_samples(labels: np.ndarray, probabilities: np.ndarray, most: int = GALLERY) -> np.ndarray:
    """Select equally many samples of each class, evenly from the surest prediction to the most wrong one.

    The samples of a smaller `most` are among those of `GALLERY`, so that figures of different sizes show the same
    images.

    Args:
        labels: Class indices in [0, K), int (N,).
        probabilities: Class probabilities, (N, K).
        most: Maximum number of samples, at most `GALLERY`. Every class that has samples gets at least one, as far as
            `most` allows.

    Returns:
        Indices of the samples, int64 (n,), class by class.
    """
    present = np.unique(labels)
    chosen = []
    for label in present:
        members = np.flatnonzero(labels == label)
        ordered = members[np.argsort(-probabilities[members, label], kind="stable")]
        kept = ordered[_evenly(len(ordered), GALLERY // len(present))]
        chosen.append(kept[_evenly(len(kept), most // len(present))])
    return np.concatenate(chosen)[:most].astype(np.int64)


def _evenly(count: int, number: int) -> np.ndarray:
    """Return one to `number` evenly spaced positions from 0 to count - 1, both ends included."""
    return np.unique(np.linspace(0, count - 1, max(1, number)).round().astype(int))
