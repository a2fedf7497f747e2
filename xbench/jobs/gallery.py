"""Which of the scored samples a run shows."""

from __future__ import annotations

import numpy as np

GALLERY = 24
"""The most samples that a gallery keeps."""


def gallery_samples(labels: np.ndarray, probabilities: np.ndarray, most: int = GALLERY) -> np.ndarray:
    """Of each class equally many, evenly from the one the classifier is surest of to the one it is most wrong about.

    Nested: the fewer samples of a smaller `most` are among those of `GALLERY`, so that figures of different size speak
    of the same images.

    Args:
        labels: int (N,), in [0, K).
        probabilities: (N, K).
        most: At most so many, at most `GALLERY`; at least one of each class that has any, as far as they go.

    Returns:
        int64 (n,), class by class.
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
    """At least one, at most `number` of the positions 0 to count - 1, the ends included."""
    return np.unique(np.linspace(0, count - 1, max(1, number)).round().astype(int))
