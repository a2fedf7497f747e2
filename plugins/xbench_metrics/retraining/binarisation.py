"""From a map to a mask: which pixels are important enough to be kept, or to be occluded."""

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

    By threshold (Gu et al., VINet, eqs. 9 and 10): B = floor(I + T), which is 1 where I >= 1 - T, inclusive; the paper
    calls T = 0.9 "the threshold", but it is the values from 0.1 that it keeps. I is the map brought into [0, 1], one
    image at a time (`normalisation`); a map without a range is 0 everywhere, so B = 0.

    By share: the round(q P) highest of an image's P pixels, halves up, ties broken at random by the sample's seed. This
    compares maps at the same area, and is invariant under monotone transforms of a map.

    Args:
        options: Which.
    """

    def __init__(self, options: BinarisationOptions) -> None:
        self.shares = options.top
        self._threshold = options.threshold
        self._normalisation = options.normalisation

    @property
    def levels(self) -> int:
        """L: one for a threshold, else the number of shares."""
        return max(1, len(self.shares))

    @property
    def weights(self) -> np.ndarray:
        """Of the levels in one number, float64 (L,): the trapezoid rule over the shares, by their range; sums to 1."""
        if self.levels == 1:
            return np.ones(1)
        steps = np.diff(self.shares) / (self.shares[-1] - self.shares[0])
        weights: np.ndarray = (np.append(steps, 0) + np.append(0, steps)) / 2
        return weights

    def masks(self, maps: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """B at every level.

        Args:
            maps: float32 (n, *spatial), finite.
            seeds: int64 (n,), `Batch.seeds`.

        Returns:
            bool (L, n, *spatial).
        """
        if not self.shares:
            return (self._unit(maps) + self._threshold >= 1)[None]
        ranks, _ = rank(maps.flatten(1), seeds)
        pixels = ranks.shape[1]
        counts = [int(share * pixels + 0.5) for share in self.shares]
        return torch.stack([ranks < count for count in counts]).view(-1, *maps.shape)

    def card(self) -> dict[str, Any]:
        """What a mask means."""
        if self.shares:
            return {"mask": "highest values of each map, round(q P) pixels", "ties": "at random, seeded by sample"}
        return {"mask": "I + T >= 1", "map": _MEANING[self._normalisation]}

    def _unit(self, maps: torch.Tensor) -> torch.Tensor:
        """I, float32: as in the authors' code its sum with T is rounded to one where the map says exactly 1 - T."""
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
    """Batch by batch: which rows, and what comes of them.

    Args:
        split: The N samples.
        maps: float32 (N, *spatial).
        binarisation: How.
        session: Batch size, device, progress.
        work: Of the samples on the device and their masks (L, n, *spatial); asked again, for fewer, where the memory
            ran out.
        label: Beside the progress bar.
    """

    def worked(start: int, stop: int) -> T:
        batch = split.batch(np.arange(start, stop)).to(session.device)
        values = upload(torch.from_numpy(np.array(maps[start:stop], dtype=np.float32)), session.device)
        return work(batch, binarisation.masks(values, batch.seeds))

    return session.batched(len(split), worked, label)
