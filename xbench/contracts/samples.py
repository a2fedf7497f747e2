"""The records that pass between datasets, models, explainers and metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xbench.runtime.devices import upload

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        image: float32 (C, *spatial), in [0, 1] after windowing.
        label: Index into the dataset's classes.
        id: Unique within the dataset, stable between versions of it.
        group: What must not be torn apart by a split or a resample: the patient.
        mask: bool (*spatial), True where an expert says the evidence is; None where nobody outlined anything.
    """

    image: torch.Tensor
    label: int
    id: str
    group: str
    mask: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """N images.

    Attributes:
        images: float32 (N, C, *spatial), in [0, 1].
        labels: int64 (N,).
        ids: N sample ids.
        groups: N patients.
        masks: bool (N, *spatial), True = relevant to the expert; all False where there is none.
        has_mask: bool (N,), whether an expert outlined the sample.
        seeds: int64 (N,), one per sample, from the run's seed and the sample's id: what is random about a sample is
            drawn from its own seed, so it does not depend on the other samples of the batch.
        feature: (N, ...), what the explainer's or metric's `feature` makes of each image; None where it asks for none.
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
        """The same batch with its tensors on `device`, without waiting for what the device is doing."""
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
