"""The values that replace removed pixels."""

from __future__ import annotations

import numpy as np
import torch

from xbench import Batch, Case, DatasetInfo, UserError
from xbench.compute.filters import gaussian_blur
from xbench.runtime.devices import upload
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive

_NOISE_STREAM = derive(0, "noise that replaces pixels")


class Removal:
    """The fill of a case's images.

    Args:
        kind: "opposite", "zero", "mean", "blur", "noise", or "auto": opposite if the dataset declares it, else mean.
        case: Case with the dataset and the mean of its training split.
        sigma: Standard deviation of "blur", in pixels.

    Raises:
        UserError: "opposite" for a dataset that declares no removal values.
    """

    def __init__(self, kind: str, case: Case, sigma: float) -> None:
        self.kind = resolve(kind, case.info)
        self._device = case.session.device
        self._per_class = upload(torch.tensor(case.info.removal or (0.0,), dtype=torch.float32), self._device)
        self._mean = upload(torch.as_tensor(np.array(case.train_mean), dtype=torch.float32), self._device)
        self._sigma = sigma

    def fill(self, batch: Batch) -> torch.Tensor:
        """Return the fill of a batch on the device: float32, broadcastable to (N, C, P), where P counts all pixels."""
        if self.kind == "opposite":
            return self._per_class[batch.labels].view(-1, 1, 1)
        if self.kind == "zero":
            return batch.images.new_zeros((1, 1, 1))
        if self.kind == "mean":
            return self._mean.view(1, -1, 1)
        if self.kind == "blur":
            return gaussian_blur(batch.images, self._sigma).flatten(2)
        return uniform_field(batch.seeds ^ _NOISE_STREAM, batch.images.flatten(2).shape[1:])


def resolve(kind: str, info: DatasetInfo) -> str:
    """Return the removal that `kind` stands for on this dataset.

    Raises:
        UserError: "opposite" for a dataset that declares no removal values.
    """
    if kind == "auto":
        return "mean" if info.removal is None else "opposite"
    if kind == "opposite" and info.removal is None:
        raise UserError(
            f"metric fidelity: removal=opposite, but dataset {info.name} declares no removal value for its classes",
            "use removal=mean, zero, blur or noise",
        )
    return kind
