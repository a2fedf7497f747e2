"""Superpixels, which LIME, KernelSHAP and feature ablation switch on and off."""

from __future__ import annotations

import math

import numpy as np
from skimage.segmentation import slic

from xbench import ImageFeature

_LEAST_SHARE = 0.25  # least share of the wanted superpixels that must remain
_TIGHTENING = 10.0
_TRIES = 4


class Superpixels(ImageFeature):
    """SLIC superpixels (Achanta et al. 2012; scikit-image): labels 0 to M - 1, int32 (*spatial), for 2 or 3 axes.

    SLIC is k-means of intensity and position, started from a regular grid. Small pieces then join their neighbours. M
    differs from image to image. All channels have the same weight in the distance. scikit-image would convert three
    channels to Lab, but that is for photographs, and its range of 100 needs another compactness.

    In an image of pure noise, each cluster is scattered. Joining the pieces can then leave a single superpixel, which
    explains nothing. If fewer than a quarter of the wanted superpixels remain, SLIC runs again with ten times the
    compactness, until it gives the regular grid.

    Args:
        n_segments: Number of superpixels to aim at.
        compactness: Weight of position against intensity, which SLIC stretches to [0, 1] in each image.
    """

    def __init__(self, n_segments: int = 50, compactness: float = 0.1) -> None:
        super().__init__("superpixels", {"n_segments": n_segments, "compactness": compactness}, "int32")
        self.n_segments, self.compactness = n_segments, compactness

    def shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Return the image's own size: there is one label per pixel."""
        return spatial

    def compute(self, image: np.ndarray) -> np.ndarray:
        """Return the labels: float32 (C, *spatial) -> int32 (*spatial)."""
        least = _LEAST_SHARE * min(self.n_segments, math.prod(image.shape[1:]))
        for attempt in range(_TRIES):
            labels = self._slic(image, self.compactness * _TIGHTENING**attempt)
            if labels.max() + 1 >= least:
                break
        return labels

    def _slic(self, image: np.ndarray, compactness: float) -> np.ndarray:
        labels = slic(
            np.moveaxis(image, 0, -1),
            n_segments=self.n_segments,
            compactness=compactness,
            channel_axis=-1,
            convert2lab=False,
            start_label=0,
        )
        # Joining pieces may leave gaps in the numbers, so they are numbered again.
        return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
