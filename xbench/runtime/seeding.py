"""Randomness that depends on names, not on order: the same draw alone, in a batch, resumed, or on another device.

The rule of seeds:

- What is made of a sample is drawn from the sample's own seed (`sample_seeds`, `Batch.seeds`): it is the same in every
  batch, on every device, whoever asks.
- What a plugin draws from torch's global generators is seeded, at every call, by the run's seed, the plugin's name and
  what is asked of it (maps, or counterfactual images), never by who asks. Such draws depend on the batch. Whoever wants
  to see what was scored therefore asks with the run's seed and for the batches of the split, `batch_size` samples at a
  time from the first on: so do the maps, the metrics and the film strips of counterfactual images.
- The seed of a piece of work (`Session.seed`) is the run's seed and the kind of work. It is for what is made there and
  nowhere else: a training, a choice of samples. Nothing that is scored in one place and shown in another is drawn from
  it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def derive(seed: int, *parts: object) -> int:
    """Derive a 63-bit seed from a seed and any names (by SHA-256, so that neighbours are unrelated)."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *parts: object) -> np.random.Generator:
    """Return a numpy generator for `parts`."""
    return np.random.default_rng(derive(seed, *parts))


def sample_seeds(seed: int, ids: Sequence[str]) -> np.ndarray:
    """Return one seed per sample id: int64 (N,)."""
    return np.array([derive(seed, "sample", name) for name in ids], dtype=np.int64)
