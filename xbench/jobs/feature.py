"""The job of an image feature, computed once for all explainers and signs that want it."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from xbench.contracts.feature import ImageFeature
from xbench.contracts.session import Session
from xbench.jobs.base import Job, Settings
from xbench.jobs.data import DataJob
from xbench.jobs.store import Store
from xbench.registry.plugin_code import code_of
from xbench.registry.references import Choice
from xbench.runtime.mapped import MappedArray, writing

FEATURES = "features.npy"


class FeatureJob(Job):
    """One feature of the scored images: features.npy (N, ...).

    Args:
        store: The cache.
        settings: Settings of the run.
        feature: The feature to compute for each image.
        owner: The explainer or metric that asks for it. Items of one plugin with the same requirements share it.
        data: The dataset whose scored samples are used.
    """

    kind = "feature"

    def __init__(self, store: Store, settings: Settings, feature: ImageFeature, owner: Choice, data: DataJob) -> None:
        super().__init__(store, settings)
        self.feature, self.owner, self.data = feature, owner, data

    @property
    def label(self) -> str:
        return f"{self.feature.name} of {self.data.label}"

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.data,)

    def identity(self) -> dict[str, Any]:
        made_by = f"{type(self.feature).__module__}:{type(self.feature).__qualname__}"
        chosen = {"split": self.settings.split, "limit": self.settings.limit}
        feature = {"name": self.feature.name, "parameters": self.feature.parameters, "class": made_by}
        return feature | code_of(self.owner.entry) | chosen

    def build(self, session: Session) -> None:
        scored, workers = self.data.scored, os.cpu_count() or 1
        shape = (len(scored), *self.feature.shape(self.data.info.spatial))
        with (
            writing(session.folder / FEATURES, self.feature.dtype, shape) as out,
            ThreadPoolExecutor(workers) as pool,
        ):

            def computed(start: int, stop: int) -> list[np.ndarray]:
                return list(pool.map(self.feature.computed, scored.batch(np.arange(start, stop)).images.numpy()))

            # Only a few images at a time, because their arrays wait in memory until they are written in order.
            few = session.resized(4 * workers)
            for _, arrays in few.batched(len(scored), computed, self.feature.name):
                for array in arrays:
                    out.append(array)

    @functools.cached_property
    def features(self) -> MappedArray:
        """The feature of each image, (N, ...), read slice by slice."""
        return MappedArray(np.load(self.folder / FEATURES, mmap_mode="r"))
