"""Seeds that depend on names, not on order: a draw is the same alone, in a batch, resumed, or on another device.

The rule of seeds:

- Draws for one sample come from the sample's own seed (`sample_seeds`, `Batch.seeds`). They are the same in every
  batch, on every device, and for every caller.
- torch's global generators are seeded before every call of a plugin, from the run's seed, the plugin's name and the
  request (maps, or counterfactual images), never from the caller. Such draws depend on the batch. To reproduce what was
  scored, call with the run's seed and with the batches of the split: `batch_size` samples at a time, from the first
  sample on. The maps, the metrics and the film strips of counterfactual images all do this.
- The seed of a piece of work (`Session.seed`) derives from the run's seed and the kind of work. Use it for what is made
  there and nowhere else, such as a training or a choice of samples. Never use it for what is scored in one place and
  shown in another.
"""

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
