"""Randomness that depends on names, not on order: the same draw alone, in a batch, resumed, or on another device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass


def derive(seed: int, *parts: object) -> int:
    """A 63-bit seed from a seed and any names (SHA-256, so neighbours are unrelated)."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *parts: object) -> np.random.Generator:
    """A numpy generator for `parts`."""
    return np.random.default_rng(derive(seed, *parts))


def sample_seeds(seed: int, ids: Sequence[str]) -> np.ndarray:
    """One seed per sample id: int64 (N,)."""
    return np.array([derive(seed, "sample", name) for name in ids], dtype=np.int64)
