"""The conformance checks of datasets."""

from __future__ import annotations

import functools
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xbench.contracts.dataset import SPLITS, Dataset, DatasetInfo, Split
from xbench.contracts.samples import Batch
from xbench.contracts.session import Session
from xbench.errors import XbenchError
from xbench.testing.scenarios import folder_of, fresh

_BATCH = 64
_prepared: weakref.WeakKeyDictionary[Any, Path] = weakref.WeakKeyDictionary()


def dataset_checks() -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield the checks of a dataset: (name, check), where check takes an instance or a factory without arguments.

    `prepare` runs twice, so that the results can be compared. Every image is read once.
    """
    yield "info", _info
    for split in SPLITS:
        yield f"samples_{split}", functools.partial(_samples, split)
    for check in (_ids_unique, _patients_disjoint, _batches_agree, _prepares_the_same_bytes):
        yield check.__name__.removeprefix("_"), check


def _folder(subject: Any) -> Path:
    """Return the folder that `prepare` wrote, which is kept as long as the factory."""
    if subject not in _prepared:
        folder = folder_of(subject)
        _prepare(subject, folder)
        _prepared[subject] = folder
    return _prepared[subject]


def _prepare(subject: Any, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="xbench-checks-") as scratch:
        fresh(subject, Dataset).prepare(folder, Session(Path(scratch)))


def _open(subject: Any, split: str) -> Split:
    try:
        return fresh(subject, Dataset).open(split, _folder(subject))
    except XbenchError as error:
        raise AssertionError(f"the {split} split can't be opened: {error}") from error


def _info(subject: Any) -> None:
    info = fresh(subject, Dataset).info
    assert len(info.classes) >= 2, f"info.classes is {info.classes}: name at least two"
    assert len(set(info.classes)) == len(info.classes), f"info.classes is {info.classes}: names must differ"
    assert info.channels >= 1, f"info.channels is {info.channels}"
    assert len(info.spatial) in (2, 3), f"info.spatial is {info.spatial}: give (H, W) or (D, H, W)"
    assert info.spacing is None or len(info.spacing) == len(info.spatial), (
        f"info.spacing is {info.spacing}: give millimetres for each of the {len(info.spatial)} axes, or None"
    )
    if info.removal is not None:
        assert len(info.removal) == len(info.classes), "info.removal needs one intensity per class"
        assert all(0 <= value <= 1 for value in info.removal), (
            f"info.removal is {info.removal}: intensities lie in [0, 1]"
        )
    assert info.licence, "info.licence is empty: say what the user may do with the data"
    assert info.citation, "info.citation is empty: say whose data it is"


def _samples(name: str, subject: Any) -> None:
    info, split = fresh(subject, Dataset).info, _open(subject, name)
    assert set(split.labels) <= set(range(len(info.classes))), (
        f"labels of the {name} split go from {split.labels.min()} to {split.labels.max()}: "
        f"they are indices into {len(info.classes)} classes"
    )
    assert all(split.groups), f"a sample of the {name} split has no group: name its patient"
    outlined = False
    for batch in split.batches(_BATCH):
        _check_images(batch, info)
        _check_masks(batch, info)
        outlined |= bool(batch.has_mask.any())
    if not info.has_masks:
        assert not outlined, f"info.has_masks is False, but samples of the {name} split carry masks"
    elif name == "test":
        assert outlined, "info.has_masks is True, but no sample of the test split carries a mask"


def _check_images(batch: Batch, info: DatasetInfo) -> None:
    import torch

    expected = (len(batch), info.channels, *info.spatial)
    assert tuple(batch.images.shape) == expected, f"images have shape {tuple(batch.images.shape)}: info says {expected}"
    assert batch.images.dtype == torch.float32, f"images are {batch.images.dtype}: give float32"
    for index, image in enumerate(batch.images):
        low, high = float(image.min()), float(image.max())
        assert 0 <= low <= high <= 1, f"image {batch.ids[index]} goes from {low:g} to {high:g}: scale to [0, 1]"


def _check_masks(batch: Batch, info: DatasetInfo) -> None:
    import torch

    expected = (len(batch), *info.spatial)
    assert batch.masks.dtype == torch.bool, f"masks are {batch.masks.dtype}: give bool, True = relevant"
    assert tuple(batch.masks.shape) == expected, f"masks have shape {tuple(batch.masks.shape)}: give {expected}"
    assert not bool(batch.masks[~batch.has_mask].any()), "a sample without a mask has pixels set in its mask"


def _ids_unique(subject: Any) -> None:
    ids = [name for split in SPLITS for name in _open(subject, split).ids]
    twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    assert not twice, f"sample ids occur twice: {', '.join(twice[:5])}; make them unique over all splits"


def _patients_disjoint(subject: Any) -> None:
    groups = {split: set(_open(subject, split).groups) for split in SPLITS}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = sorted(groups[first] & groups[second])
        assert not shared, (
            f"{len(shared)} patients are in both {first} and {second} ({', '.join(shared[:5])}): split by patient"
        )


def _batches_agree(subject: Any) -> None:
    import torch

    split = _open(subject, "test")
    last = len(split) - 1
    turned, alone = split.batch([last, 0]), split.batch([0])
    for name in ("images", "labels", "masks", "has_mask", "seeds"):
        same = torch.equal(getattr(turned, name)[1:], getattr(alone, name))
        assert same, f"{name} of a sample differ between batches: read them without randomness or state"
    assert (turned.ids[1], turned.groups[1]) == (alone.ids[0], alone.groups[0]), "ids or groups depend on the batch"


def _prepares_the_same_bytes(subject: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="xbench-checks-") as other:
        _prepare(subject, Path(other))
        first, second = _files_of(_folder(subject)), _files_of(Path(other))
        assert first.keys() == second.keys(), (
            f"prepare() wrote other files the second time: {first.keys() ^ second.keys()}"
        )
        for name, path in first.items():
            assert path.read_bytes() == second[name].read_bytes(), (
                f"prepare() writes other bytes into {name} each time: seed every draw, write no dates, sort listings"
            )
    first_load, second_load = _open(subject, "test"), _open(subject, "test")
    assert np.array_equal(first_load.labels, second_load.labels), "load() gives other labels the second time"


def _files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
