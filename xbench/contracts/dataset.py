"""The contract of a dataset: its classes, its geometry, and its splits by patient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xbench.contracts.options import Options
from xbench.contracts.samples import Batch, Sample
from xbench.errors import PluginError, UserError
from xbench.runtime.mapped import MappedArray
from xbench.runtime.seeding import sample_seeds

if TYPE_CHECKING:
    import torch

    from xbench.contracts.session import Session

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """The facts about a dataset that are known without reading an image.

    Attributes:
        name: The name shown in tables.
        classes: Class names; a label is an index into them.
        channels: Number of channels, C.
        spatial: Size in pixels, (H, W) or (D, H, W).
        spacing: Millimetres per pixel along each spatial axis, or None where unknown.
        has_masks: Whether some samples carry an expert's mask.
        removal: For each class, the intensity in [0, 1] that removes the evidence for that class when it replaces a
            pixel (Brocki et al., section 3.1), or None where the dataset declares none.
        synthetic: Whether the images are rendered. This is shown wherever the dataset's name is shown.
        licence: Licence of the data.
        citation: How to cite the dataset.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    spatial: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    has_masks: bool = False
    removal: tuple[float, ...] | None = None
    synthetic: bool = False
    licence: str = ""
    citation: str = ""


class MapStyle(Protocol):
    """A map-style torch dataset of `Sample`s."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Return the sample at `index`."""
        ...


class Split(ABC):
    """A split of a dataset: random access to batches, and the columns that need no image.

    `Split.wrap` takes any map-style dataset of `Sample`s. `Split.from_arrays` takes data that lie in arrays, and
    gathers a batch without a Python loop.

    Attributes:
        labels: Class indices, int64 (N,).
        ids: N sample ids.
        groups: N patients.
        seeds: One seed per sample, int64 (N,).
    """

    def __init__(self, labels: Any, ids: Iterable[str], groups: Iterable[str], seeds: np.ndarray | None = None) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        self.ids = tuple(str(name) for name in ids)
        self.groups = tuple(str(name) for name in groups)
        self.seeds = sample_seeds(0, self.ids) if seeds is None else seeds

    @staticmethod
    def wrap(samples: MapStyle) -> Split:
        """Return a split over a map-style dataset."""
        return _SampleSplit(samples)

    @staticmethod
    def from_arrays(
        images: np.ndarray,
        labels: np.ndarray,
        ids: Sequence[str],
        groups: Sequence[str],
        masks: np.ndarray | None = None,
        has_mask: np.ndarray | None = None,
    ) -> Split:
        """Return a split over arrays, which may be memory-mapped.

        Args:
            images: float32 (N, C, *spatial), in [0, 1].
            labels: Class indices, int (N,).
            ids: N unique sample ids.
            groups: N patients.
            masks: bool (N, *spatial) or None.
            has_mask: Whether each sample has a mask, bool (N,). By default every sample has one if `masks` is given.
        """
        return _ArraySplit(images, labels, ids, groups, masks, has_mask)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, indices: Sequence[int] | np.ndarray, seed: int | None = None) -> Split:
        """Return the samples at `indices`, in that order, without copying an image; `seed` renews their seeds."""
        return _Selection(self, np.asarray(indices, dtype=np.int64), seed)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Return the samples at `indices` as a batch on the CPU."""
        import torch

        where = np.asarray(indices, dtype=np.int64)
        images, masks, has_mask = self._gather(where)
        return Batch(
            images=images,
            labels=torch.from_numpy(self.labels[where]),
            ids=tuple(self.ids[index] for index in where),
            groups=tuple(self.groups[index] for index in where),
            masks=masks,
            has_mask=has_mask,
            seeds=torch.from_numpy(self.seeds[where]),
        )

    @abstractmethod
    def _gather(self, where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the images (n, C, *spatial), masks (n, *spatial) and has_mask (n,) at the indices `where`."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all samples in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))

    def class_counts(self, classes: int) -> np.ndarray:
        """Return the number of samples per class: int64 (classes,)."""
        return np.bincount(self.labels, minlength=classes)


class _SampleSplit(Split):
    """A split over a map-style dataset."""

    def __init__(self, samples: MapStyle) -> None:
        self._samples = samples
        rows = [samples[index] for index in range(len(samples))]
        super().__init__([row.label for row in rows], [row.id for row in rows], [row.group for row in rows])

    def _gather(self, where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        import torch

        rows = [self._samples[int(index)] for index in where]
        images = torch.stack([torch.as_tensor(row.image) for row in rows])
        blank = torch.zeros(images.shape[2:], dtype=torch.bool)
        masks = torch.stack([blank if row.mask is None else torch.as_tensor(row.mask) for row in rows])
        return images, masks, torch.tensor([row.mask is not None for row in rows])


class _ArraySplit(Split):
    """A split over arrays."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        ids: Sequence[str],
        groups: Sequence[str],
        masks: np.ndarray | None,
        has_mask: np.ndarray | None,
    ) -> None:
        super().__init__(labels, ids, groups)
        self._images, self._masks = _flat(images), None if masks is None else _flat(masks)
        self._has_mask = np.full(len(images), masks is not None) if has_mask is None else has_mask

    def _gather(self, where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        import torch

        images = torch.from_numpy(np.ascontiguousarray(self._images[where]))
        if self._masks is None:
            masks = torch.zeros((len(where), *images.shape[2:]), dtype=torch.bool)
        else:
            masks = torch.from_numpy(np.ascontiguousarray(self._masks[where]))
        return images, masks, torch.from_numpy(self._has_mask[where])


def _flat(array: np.ndarray) -> np.ndarray | MappedArray:
    """Return the array, behind a view that keeps no pages in memory if the array is memory-mapped."""
    return MappedArray(array) if isinstance(array, np.memmap) else array


class _Selection(Split):
    """A view of some samples of a split."""

    def __init__(self, parent: Split, where: np.ndarray, seed: int | None) -> None:
        ids = [parent.ids[index] for index in where]
        seeds = parent.seeds[where] if seed is None else None
        super().__init__(parent.labels[where], ids, [parent.groups[index] for index in where], seeds)
        if seed is not None:
            self.seeds = sample_seeds(seed, self.ids)
        self._parent, self._where = parent, where

    def _gather(self, where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._parent._gather(self._where[where])


class Dataset(ABC):
    """A dataset plugin.

    Authors write `info` and `load`. They also write `prepare` where something has to be rendered, resampled or indexed
    once.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """The dataset's classes, geometry and licence. Must not read images."""

    def prepare(self, folder: Path, session: Session) -> None:
        """Write the files that `load` needs into `folder`.

        They are written once, and cached under everything that determines them.
        """

    @abstractmethod
    def load(self, split: str, folder: Path) -> Split | MapStyle:
        """Load the split "train", "validation" or "test". No patient may be in two splits."""

    def open(self, split: str, folder: Path) -> Split:
        """Load a split and check it.

        Raises:
            UserError: The split is empty, or has no sample of a class.
            PluginError: The plugin broke the contract.
        """
        loaded = self.load(split, folder)
        data = loaded if isinstance(loaded, Split) else Split.wrap(loaded)
        if len(data) == 0:
            raise UserError(f"dataset {self.info.name}: the {split} split is empty")
        if len(set(data.ids)) != len(data):
            raise PluginError(f"dataset {self.info.name}: sample ids of the {split} split are not unique")
        missing = [self.info.classes[index] for index in np.flatnonzero(data.class_counts(len(self.info.classes)) == 0)]
        if missing:
            raise UserError(f"dataset {self.info.name}: the {split} split has no sample of class {', '.join(missing)}")
        return data
