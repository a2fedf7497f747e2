"""The hash of the scored samples' content, which is the same on every machine, whatever code made the samples."""

from __future__ import annotations

import hashlib
from typing import Any

from xbench.contracts.dataset import DatasetInfo, Split
from xbench.provenance import digest

_BATCH = 64


def content_of(info: DatasetInfo, split: Split) -> str:
    """Return the SHA-256 of a split's images, masks, labels, ids and patients in order, and of classes and geometry.

    The samples' seeds are left out, because they depend on the run, and so are the dataset's name, licence and
    citation. The number of samples that are read at a time does not matter. A dataset that rounds its images (to whole
    HU, for example) has the same hash on machines whose last bits differ.
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
    """Return the properties of a dataset that metrics may use, as JSON."""
    return {
        "classes": list(info.classes),
        "channels": int(info.channels),
        "spatial": [int(side) for side in info.spatial],
        "spacing": None if info.spacing is None else [float(side) for side in info.spacing],
        "removal": None if info.removal is None else [float(value) for value in info.removal],
    }
