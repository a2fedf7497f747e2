"""Images of a case as Quantus is given them, without those that have no score."""

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
    """n images.

    Attributes:
        rows: (n,), their places in the case.
        batch: On the session's device.
        images: float32 (n, C, H, W).
        masks: bool (n, H, W).
        maps: float64 (n, H, W), finite.
        targets: int64 (n,).
        logits: float32 (n, K), of the untouched images.
        seeds: int64 (n,), those of the batch.
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
        """Of an image."""
        return int(self.maps[0].size)

    def take(self, where: Sequence[int]) -> Piece:
        """Some of them."""
        index = list(where)
        arrays = {key.name: getattr(self, key.name)[index] for key in dataclasses.fields(self) if key.name != "batch"}
        return Piece(batch=_taken(self.batch, index), **arrays)


def piece_of(case: Case, start: int, stop: int, masks: bool) -> Piece:
    """Those of the images from `start` to `stop` that can be scored.

    Args:
        case: Of them.
        start: The first.
        stop: Behind the last.
        masks: Whether images without a mask are left out.
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
