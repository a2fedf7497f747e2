"""Counterfactual images: the way from an image to either class."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbench.report.page.draft import Draft
from xbench.report.page.panel import Panel, Section
from xbench.report.page.sprites import MOST_BYTES, ZERO, halved, sheet, shown
from xbench.results.counterfactuals import CounterfactualArrays, read_counterfactuals
from xbench.results.gallery import robust_scale


class CounterfactualsPanel(Panel):
    """A slider for each explainer that makes counterfactuals; its file is loaded when the reader comes near."""

    name = "counterfactuals"
    title = "Counterfactuals"

    def section(self, draft: Draft) -> Section | None:
        """Write the strips; None without any."""
        found: list[dict[str, Any]] = []
        for source in draft.sources:
            for arrays in read_counterfactuals(source.folder):
                draft.note(f"counterfactuals of {arrays.explainer}")
                script = draft.data(f"counterfactuals-{len(found)}", strip_data(arrays))
                about = {"run": source.name, "dataset": arrays.dataset, "model": arrays.model}
                found.append(about | {"explainer": arrays.explainer, "script": script})
        return Section(data=found) if found else None


def strip_data(found: CounterfactualArrays) -> dict[str, Any]:
    """Return what the script needs to slide from an image to its counterfactual; frames are cut to [0, 1]."""
    n, strips, frames, channels, height, width = found.frames.shape
    flat = found.frames.reshape(-1, channels, height, width)
    while flat.shape[2] * flat.shape[3] * len(flat) > MOST_BYTES:
        flat = halved(flat.astype(np.float32))
    pixels = np.rint(255 * flat.astype(np.float32).clip(0, 1)).astype(np.uint8)
    pixels = np.moveaxis(shown(pixels), 1, -1).reshape(n, strips * frames, *pixels.shape[2:], -1)
    data: dict[str, Any] = {
        "explainer": found.explainer,
        "classes": found.classes,
        "ids": found.ids,
        "labels": found.labels,
        "t": found.t,
        "start": found.start,
        "strips": strips,
        "height": pixels.shape[2],
        "width": pixels.shape[3],
        "frames": [sheet(one) for one in pixels],
        "probabilities": found.probabilities,
        "targets": found.targets,
        "maps": None,
    }
    if found.relevance is not None:
        shares = np.stack([values / robust_scale(values) for values in found.relevance]).clip(-1, 1)
        data |= {"maps": sheet(np.rint(ZERO + 127 * shares).astype(np.uint8)), "map_height": height}
        data |= {"map_width": width}
    return data
