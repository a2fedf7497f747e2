"""What a call of Quantus needs around it, and must leave as it was: random states, warnings, numpy's names."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from xbench.runtime.randomness import isolated
from xbench.runtime.seeding import derive


@contextlib.contextmanager
def contained(seed: int) -> Iterator[None]:
    """All global generators seeded, warnings silent, two names lent; everything as before afterwards.

    `np.trapz` is called by Quantus 0.6 and gone from numpy 2.4. `assert_attributions` refuses maps of one value, but
    only where all maps of a batch are: a score would depend on the other images.
    """
    from quantus.helpers import asserts

    state, python_state = np.random.get_state(), random.getstate()
    rule = vars(np).get("trapezoid", vars(np).get("trapz"))
    try:
        np.random.seed(small(seed))
        random.seed(seed)
        with (
            isolated(seed, "quantus"),
            warnings.catch_warnings(),
            np.errstate(all="ignore"),
            _lent(np, "trapz", rule),
            _lent(asserts, "assert_attributions", lambda **_: None),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)
        random.setstate(python_state)


@contextlib.contextmanager
def _lent(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """A name of a module, for the block."""
    names = vars(module)
    before = {name: names[name]} if name in names else {}
    names[name] = value
    try:
        yield
    finally:
        del names[name]
        names.update(before)


def small(seed: int) -> int:
    """A seed that numpy's global generator takes."""
    return derive(seed, "quantus") % 2**32


def seeded_rows(perturb: Callable[..., np.ndarray], seeds: np.ndarray) -> Callable[..., np.ndarray]:
    """A perturbation of rows (n, F) that draws what is random about a row from the row's own stream.

    Args:
        perturb: Draws from numpy's global generator.
        seeds: (n,), one per row; a stream goes on from call to call.
    """
    streams = [np.random.RandomState(small(int(seed))).get_state() for seed in seeds]

    def perturbed(arr: np.ndarray, indices: np.ndarray, **rest: Any) -> np.ndarray:
        rows = []
        for row in range(len(arr)):
            np.random.set_state(streams[row])
            rows.append(perturb(arr=arr[row : row + 1], indices=indices[row : row + 1], **rest))
            streams[row] = np.random.get_state()
        return np.concatenate(rows)

    return perturbed


def every_channel(perturb: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A perturbation by mask (n, 1, H, W) that changes all channels of an image (n, C, H, W)."""

    def perturbed(arr: np.ndarray, mask: np.ndarray, **rest: Any) -> np.ndarray:
        return perturb(arr=arr, mask=np.broadcast_to(mask, arr.shape), **rest)

    return perturbed


def row_by_row(similar: Callable[..., Any]) -> Callable[..., Any]:
    """A similarity of rows that compares each pair by itself."""

    def compared(a: np.ndarray, b: np.ndarray, batched: bool = False, **rest: Any) -> Any:
        if not batched:
            return similar(a=a, b=b, **rest)
        return np.array([similar(a=one, b=other, **rest) for one, other in zip(a, b, strict=True)], dtype=np.float64)

    return compared


def smoothed(explain: Callable[..., np.ndarray], seeds: np.ndarray, samples: int) -> Callable[..., np.ndarray]:
    """Mean of the maps of an image and of noisy copies of it, the same copies whatever the model (SmoothMPRT).

    Args:
        explain: The explainer.
        seeds: (n,), one per image.
        samples: Maps in a mean, of which one is the image's own.
    """

    def mean_map(model: Any, x_batch: np.ndarray, y_batch: np.ndarray, std: np.ndarray, **_: Any) -> np.ndarray:
        streams = [np.random.default_rng(small(int(seed))) for seed in seeds]
        total = np.array(explain(model, x_batch, y_batch), dtype=np.float64)
        for _number in range(samples - 1):
            noise = np.stack([stream.standard_normal(x_batch.shape[1:]) for stream in streams])
            total += explain(model, x_batch + noise * std, y_batch)
        return total / samples

    return mean_map
