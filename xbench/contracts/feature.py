"""What a plugin derives from an image alone (superpixels, regions): once for all explainers, signs and metrics."""

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
    """One array an image, made from nothing but the image. Authors give `shape` and `compute`.

    The harness computes it once a split, keeps it on disk, and hands it to every explainer and metric whose `feature`
    has the same identity.

    Args:
        name: "superpixels", say.
        parameters: What determines it beside the image; JSON values.
        dtype: Of the array.
    """

    def __init__(self, name: str, parameters: dict[str, Any], dtype: str = "int32") -> None:
        self.name = name
        self.parameters = parameters
        self.dtype = np.dtype(dtype)

    @abstractmethod
    def shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the array for images of `spatial` pixels."""

    @abstractmethod
    def compute(self, image: np.ndarray) -> np.ndarray:
        """The array of one image: float32 (C, *spatial), in [0, 1] -> `dtype`, `shape(spatial)`.

        Called from several threads at once.
        """

    def computed(self, image: np.ndarray) -> np.ndarray:
        """`compute`, checked.

        Raises:
            PluginError: The array has another shape.
        """
        made = np.asarray(self.compute(image), dtype=self.dtype)
        expected = self.shape(image.shape[1:])
        if made.shape != expected:
            raise PluginError(f"image feature {self.name} has shape {made.shape}, expected {expected}")
        return made

    def join(self, batch: Batch) -> Batch:
        """The batch with this feature of its images in `batch.feature`, on their device."""
        import torch

        with ThreadPoolExecutor(min(len(batch), os.cpu_count() or 1)) as pool:
            made = np.stack(list(pool.map(self.computed, batch.images.detach().cpu().numpy())))
        return dataclasses.replace(batch, feature=torch.from_numpy(made).to(batch.images.device))
