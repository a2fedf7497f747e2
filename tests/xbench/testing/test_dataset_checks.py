"""The checks of datasets pass for good ones and name the fault of bad ones."""

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbench import DatasetInfo, Sample, Session, Split
from xbench.testing import dataset_checks
from xbench.testing.fakes import FakeDataset, FakeOptions


@pytest.mark.parametrize("options", [{}, {"masks": False}, {"channels": 3, "classes": 3, "width": 17, "removal": True}])
def test_fake_datasets_pass(failures: Callable[..., dict[str, str]], options: dict[str, Any]) -> None:
    assert failures(dataset_checks(), lambda: FakeDataset(FakeOptions(**options))) == {}


class Faulty(FakeDataset):
    """A fault of choice in a good dataset."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    @property
    def info(self) -> DatasetInfo:
        info = super().info
        changed: dict[str, dict[str, Any]] = {
            "spacing": {"spacing": (1.0,)},
            "removal": {"removal": (0.0, 2.0)},
            "licence": {"licence": ""},
            "no masks": {"has_masks": False},
        }
        return dataclasses.replace(info, **changed.get(self.fault, {}))

    def _draw(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = super()._draw(split, index)
        return (image * 255 if self.fault == "range" else image), mask

    def prepare(self, folder: Path, session: Session) -> None:
        # A dataset without masks that has some could not even be written: its files are those of a good one.
        good = FakeDataset() if self.fault == "no masks" else super()
        good.prepare(folder, session)
        if self.fault == "bytes":
            (folder / "stamp").write_bytes(random.randbytes(8))

    def load(self, split: str, folder: Path) -> Split:
        loaded = FakeDataset().load(split, folder)
        batch = loaded.batch(np.arange(len(loaded)))
        images, masks = batch.images.numpy(), batch.masks.numpy()
        if self.fault == "dtype":
            images = images.astype(np.float64)
        if self.fault == "mask dtype":
            masks = masks.astype(np.uint8)
        if self.fault == "size":
            images = images[..., 1:]
        groups: Sequence[str] = loaded.groups
        if self.fault == "patients":
            groups = [name.removeprefix(f"{split}-") for name in groups]
        ids = [name.removeprefix(f"{split}-") for name in loaded.ids] if self.fault == "ids" else loaded.ids
        labels = loaded.labels + 1 if self.fault == "labels" else loaded.labels
        has_mask = np.zeros(len(images), dtype=bool) if self.fault == "has_mask" else None
        made = Split.from_arrays(images, labels, ids, groups, masks, has_mask)
        return Jittery(made) if self.fault == "jitter" else made  # type: ignore[return-value]


class Jittery:
    """A map-style dataset that augments at random where it should only read."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Sample:
        from xbench import Sample

        batch = self._split.batch([index])
        image = (batch.images[0] * random.uniform(0.9, 1)).clamp(0, 1)
        return Sample(image, int(batch.labels[0]), batch.ids[0], batch.groups[0], batch.masks[0])


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        ("spacing", "info", "info.spacing is (1.0,)"),
        ("removal", "info", "intensities lie in [0, 1]"),
        ("licence", "info", "info.licence is empty"),
        ("no masks", "samples_test", "has_masks is False"),
        ("size", "samples_train", "info says"),
        ("range", "samples_train", "scale to [0, 1]"),
        ("dtype", "samples_train", "give float32"),
        ("mask dtype", "samples_train", "give bool"),
        ("has_mask", "samples_train", "pixels set in its mask"),
        ("labels", "samples_train", "no sample of class disk"),
        ("ids", "ids_unique", "sample ids occur twice"),
        ("patients", "patients_disjoint", "in both train and validation"),
        ("jitter", "batches_agree", "images of a sample differ"),
        ("bytes", "prepares_the_same_bytes", "other bytes into stamp"),
    ],
)
def test_faults_of_datasets_are_found(
    failures: Callable[..., dict[str, str]], fault: str, name: str, message: str
) -> None:
    assert message in failures(dataset_checks(), functools.partial(Faulty, fault))[name]
