"""Features of an image alone (superpixels, regions), computed once for all explainers, signs and metrics."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.errors import PluginError

if TYPE_CHECKING:
    from xbench.contracts.samples import Batch


class ImageFeature(ABC):
    """An array for each image that depends on the image alone. Authors write `shape` and `compute`.

    The harness computes the feature once per split, keeps it on disk, and hands it to every explainer and metric whose
    `feature` has the same identity.

    Args:
        name: Name of the feature, such as "superpixels".
        parameters: Everything beside the image that determines the feature, as JSON values.
        dtype: Dtype of the array.
    """

    def __init__(self, name: str, parameters: dict[str, Any], dtype: str = "int32") -> None:
        self.name = name
        self.parameters = parameters
        self.dtype = np.dtype(dtype)

    @abstractmethod
    def shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the array for images of `spatial` pixels."""

    @abstractmethod
    def compute(self, image: np.ndarray) -> np.ndarray:
        """Return the array of one image: float32 (C, *spatial), in [0, 1] -> `dtype`, `shape(spatial)`.

        Called from several threads at once.
        """

    def computed(self, image: np.ndarray) -> np.ndarray:
        """Return the array of one image, with its shape checked.

        Raises:
            PluginError: The array has another shape.
        """
        array = np.asarray(self.compute(image), dtype=self.dtype)
        expected = self.shape(image.shape[1:])
        if array.shape != expected:
            raise PluginError(f"image feature {self.name} has shape {array.shape}, expected {expected}")
        return array

    def join(self, batch: Batch) -> Batch:
        """Return the batch with this feature of its images in `batch.feature`, on their device."""
        import torch

        with ThreadPoolExecutor(min(len(batch), os.cpu_count() or 1)) as pool:
            arrays = np.stack(list(pool.map(self.computed, batch.images.detach().cpu().numpy())))
        return dataclasses.replace(batch, feature=torch.from_numpy(arrays).to(batch.images.device))
