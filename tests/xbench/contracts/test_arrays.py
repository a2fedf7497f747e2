"""A dataset of arrays: what is written, what is read back, and what is refused."""

import csv
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbench import ArrayDataset, ArraySample, DatasetInfo, Options, PluginError, Session, UserError
from xbench.runtime.mapped import MappedArray
from xbench.testing import dataset_checks

INFO = DatasetInfo("stripes", ("thin", "wide"), 2, (4, 6), has_masks=True, licence="CC0-1.0", citation="drawn")


class Stripes(ArrayDataset):
    info = INFO

    def samples(self, session: Session) -> Iterator[ArraySample]:
        for split, count in (("train", 4), ("validation", 2), ("test", 3)):
            for index in range(count):
                image, label = np.full((2, 4, 6), index / 8), index % 2
                image[0, label] = 1
                mask = None if index == 2 else image[0] == 1
                yield ArraySample(split, f"{split}-{index}", f"{split} p{index}", label, image, mask, {"row": label})


class Replaced(Stripes):
    """The same with something else about its last sample, or about `info`."""

    def __init__(self, info: dict[str, Any] | None = None, **changes: Any) -> None:
        super().__init__(Options())
        self.info = dataclasses.replace(INFO, **(info or {}))
        self.changes = changes

    def samples(self, session: Session) -> Iterator[ArraySample]:
        *others, last = super().samples(session)
        yield from [*others, dataclasses.replace(last, **self.changes)]


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[ArrayDataset, Path, Session]:
    dataset, session = Stripes(Options()), Session(tmp_path / "session")
    dataset.prepare(tmp_path, session)
    return dataset, tmp_path, session


def test_it_passes_the_checks_of_datasets(failures: Callable[..., dict[str, str]]) -> None:
    assert failures(dataset_checks(), lambda: Stripes(Options())) == {}


def test_splits_are_what_was_made(prepared: tuple[ArrayDataset, Path, Session]) -> None:
    dataset, folder, session = prepared
    for split, count in (("train", 4), ("validation", 2), ("test", 3)):
        samples = [sample for sample in dataset.samples(session) if sample.split == split]
        opened = dataset.open(split, folder)
        batch = opened.batch(np.arange(count))
        assert len(opened) == len(samples) == count
        assert isinstance(opened._images, MappedArray)
        for index, sample in enumerate(samples):
            assert (batch.ids[index], batch.groups[index], batch.labels[index]) == (
                sample.id,
                sample.group,
                sample.label,
            )
            assert np.array_equal(batch.images[index].numpy(), sample.image.astype(np.float32))
            assert bool(batch.has_mask[index]) == (sample.mask is not None)
            assert np.array_equal(batch.masks[index].numpy(), np.zeros((4, 6)) if sample.mask is None else sample.mask)


def test_the_manifest_has_the_columns_of_the_author_and_the_hashes(
    prepared: tuple[ArrayDataset, Path, Session],
) -> None:
    _, folder, session = prepared
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "group", "label", "class_name", "split", "row", "sha256"]
    images = np.load(folder / "images.npy")
    assert images.dtype == np.float32
    assert [row["sha256"] for row in rows] == [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    assert (rows[1]["class_name"], rows[1]["row"], rows[1]["split"]) == ("wide", "1", "train")
    assert session.facts["class_counts"]["test"] == {"thin": 2, "wide": 1}
    assert session.facts["patients"] == 9


def test_a_dataset_without_masks_writes_none(tmp_path: Path) -> None:
    class Bare(Stripes):
        info = dataclasses.replace(INFO, has_masks=False)

        def samples(self, session: Session) -> Iterator[ArraySample]:
            yield from (dataclasses.replace(sample, mask=None) for sample in super().samples(session))

    dataset = Bare(Options())
    dataset.prepare(tmp_path, Session(tmp_path / "session"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "manifest.csv"]
    assert not dataset.open("train", tmp_path).batch([0]).has_mask.any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": "dev"}, "sample test-2 is of split 'dev': known: train, validation, test"),
        ({"split": "train"}, "is of split train, which other splits followed already"),
        ({"label": 2}, "has label 2: labels are indices into 2 classes"),
        ({"label": -1}, "has label -1"),
        ({"image": np.zeros((4, 6))}, r"has an image of shape \(4, 6\): info says \(2, 4, 6\)"),
        ({"mask": np.zeros((4, 5), dtype=bool)}, r"has a mask of shape \(4, 5\): info says \(4, 6\)"),
        ({"columns": {}}, r"has the columns \[\], the first sample has \['row'\]"),
        ({"info": {"has_masks": False}}, "has a mask, but info.has_masks is False"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Replaced(**changed).prepare(tmp_path, Session(tmp_path / "session"))


def test_columns_of_the_manifests_own_are_refused(tmp_path: Path) -> None:
    class Taken(Stripes):
        def samples(self, session: Session) -> Iterator[ArraySample]:
            yield from (dataclasses.replace(sample, columns={"sha256": "x"}) for sample in super().samples(session))

    with pytest.raises(PluginError, match="has columns of the manifest's own: sha256"):
        Taken(Options()).prepare(tmp_path, Session(tmp_path / "session"))


def test_an_unknown_split_is_refused(prepared: tuple[ArrayDataset, Path, Session]) -> None:
    dataset, folder, _ = prepared
    with pytest.raises(UserError, match=r"stripes has no split 'dev'.*known: train, validation, test"):
        dataset.load("dev", folder)
