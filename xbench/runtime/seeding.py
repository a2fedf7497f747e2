"""Seeds that depend on names, not on order: a draw is the same alone, in a batch, resumed, or on another device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def derive(seed: int, *parts: object) -> int:
    """Return a 63-bit seed derived from a seed and any names (by SHA-256, so neighbouring seeds are unrelated)."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *parts: object) -> np.random.Generator:
    """Return a numpy generator for `parts`."""
    return np.random.default_rng(derive(seed, *parts))


def sample_seeds(seed: int, ids: Sequence[str]) -> np.ndarray:
    """Return one seed per sample id: int64 (N,)."""
    return np.array([derive(seed, "sample", name) for name in ids], dtype=np.int64)
