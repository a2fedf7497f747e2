"""The records that pass between datasets, models, explainers and metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xbench.runtime.devices import upload

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sample:
    """One image with its label.

    Attributes:
        image: float32 (C, *spatial), in [0, 1] after windowing.
        label: Index into the dataset's classes.
        id: Identifier that is unique within the dataset and stable between its versions.
        group: The patient. A split or a resample never separates the samples of one group.
        mask: bool (*spatial), True where an expert sees the evidence, or None if nobody outlined anything.
    """

    image: torch.Tensor
    label: int
    id: str
    group: str
    mask: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """A batch of N images.

    Attributes:
        images: float32 (N, C, *spatial), in [0, 1].
        labels: Class indices, int64 (N,).
        ids: N sample ids.
        groups: N patients.
        masks: bool (N, *spatial), True where the expert sees the evidence; all False for a sample without a mask.
        has_mask: Whether an expert outlined each sample, bool (N,).
        seeds: One seed per sample, int64 (N,), derived from the run's seed and the sample's id. Everything random about
            a sample is drawn from its own seed, so it does not depend on the rest of the batch.
        feature: The `feature` that the explainer or metric wants of each image, (N, ...), or None if it wants none.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    masks: torch.Tensor
    has_mask: torch.Tensor
    seeds: torch.Tensor
    feature: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on `device`, without waiting for the device to finish its work."""
        moved: dict[str, Any] = {
            name: upload(getattr(self, name), device)
            for name in ("images", "labels", "masks", "has_mask", "seeds", "feature")
            if getattr(self, name) is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Attribution:
    """Maps, and how far they miss what the method promises of them.

    Attributes:
        maps: float (N, *spatial).
        completeness_error: (N,), a map's sum minus the difference of scores that it should be; None where the method
            promises no sum. The harness reports the largest, as a share of the largest logit.
    """

    maps: torch.Tensor
    completeness_error: torch.Tensor | None = None
