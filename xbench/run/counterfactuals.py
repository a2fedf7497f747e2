"""The counterfactual images of a run, as pictures and as arrays."""

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
        if job.store.has(job):  # it may have failed, and a run goes on without
            arrays = _arrays(job)
            stem = folder / file_name(arrays.dataset, arrays.model, arrays.explainer)
            state = job.maps.state
            write_counterfactuals(arrays, stem.with_name(f"{stem.name}.npz"))
            counterfactual_strips(stem, arrays, str(state.facts.get("warning", "")) if state else "")


def _arrays(job: CounterfactualsJob) -> CounterfactualArrays:
    maps, found = job.maps, job.found
    batch = maps.data.scored.batch(found.samples)
    images, masks = batch.images.numpy(), batch.masks.numpy()
    planes = [
        plane_of(image, mask if has else None) for image, mask, has in zip(images, masks, batch.has_mask, strict=True)
    ]
    relevance = targets = None
    if maps.store.has(maps):
        every = maps.maps()
        relevance = np.stack([sliced(every[index], plane) for index, plane in zip(found.samples, planes, strict=True)])
        targets = maps.targets[found.samples]
    return CounterfactualArrays(
        dataset=maps.data.label,
        model=maps.calibration.label,
        explainer=maps.choice.label,
        classes=tuple(maps.data.info.classes),
        ids=tuple(batch.ids),
        labels=batch.labels.numpy(),
        images=_planes(images, planes, 1).astype(np.float16),
        t=found.t,
        frames=_planes(found.frames, planes, 3),
        probabilities=found.probabilities,
        relevance=relevance,
        targets=targets,
    )


def _planes(values: np.ndarray, planes: Sequence[int | None], leading: int) -> np.ndarray:
    """(n, ..., *spatial) -> (n, ..., H, W)."""
    return np.stack([sliced(one, plane, leading) for one, plane in zip(values, planes, strict=True)])
