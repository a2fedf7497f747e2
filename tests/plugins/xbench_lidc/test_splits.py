"""Patients to splits."""

import numpy as np
import pytest

from xbench_lidc.splits import FRACTIONS, assign_splits


@pytest.fixture
def population() -> tuple[list[str], np.ndarray]:
    draw = np.random.default_rng(3)
    groups = [f"p{patient}" for patient in range(300) for _ in range(draw.integers(1, 7))]
    return groups, draw.choice(3, len(groups), p=[0.6, 0.3, 0.1])


@pytest.mark.parametrize("kind", ["ratio", "paper"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whole_patients_and_balanced_classes(population: tuple[list[str], np.ndarray], kind: str, seed: int) -> None:
    groups, labels = population
    splits = assign_splits(groups, labels, FRACTIONS[kind], seed)
    homes = {}
    for group, split in zip(groups, splits, strict=True):
        assert homes.setdefault(group, split) == split
    for name, share in FRACTIONS[kind].items():
        for label in range(3):
            assert np.mean(splits[labels == label] == name) == pytest.approx(share, abs=0.03)


def test_seed_decides(population: tuple[list[str], np.ndarray]) -> None:
    groups, labels = population
    first, again, other = (assign_splits(groups, labels, FRACTIONS["ratio"], seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.mean(first != other) > 0.2


def test_order_of_the_samples_does_not(population: tuple[list[str], np.ndarray]) -> None:
    groups, labels = population
    shuffled = np.random.default_rng(0).permutation(len(groups))
    expected = assign_splits(groups, labels, FRACTIONS["ratio"], 0)[shuffled]
    found = assign_splits([groups[index] for index in shuffled], labels[shuffled], FRACTIONS["ratio"], 0)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["ratio", "paper"])
def test_shares_add_up(kind: str) -> None:
    assert sum(FRACTIONS[kind].values()) == pytest.approx(1)
