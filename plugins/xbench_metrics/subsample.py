"""A subset of a split's images, for metrics that explain each image many times."""

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
    """Some images with their targets and maps, on the session's device.

    Attributes:
        rows: Indices of the images in the split, int64 (n,).
        batch: The n images.
        targets: Classes that the maps explain, int64 (n,).
        maps: Maps, float32 (n, *spatial).
    """

    rows: np.ndarray
    batch: Batch
    targets: torch.Tensor
    maps: torch.Tensor


def subsample(case: Case, limit: int | None) -> np.ndarray:
    """Return at most `limit` indices of samples, ascending, int64 (n,), drawn at random by the samples' seeds."""
    count = len(case.split)
    if limit is None or limit >= count:
        return np.arange(count)
    keys = uniform_field(torch.from_numpy(np.array(case.split.seeds)) ^ _STREAM, (1,)).flatten().numpy()
    return np.sort(np.argsort(keys, kind="stable")[:limit])


def parts(case: Case, rows: np.ndarray, work: Callable[[Part], T], label: str = "") -> Iterator[tuple[np.ndarray, T]]:
    """Yield the results of `work` for the samples at `rows`, in parts that fit the memory.

    A part has at most the session's batch size.

    Args:
        case: The case to score.
        rows: Indices in the split, int64 (n,).
        work: Function to call for each part. It is called again with a smaller part if the memory did not suffice.
        label: Label of the progress bar, or empty for no bar.

    Yields:
        The indices in the split, and the result for them.
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
    """Return the ready explainer of a case.

    Raises:
        PluginError: The case has none.
    """
    if case.explanation is None:
        raise PluginError("this metric needs more maps, but the case has no explainer")
    return case.explanation


def mean_of_defined(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, or NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
