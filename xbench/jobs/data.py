"""The job of a dataset, which is prepared once and opened by split."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from xbench.contracts.dataset import Dataset, DatasetInfo, Split
from xbench.contracts.session import Session
from xbench.errors import ArtifactError, UserError
from xbench.jobs.base import Job, Settings
from xbench.jobs.content import content_of
from xbench.jobs.store import Store
from xbench.registry.references import Choice
from xbench.runtime.seeding import derive

_MEAN_SAMPLES = 2048
_MEAN_BATCH = 64
_CONTENT = "content"


class DataJob(Job):
    """A prepared (rendered or indexed) dataset. It does not depend on the run's seed and device."""

    kind = "data"

    def __init__(self, store: Store, settings: Settings, choice: Choice) -> None:
        super().__init__(store, settings)
        self.choice = choice

    @property
    def label(self) -> str:
        return self.choice.label

    @property
    def upstream(self) -> tuple[Job, ...]:
        return ()

    def identity(self) -> dict[str, Any]:
        return self.choice.identity()

    def build(self, session: Session) -> None:
        self.dataset.prepare(session.folder, session)

    @functools.cached_property
    def dataset_identity(self) -> str:
        """Identity of the scored data, which two runs must share to be ranked together: 64 hexadecimal digits.

        It is a hash of the content of the scored samples in their order. Unlike `fingerprint`, it does not depend on
        code, options, libraries or machines, so that all runs with the same images, labels and masks join one ranking.
        If the dataset could not be prepared or opened, it is the fingerprint.
        """
        try:
            return self._content() if self.store.has(self) else self.fingerprint
        except Exception:  # whatever a plugin raised has failed the cells of this data already, with its reason
            return self.fingerprint

    def _content(self) -> str:
        try:
            return ContentJob(self).digest
        except ArtifactError:  # a full disk, say: a row must not get another hash for it
            return content_of(self.info, self.scored)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The plugin's object."""
        dataset: Dataset = self.choice.create()
        return dataset

    def forget(self) -> None:
        """Drop the plugin's object if it failed. A prepared dataset serves the whole run and takes no device memory."""
        if not self.store.has(self):
            vars(self).pop("dataset", None)

    @property
    def info(self) -> DatasetInfo:
        """Classes and geometry. Needs no preparation."""
        return self.dataset.info

    @functools.lru_cache(maxsize=4)  # noqa: B019  (a job lives as long as its run)
    def split(self, name: str) -> Split:
        """Return one split, checked, with the run's sample seeds."""
        opened = self.dataset.open(name, self.folder)
        return opened.select(np.arange(len(opened)), self.settings.seed)

    @functools.cached_property
    def scored(self) -> Split:
        """The samples to score: the split of the settings, or `limit` of its samples, drawn from every class in turn.

        Raises:
            UserError: A class is missing, or the limit leaves a class without samples.
        """
        whole = self.split(self.settings.split)
        limit = self.settings.limit
        if limit is None or limit >= len(whole):
            return whole
        if limit < len(self.info.classes):
            raise UserError(f"--limit {limit} leaves a class without a sample", f"at least {len(self.info.classes)}")
        return whole.select(_balanced(whole, limit), self.settings.seed)

    @functools.cached_property
    def of_training(self) -> DataJob:
        """The same dataset with its whole training split as the samples to score."""
        return DataJob(self.store, dataclasses.replace(self.settings, split="train", limit=None), self.choice)

    @functools.cached_property
    def train_mean(self) -> np.ndarray:
        """Mean intensity of (at most 2,048 evenly spaced) training images per channel: float32 (C,)."""
        train = self.split("train")
        where = np.unique(np.linspace(0, len(train) - 1, min(len(train), _MEAN_SAMPLES)).astype(int))
        sums = [
            batch.images.double().flatten(2).mean(2).sum(0).numpy()
            for batch in train.select(where).batches(_MEAN_BATCH)
        ]
        return np.asarray(np.sum(sums, axis=0) / len(where), dtype=np.float32)


class ContentJob(Job):
    """The hash of the scored samples of some data, computed once for each split and limit and kept in the cache.

    Args:
        data: The data.
    """

    kind = "content"

    def __init__(self, data: DataJob) -> None:
        super().__init__(data.store, data.settings)
        self.data = data

    @property
    def label(self) -> str:
        return f"{self.settings.split} split of {self.data.label}"

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.data,)

    def identity(self) -> dict[str, Any]:
        return {"split": self.settings.split, "limit": self.settings.limit}

    def build(self, session: Session) -> None:
        session.facts[_CONTENT] = content_of(self.data.info, self.data.scored)

    @functools.cached_property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        return str(self.facts[_CONTENT])


def _balanced(split: Split, limit: int) -> np.ndarray:
    """Return sorted indices of `limit` samples: a fixed shuffle within each class, taken from the classes in turn."""
    keys = np.array([derive(0, "limit", name) for name in split.ids])
    turn = np.empty(len(split), dtype=np.int64)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        turn[members[np.argsort(keys[members])]] = np.arange(len(members))
    return np.sort(np.lexsort((split.labels, turn))[:limit])
