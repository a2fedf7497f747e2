"""Patches around a call of Quantus: random states, warnings and numpy's names, which are all restored."""

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
    """Seed all global generators, silence warnings and patch two names in the block, and restore everything afterwards.

    Quantus 0.6 calls `np.trapz`, which numpy 2.4 no longer has. `assert_attributions` refuses constant maps, but only
    if all maps of a batch are constant, so a score would depend on the other images.
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
    """Set a name of a module in the block."""
    names = vars(module)
    before = {name: names[name]} if name in names else {}
    names[name] = value
    try:
        yield
    finally:
        del names[name]
        names.update(before)


def small(seed: int) -> int:
    """Return a seed that numpy's global generator accepts."""
    return derive(seed, "quantus") % 2**32


def seeded_rows(perturb: Callable[..., np.ndarray], seeds: np.ndarray) -> Callable[..., np.ndarray]:
    """Return a perturbation of rows (n, F) that draws each row's random numbers from the row's own stream.

    Args:
        perturb: Perturbation that draws from numpy's global generator.
        seeds: One seed per row, (n,). A stream continues from call to call.
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
    """Return a perturbation by mask (n, 1, H, W) that changes all channels of an image (n, C, H, W)."""

    def perturbed(arr: np.ndarray, mask: np.ndarray, **rest: Any) -> np.ndarray:
        return perturb(arr=arr, mask=np.broadcast_to(mask, arr.shape), **rest)

    return perturbed


def row_by_row(similar: Callable[..., Any]) -> Callable[..., Any]:
    """Return a similarity of rows that compares each pair by itself."""

    def compared(a: np.ndarray, b: np.ndarray, batched: bool = False, **rest: Any) -> Any:
        if not batched:
            return similar(a=a, b=b, **rest)
        pairs = zip(a, b, strict=True)
        return np.array([similar(a=first, b=second, **rest) for first, second in pairs], dtype=np.float64)

    return compared


def smoothed(explain: Callable[..., np.ndarray], seeds: np.ndarray, samples: int) -> Callable[..., np.ndarray]:
    """Return a function for the mean map of an image and its noisy copies, the same for every model (SmoothMPRT).

    Args:
        explain: The explainer.
        seeds: One seed per image, (n,).
        samples: Number of maps in a mean, including the image's own.
    """

    def mean_map(model: Any, x_batch: np.ndarray, y_batch: np.ndarray, std: np.ndarray, **_: Any) -> np.ndarray:
        streams = [np.random.default_rng(small(int(seed))) for seed in seeds]
        total = np.array(explain(model, x_batch, y_batch), dtype=np.float64)
        for _number in range(samples - 1):
            noise = np.stack([stream.standard_normal(x_batch.shape[1:]) for stream in streams])
            total += explain(model, x_batch + noise * std, y_batch)
        return total / samples

    return mean_map
