"""A ready explainer, for metrics that ask it for more than the maps of the split."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from xbench.contracts.explainer import Explainer, MapTransform
from xbench.jobs.maps import MapsJob

if TYPE_CHECKING:
    import torch
    from torch import nn

    from xbench.contracts.samples import Batch


class LiveExplainer:
    """The explainer of some maps, with its trained state. It implements `xbench.Explanation`.

    Args:
        maps: The maps.
        absolute: Whether to take absolute values of its maps, as for the scored maps.
    """

    def __init__(self, maps: MapsJob, absolute: bool) -> None:
        self._maps, self._absolute = maps, absolute

    @property
    def model(self) -> nn.Module:
        """The classifier that the maps are scored against."""
        return self._maps.calibration.subject.module

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        """Return maps, made in the same way as the maps of the split."""
        maps = self._compute(self._maps, dataclasses.replace(batch, feature=None), targets, model)
        return maps.abs() if self._absolute else maps

    def _compute(self, job: MapsJob, batch: Batch, targets: torch.Tensor, model: nn.Module | None) -> torch.Tensor:
        name = job.choice.entry.owner
        if job.inner is None:
            explained = job.model.module if model is None else model
            return job.ready.explain(explained, batch, targets, name, job.settings.seed)
        inner = self._compute(job.inner, batch, targets, model)
        if job.absolute and job.inner.inner is None:
            inner = inner.abs()
        assert isinstance(job.explainer, MapTransform)
        return job.explainer.checked_transform(inner, batch, name)

    def transfer(self, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        """Return counterfactuals of the innermost explainer, whatever is done to its maps."""
        job = self._maps.innermost
        return job.ready.counterfactuals(job.model.module, images, toward, job.choice.entry.owner, job.settings.seed)

    def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return the logits of the explainer's own classifier."""
        ready: Explainer = self._maps.innermost.ready
        return ready.masked_logits(images, maps)
