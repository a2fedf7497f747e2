"""What the scored samples are, by content: the same on every machine, whatever code made them."""

from __future__ import annotations

import hashlib
from typing import Any

from xbench.contracts.dataset import DatasetInfo, Split
from xbench.provenance import digest

_BATCH = 64


def content_of(info: DatasetInfo, split: Split) -> str:
    """SHA-256 over a split in its order: images, masks, labels, ids, patients; and over classes and geometry.

    The samples' seeds, which follow the run, and the dataset's name, licence and citation are left out. How many
    samples are read at a time does not matter. A dataset that rounds its images (to whole HU, say) has the same hash on
    machines whose last bits differ.
    """
    images, masks = hashlib.sha256(), hashlib.sha256()
    has_mask: list[bool] = []
    for batch in split.batches(_BATCH):
        images.update(batch.images.numpy().astype("<f4").tobytes())
        masks.update(batch.masks.numpy().astype(bool).tobytes())
        has_mask += batch.has_mask.tolist()
    return digest(
        {
            "info": _geometry(info),
            "samples": list(zip(split.ids, split.labels.tolist(), split.groups, has_mask, strict=True)),
            "images": images.hexdigest(),
            "masks": masks.hexdigest(),
        }
    )


def _geometry(info: DatasetInfo) -> dict[str, Any]:
    """What metrics may ask of a dataset, as JSON."""
    return {
        "classes": list(info.classes),
        "channels": int(info.channels),
        "spatial": [int(side) for side in info.spatial],
        "spacing": None if info.spacing is None else [float(side) for side in info.spacing],
        "removal": None if info.removal is None else [float(value) for value in info.removal],
    }
