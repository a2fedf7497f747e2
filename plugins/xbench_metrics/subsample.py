"""Some images of a split, for metrics that explain each of them many times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from xbench import Batch, Case, Explanation, PluginError
from xbench.runtime.devices import upload
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive

_STREAM = derive(0, "images chosen of a split")

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Some images with what is known of them, on the session's device.

    Attributes:
        rows: int64 (n,), their places in the split.
        batch: n images.
        targets: int64 (n,).
        maps: float32 (n, *spatial).
    """

    rows: np.ndarray
    batch: Batch
    targets: torch.Tensor
    maps: torch.Tensor


def subsample(case: Case, limit: int | None) -> np.ndarray:
    """At most `limit` places in the split, in order: those whose seeds come first in a random order; int64 (n,)."""
    count = len(case.split)
    if limit is None or limit >= count:
        return np.arange(count)
    keys = uniform_field(torch.from_numpy(np.array(case.split.seeds)) ^ _STREAM, (1,)).flatten().numpy()
    return np.sort(np.argsort(keys, kind="stable")[:limit])


def parts(case: Case, rows: np.ndarray, work: Callable[[Part], T], label: str = "") -> Iterator[tuple[np.ndarray, T]]:
    """What comes of the samples at `rows`, as many at a time as fit the memory, the session's batch size at most.

    Args:
        case: What is scored.
        rows: int64 (n,), places in the split.
        work: Of a part of them; asked again for a smaller one where that ran out of memory.
        label: Beside the progress bar; none without one.

    Yields:
        Places in the split, and what `work` gave.
    """
    device = case.session.device

    def worked(start: int, stop: int) -> T:
        chosen = rows[start:stop]
        part = Part(
            chosen,
            case.split.batch(chosen).to(device),
            upload(torch.from_numpy(np.array(case.targets[chosen], dtype=np.int64)), device),
            upload(torch.from_numpy(np.array(case.maps[chosen], dtype=np.float32)), device),
        )
        return work(part)

    for done, found in case.session.batched(len(rows), worked, label):
        yield rows[done], found


def live_explainer(case: Case) -> Explanation:
    """The explainer at work.

    Raises:
        PluginError: The case brings none.
    """
    if case.explanation is None:
        raise PluginError("this metric asks for more maps, and the case brings no explainer")
    return case.explanation


def mean_of_defined(values: np.ndarray) -> float:
    """Mean without NaN; NaN if nothing else is there."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
