"""The job of a dataset, which is prepared once and opened by split."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from xbench.contracts.dataset import Dataset, DatasetInfo, Split
from xbench.contracts.session import Session
from xbench.errors import UserError, XbenchError
from xbench.jobs.base import Job, Settings
from xbench.jobs.store import Store
from xbench.provenance import digest
from xbench.registry.references import Choice
from xbench.runtime.seeding import derive

_MEAN_SAMPLES = 2048


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

        It is a hash of the dataset's source and options and of the scored samples (id, label, patient) in their order.
        Unlike `fingerprint`, it leaves out the core and the libraries, so that other machines and later versions join
        one ranking. If the dataset could not be prepared or opened, it is the fingerprint.
        """
        try:
            scored = self.scored if self.store.has(self) else None
        except XbenchError:
            scored = None
        if scored is None:
            return self.fingerprint
        who = list(zip(scored.ids, scored.labels.tolist(), scored.groups, strict=True))
        return digest({"dataset": self.identity(), "scored": who})

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
            train.batch(where[start : start + 64]).images.double().flatten(2).mean(2).sum(0).numpy()
            for start in range(0, len(where), 64)
        ]
        return np.asarray(np.sum(sums, axis=0) / len(where), dtype=np.float32)


def _balanced(split: Split, limit: int) -> np.ndarray:
    """Return sorted indices of `limit` samples: a fixed shuffle within each class, taken from the classes in turn."""
    keys = np.array([derive(0, "limit", name) for name in split.ids])
    turn = np.empty(len(split), dtype=np.int64)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        turn[members[np.argsort(keys[members])]] = np.arange(len(members))
    return np.sort(np.lexsort((split.labels, turn))[:limit])
