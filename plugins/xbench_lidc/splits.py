"""Assignment of patients to splits, with classes balanced as far as whole patients allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xbench.runtime.seeding import rng

FRACTIONS: Mapping[str, Mapping[str, float]] = {
    "ratio": {"train": 0.70, "validation": 0.15, "test": 0.15},
    "paper": {"train": 0.63, "validation": 0.07, "test": 0.30},
}
"""Shares of the nodules. For "paper", Katzmann et al. have 70 and 30 %; a tenth of the 70 % stops the training."""


def assign_splits(
    groups: Sequence[str], labels: Sequence[int] | np.ndarray, fractions: Mapping[str, float], seed: int
) -> np.ndarray:
    """Return a split for every sample, the same for all samples of a group.

    Groups come in random order, the largest first. Each goes to the split where it most reduces the distance of all
    splits from their share of every class. This is iterative stratification (Sechidis et al. 2011), of groups instead
    of samples.

    Args:
        groups: N patients.
        labels: N classes.
        fractions: Split -> its share of the samples. The shares add up to 1.
        seed: Seed of the order.

    Returns:
        The splits, str (N,), keys of `fractions`.
    """
    names, where = np.unique(np.asarray(groups), return_inverse=True)
    classes, labels = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (where, labels), 1)
    targets = np.outer(list(fractions.values()), counts.sum(axis=0))
    filled = np.zeros_like(targets)
    order = rng(seed, "splits").permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    chosen = np.zeros(len(names), dtype=np.int64)
    for group in order:
        before, after = (filled - targets) ** 2 / targets, (filled + counts[group] - targets) ** 2 / targets
        chosen[group] = np.argmin((after - before).sum(axis=1))
        filled[chosen[group]] += counts[group]
    return np.array(list(fractions))[chosen[where]]
