"""Batches of a case's images for Quantus, without the images that can't be scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xbench import Batch, Case
from xbench.runtime.devices import upload


@dataclass(frozen=True)
class Piece:
    """A batch of n images.

    Attributes:
        rows: Indices of the images in the case, (n,).
        batch: The images as a batch on the session's device.
        images: float32 (n, C, H, W).
        masks: bool (n, H, W).
        maps: Finite maps, float64 (n, H, W).
        targets: The class that each map explains, int64 (n,).
        logits: Logits of the unchanged images, float32 (n, K).
        seeds: Seeds of the batch, int64 (n,).
    """

    rows: np.ndarray
    batch: Batch
    images: np.ndarray
    masks: np.ndarray
    maps: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    seeds: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pixels(self) -> int:
        """Number of pixels of an image."""
        return int(self.maps[0].size)

    def take(self, where: Sequence[int]) -> Piece:
        """Return the images at the indices `where`."""
        index = list(where)
        arrays = {key.name: getattr(self, key.name)[index] for key in dataclasses.fields(self) if key.name != "batch"}
        return Piece(batch=_taken(self.batch, index), **arrays)


def piece_of(case: Case, start: int, stop: int, masks: bool) -> Piece:
    """Return the images from `start` to `stop` that can be scored.

    Args:
        case: The case of the images.
        start: Index of the first image.
        stop: Index after the last image.
        masks: Whether to leave out images without a mask.
    """
    rows = np.arange(start, stop)
    batch = case.split.batch(rows)
    piece = Piece(
        rows=rows,
        images=batch.images.numpy(),
        masks=batch.masks.numpy(),
        maps=np.array(case.maps[start:stop], dtype=np.float64),
        targets=np.array(case.targets[rows], dtype=np.int64),
        logits=np.array(case.logits[rows]),
        seeds=batch.seeds.numpy(),
        batch=batch.to(case.session.device),
    )
    usable = np.isfinite(piece.maps).all(axis=(1, 2))
    if masks:
        usable &= batch.has_mask.numpy() & piece.masks.any(axis=(1, 2))
    return piece.take(np.flatnonzero(usable).tolist())


def _taken(batch: Batch, index: list[int]) -> Batch:
    where = upload(torch.tensor(index, dtype=torch.int64), batch.images.device)
    return Batch(
        images=batch.images[where],
        labels=batch.labels[where],
        ids=tuple(batch.ids[row] for row in index),
        groups=tuple(batch.groups[row] for row in index),
        masks=batch.masks[where],
        has_mask=batch.has_mask[where],
        seeds=batch.seeds[where],
        feature=None if batch.feature is None else batch.feature[where],
    )
