"""Drawing the counterfactual images of a run, as pictures and as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xbench.jobs.counterfactuals import CounterfactualsJob
from xbench.report import counterfactual_strips
from xbench.report.overlays import plane_of, sliced
from xbench.results.counterfactuals import CounterfactualArrays, write_counterfactuals
from xbench.results.naming import file_name


def draw_counterfactuals(jobs: Sequence[CounterfactualsJob], folder: Path) -> None:
    """Write `<dataset>--<model>--<explainer>.npz`, `.svg` and `.png` for each explainer that makes counterfactuals."""
    for job in jobs:
        if job.store.has(job):  # it may have failed, and the run continues without it
            arrays = _arrays(job)
            stem = folder / file_name(arrays.dataset, arrays.model, arrays.explainer)
            state = job.maps.state
            write_counterfactuals(arrays, stem.with_name(f"{stem.name}.npz"))
            counterfactual_strips(stem, arrays, str(state.facts.get("warning", "")) if state else "")


def _arrays(job: CounterfactualsJob) -> CounterfactualArrays:
    maps, strips = job.maps, job.strips
    batch = maps.data.scored.batch(strips.samples)
    images, masks = batch.images.numpy(), batch.masks.numpy()
    planes = [
        plane_of(image, mask if has else None) for image, mask, has in zip(images, masks, batch.has_mask, strict=True)
    ]
    relevance = targets = None
    if maps.store.has(maps):
        all_maps = maps.maps()
        relevance = np.stack(
            [sliced(all_maps[index], plane) for index, plane in zip(strips.samples, planes, strict=True)]
        )
        targets = maps.targets[strips.samples]
    return CounterfactualArrays(
        dataset=maps.data.label,
        model=maps.calibration.label,
        explainer=maps.choice.label,
        classes=tuple(maps.data.info.classes),
        ids=tuple(batch.ids),
        labels=batch.labels.numpy(),
        images=_planes(images, planes, 1).astype(np.float16),
        t=strips.t,
        frames=_planes(strips.frames, planes, 3),
        probabilities=strips.probabilities,
        relevance=relevance,
        targets=targets,
    )


def _planes(values: np.ndarray, planes: Sequence[int | None], leading: int) -> np.ndarray:
    """Return the chosen plane of each entry: (n, ..., *spatial) -> (n, ..., H, W)."""
    return np.stack([sliced(value, plane, leading) for value, plane in zip(values, planes, strict=True)])
