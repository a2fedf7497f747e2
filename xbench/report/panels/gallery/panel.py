"""The gallery of each run: images, outlines and maps to leaf through."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbench.report.page.draft import Draft
from xbench.report.page.panel import Panel, Section
from xbench.report.page.sprites import MOST_BYTES, ZERO, halved, sheet, shown
from xbench.results.gallery import GalleryArrays, read_galleries


class GalleryPanel(Panel):
    """A gallery for each run, dataset and model; its file is loaded when the reader comes near."""

    name = "gallery"
    title = "Gallery"

    def section(self, draft: Draft) -> Section | None:
        """Write the galleries; None without any."""
        found: list[dict[str, Any]] = []
        for source in draft.sources:
            for arrays in read_galleries(source.folder):
                draft.note(f"gallery of {arrays.dataset} / {arrays.model}")
                script = draft.data(f"gallery-{len(found)}", gallery_data(arrays))
                found.append({"run": source.name, "dataset": arrays.dataset, "model": arrays.model, "script": script})
        return Section(data=found) if found else None


def gallery_data(found: GalleryArrays) -> dict[str, Any]:
    """Return what the script needs to leaf through a gallery; maps that would make its file too large are halved."""
    maps, images, masks = found.maps, found.images, found.masks
    while maps.size > MOST_BYTES and min(maps.shape[2:]) > 16:
        maps = np.rint(halved(maps.astype(np.float32))).astype(np.int8)
    while images.shape[2] * images.shape[3] * len(images) > MOST_BYTES // 4:
        images, masks = halved(images.astype(np.float32)).round().astype(np.uint8), halved(masks.astype(float)) >= 0.5
    return {
        "classes": found.classes,
        "ids": found.ids,
        "labels": found.labels,
        "probabilities": found.probabilities,
        "height": images.shape[2],
        "width": images.shape[3],
        "images": sheet(np.moveaxis(shown(images), 1, -1)),
        "masks": sheet(255 * masks.astype(np.uint8)),
        "has_mask": found.has_mask,
        "map_height": maps.shape[2],
        "map_width": maps.shape[3],
        "explainers": [
            {
                "name": name,
                "control": bool(found.control[index]),
                "signed": bool(found.signed[index]),
                "targets": found.targets[index],
                "maps": sheet((maps[index].astype(np.int16) + ZERO).astype(np.uint8)),
            }
            for index, name in enumerate(found.explainers)
        ],
    }
