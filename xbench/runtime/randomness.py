"""Random tensors that are the same on every device and in every batch, and torch's generators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from xbench.runtime.seeding import derive

if TYPE_CHECKING:
    import torch


_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer


_MIX1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9


_MIX2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def generator(seed: int, *parts: object) -> torch.Generator:
    """Return a torch CPU generator for `parts`."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *parts))


def uniform_field(seeds: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return uniform noise in [0, 1), one field per seed, identical on every device and in every batch.

    The generator is counter-based (the finaliser of splitmix64, Steele et al. 2014, of seed + counter). A stateful
    generator would need a Python loop over the samples, and would give other numbers on another device.

    Args:
        seeds: One seed per field, int64 (N,).
        shape: Shape of one field.

    Returns:
        float32 (N, *shape), multiples of 2^-24.
    """
    import torch

    size = int(np.prod(shape))
    counter = torch.arange(1, size + 1, dtype=torch.int64, device=seeds.device)
    state = splitmix(seeds.view(-1, 1) + counter * _GOLDEN)
    return (_shift(state, 40).to(torch.float32) * 2.0**-24).view(len(seeds), *shape)


def splitmix(state: torch.Tensor) -> torch.Tensor:
    """Return random bits for each number, the same on every device: the finaliser of splitmix64; int64, any shape."""
    state = (state ^ _shift(state, 30)) * _MIX1
    state = (state ^ _shift(state, 27)) * _MIX2
    return state ^ _shift(state, 31)


def normal_field(seeds: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return standard normal noise, one field per seed: the inverse distribution function of `uniform_field`.

    Args:
        seeds: One seed per field, int64 (N,).
        shape: Shape of one field.

    Returns:
        float32 (N, *shape), within +-5.4.
    """
    import torch

    # The middle of each step of 2^-23 between -1 and 1, where the inverse is infinite; exact in float32.
    middle = (2 * uniform_field(seeds, shape) - 1) + 2.0**-24
    normal: torch.Tensor = torch.erfinv(middle) * 2.0**0.5
    return normal


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the logical right shift of int64 (torch's is arithmetic)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


@contextmanager
def isolated(seed: int, *parts: object) -> Iterator[None]:
    """Seed torch's global generators for the block and restore them afterwards.

    Numpy's and Python's global generators are not touched: they belong to the user's process, and xbench never draws
    from them.
    """
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        # On a machine with only a CPU, `torch.manual_seed` records a stack trace for every absent kind of device at
        # every call. That takes as long as half a pass of a small network.
        elsewhere = devices or torch.backends.mps.is_available()
        (torch.manual_seed if elsewhere else torch.default_generator.manual_seed)(derive(seed, *parts))
        yield
