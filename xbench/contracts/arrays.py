"""Datasets whose images are made once and then read from arrays: the base that writes and opens the files."""

from __future__ import annotations

import csv
import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xbench.contracts.dataset import SPLITS, Dataset, DatasetInfo, Split
from xbench.contracts.session import Session
from xbench.errors import PluginError, UserError
from xbench.runtime.mapped import writing

IMAGES, MASKS, HAS_MASK, MANIFEST = "images.npy", "masks.npy", "has_mask.npy", "manifest.csv"
_FIRST_COLUMNS = ("id", "group", "label", "class_name", "split")
_LAST_COLUMN = "sha256"


@dataclass(frozen=True)
class ArraySample:
    """One image of an `ArrayDataset`, on its way to the files.

    Attributes:
        split: "train", "validation" or "test".
        id: Unique within the dataset.
        group: The patient. A patient must not be in two splits.
        label: Index into the dataset's classes.
        image: Numbers (C, *spatial), in [0, 1]; written as float32.
        mask: bool (*spatial), True where an expert says the evidence is; None if nobody outlined anything.
        columns: Further columns of the manifest. Every sample has the same ones, in the same order.
    """

    split: str
    id: str
    group: str
    label: int
    image: np.ndarray
    mask: np.ndarray | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


class ArrayDataset(Dataset):
    """A dataset that makes its images once; they are read from memory-mapped arrays afterwards.

    Authors give `info` and `samples`. `prepare` writes four files, and `load` opens them:

    - `images.npy`: float32 (N, C, *spatial).
    - `masks.npy`: bool (N, *spatial), and `has_mask.npy`: bool (N,). Both only if `info.has_masks`.
    - `manifest.csv`: a line for each image, with its id, group, label, class name and split, the columns that the
      author adds, and the SHA-256 of the image's bytes (float32, little endian, row by row).
    """

    @abstractmethod
    def samples(self, session: Session) -> Iterable[ArraySample]:
        """Make the images, all those of one split before those of the next.

        Show progress with `session.track`. Draw what is random from a seed of the sample's own
        (`xbench.runtime.seeding.rng`), so that the files are the same each time.
        """

    def prepare(self, folder: Path, session: Session) -> None:
        """Write the images, masks and manifest into `folder`, and count classes and patients in `session.facts`.

        Raises:
            PluginError: A sample does not fit `info`, or the samples of a split do not follow each other.
        """
        info = self.info
        manifest = _Manifest(info)
        outlined = []
        with ExitStack() as files:
            images = files.enter_context(writing(folder / IMAGES, "<f4", (None, info.channels, *info.spatial)))
            if info.has_masks:
                masks = files.enter_context(writing(folder / MASKS, bool, (None, *info.spatial)))
            for sample in self.samples(session):
                manifest.add(sample)
                images.append(sample.image)
                if info.has_masks:
                    masks.append(np.zeros(info.spatial, dtype=bool) if sample.mask is None else sample.mask)
                    outlined.append(sample.mask is not None)
        if info.has_masks:
            np.save(folder / HAS_MASK, np.array(outlined, dtype=bool))
        manifest.write(folder / MANIFEST)
        session.facts |= {"class_counts": manifest.class_counts(), "patients": manifest.patients()}

    def load(self, split: str, folder: Path) -> Split:
        """Open a split, memory-mapped.

        Raises:
            UserError: There is no such split.
        """
        if split not in SPLITS:
            raise UserError(f"{self.info.name} has no split {split!r}", "known: " + ", ".join(SPLITS))
        with (folder / MANIFEST).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        places = [place for place, row in enumerate(rows) if row["split"] == split]
        here = slice(places[0], places[-1] + 1) if places else slice(0, 0)  # written split by split: no copy is made
        masked = self.info.has_masks
        return Split.from_arrays(
            images=np.load(folder / IMAGES, mmap_mode="r")[here],
            labels=np.array([int(row["label"]) for row in rows[here]], dtype=np.int64),
            ids=[row["id"] for row in rows[here]],
            groups=[row["group"] for row in rows[here]],
            masks=np.load(folder / MASKS, mmap_mode="r")[here] if masked else None,
            has_mask=np.load(folder / HAS_MASK)[here] if masked else None,
        )


class _Manifest:
    """The lines of the manifest; each sample is checked before its line is added."""

    def __init__(self, info: DatasetInfo) -> None:
        self._info = info
        self._rows: list[dict[str, Any]] = []

    def add(self, sample: ArraySample) -> None:
        """Add the line of a sample.

        Raises:
            PluginError: The sample does not fit the dataset or the samples before it.
        """
        for fault in self._faults(sample):
            raise PluginError(f"dataset {self._info.name}: sample {sample.id} {fault}")
        image = np.ascontiguousarray(sample.image, dtype="<f4")
        self._rows.append(
            {
                "id": sample.id,
                "group": sample.group,
                "label": sample.label,
                "class_name": self._info.classes[sample.label],
                "split": sample.split,
                **sample.columns,
                _LAST_COLUMN: hashlib.sha256(image.tobytes()).hexdigest(),
            }
        )

    def write(self, path: Path) -> None:
        """Write a CSV file with a header."""
        names = list(self._rows[0]) if self._rows else [*_FIRST_COLUMNS, _LAST_COLUMN]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Count the samples by split and class."""
        counts: dict[str, dict[str, int]] = {}
        for row in self._rows:
            counts.setdefault(row["split"], dict.fromkeys(self._info.classes, 0))[row["class_name"]] += 1
        return counts

    def patients(self) -> int:
        """Count the groups."""
        return len({row["group"] for row in self._rows})

    def _faults(self, sample: ArraySample) -> Iterator[str]:
        info = self._info
        if sample.split not in SPLITS:
            yield f"is of split {sample.split!r}: known: " + ", ".join(SPLITS)
        if sample.split in self._finished_splits(sample.split):
            yield f"is of split {sample.split}, which other splits followed already: make one split after the other"
        if not 0 <= sample.label < len(info.classes):
            yield f"has label {sample.label}: labels are indices into {len(info.classes)} classes"
        yield from _wrong_shape("image", sample.image, (info.channels, *info.spatial))
        if sample.mask is not None:
            if not info.has_masks:
                yield "has a mask, but info.has_masks is False"
            yield from _wrong_shape("mask", sample.mask, info.spatial)
        own = list(sample.columns)
        first = list(self._rows[0])[len(_FIRST_COLUMNS) : -1] if self._rows else own
        if own != first:
            yield f"has the columns {own}, the first sample has {first}"
        if taken := {*_FIRST_COLUMNS, _LAST_COLUMN} & set(own):
            yield f"has columns of the manifest's own: {', '.join(sorted(taken))}"

    def _finished_splits(self, current: str) -> Sequence[str]:
        if not self._rows or self._rows[-1]["split"] == current:
            return ()
        return tuple({row["split"] for row in self._rows})


def _wrong_shape(what: str, array: np.ndarray, expected: tuple[int, ...]) -> Iterator[str]:
    if np.shape(array) != expected:
        yield f"has {'an' if what == 'image' else 'a'} {what} of shape {np.shape(array)}: info says {expected}"
