"""From a map to a mask: which pixels are important enough to keep or to occlude?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch

from xbench import Batch, Session, Split
from xbench.runtime.devices import upload, widest
from xbench.runtime.mapped import MappedArray
from xbench_metrics.ranking import rank
from xbench_metrics.retraining.options import BinarisationOptions

T = TypeVar("T")

_MEANING = {
    "positive": "positive part, min-max per image; 0 where it is constant",
    "minmax": "min-max per image; 0 where it is constant",
    "none": "as it is",
}


class Binarisation:
    """Masks B of maps, at one or several levels.

    By threshold (Gu et al., VINet, eqs. 9 and 10): B = floor(I + T), which is 1 where I >= 1 - T, inclusive. The paper
    calls T = 0.9 "the threshold", but this keeps values from 0.1 on. I is the map scaled to [0, 1], image by image
    (`normalisation`). A constant map becomes 0 everywhere, so B = 0.

    By share: the round(q P) highest of an image's P pixels, halves up, with ties broken at random by the sample's seed.
    This compares maps at the same area, and is invariant under monotone transforms of a map.

    Args:
        options: Threshold and normalisation, or shares.
    """

    def __init__(self, options: BinarisationOptions) -> None:
        self.shares = options.top
        self._threshold = options.threshold
        self._normalisation = options.normalisation

    @property
    def levels(self) -> int:
        """L, the number of levels: 1 for a threshold, else the number of shares."""
        return max(1, len(self.shares))

    @property
    def weights(self) -> np.ndarray:
        """Weights of the levels, float64 (L,), which sum to 1: the trapezoid rule over the shares, by their range."""
        if self.levels == 1:
            return np.ones(1)
        steps = np.diff(self.shares) / (self.shares[-1] - self.shares[0])
        weights: np.ndarray = (np.append(steps, 0) + np.append(0, steps)) / 2
        return weights

    def masks(self, maps: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return B at every level.

        Args:
            maps: Finite maps, float32 (n, *spatial).
            seeds: Seeds of the samples (`Batch.seeds`), int64 (n,).

        Returns:
            Masks, bool (L, n, *spatial).
        """
        if not self.shares:
            return (self._unit(maps) + self._threshold >= 1)[None]
        ranks, _ = rank(maps.flatten(1), seeds)
        pixels = ranks.shape[1]
        counts = [int(share * pixels + 0.5) for share in self.shares]
        return torch.stack([ranks < count for count in counts]).view(-1, *maps.shape)

    def card(self) -> dict[str, Any]:
        """Return what a mask means."""
        if self.shares:
            return {"mask": "highest values of each map, round(q P) pixels", "ties": "at random, seeded by sample"}
        return {"mask": "I + T >= 1", "map": _MEANING[self._normalisation]}

    def _unit(self, maps: torch.Tensor) -> torch.Tensor:
        """Return I in float32. As in the authors' code, I + T then rounds to 1 where the map is exactly 1 - T."""
        if self._normalisation == "none":
            return maps
        values = maps.to(widest(maps.device))
        if self._normalisation == "positive":
            values = values.clamp_min(0)
        axes = tuple(range(1, values.ndim))
        low, high = values.amin(axes, keepdim=True), values.amax(axes, keepdim=True)
        extent = high - low
        return torch.where(extent > 0, (values - low) / extent, 0.0).float()


def binarised(
    split: Split,
    maps: np.ndarray | MappedArray,
    binarisation: Binarisation,
    session: Session,
    work: Callable[[Batch, torch.Tensor], T],
    label: str,
) -> Iterator[tuple[slice, T]]:
    """Yield the rows of each batch, and the result of `work` for them.

    Args:
        split: The N samples.
        maps: Maps, float32 (N, *spatial).
        binarisation: The rule that makes masks of the maps.
        session: Batch size, device and progress.
        work: Function of a batch on the device and its masks (L, n, *spatial). It is called again with fewer samples
            where the memory did not suffice.
        label: Label of the progress bar.
    """

    def worked(start: int, stop: int) -> T:
        batch = split.batch(np.arange(start, stop)).to(session.device)
        values = upload(torch.from_numpy(np.array(maps[start:stop], dtype=np.float32)), session.device)
        return work(batch, binarisation.masks(values, batch.seeds))

    return session.batched(len(split), worked, label)
