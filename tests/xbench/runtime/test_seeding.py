import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xbench.runtime import randomness
from xbench.runtime.randomness import generator, isolated, normal_field, uniform_field
from xbench.runtime.seeding import derive, sample_seeds


def _splitmix64(seed: int, index: int) -> int:
    """Steele, Lea & Flood 2014, figure 17, in Python integers: the state after `index` steps, finalised."""
    mask = (1 << 64) - 1
    z = (seed + index * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(st.integers(0, 2**63 - 1))
def test_uniform_field_is_splitmix64(seed: int) -> None:
    field = uniform_field(torch.tensor([seed]), (5,))
    expected = [(_splitmix64(seed, index) >> 40) * 2.0**-24 for index in range(1, 6)]
    assert field[0].tolist() == expected


def test_uniform_field_is_uniform_and_uncorrelated() -> None:
    field = uniform_field(torch.from_numpy(sample_seeds(0, [f"image {index}" for index in range(64)])), (64, 64))
    assert field.shape == (64, 64, 64)
    counts, _ = np.histogram(field.numpy(), bins=16, range=(0, 1))
    expected = field.numel() / 16
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # chi-square, 15 degrees of freedom, p = 0.001
    between = np.corrcoef(field.flatten(1).numpy())[np.triu_indices(64, 1)]
    assert np.abs(between).max() < 5 / 64
    flat = field.flatten()
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 5 / len(flat) ** 0.5


def test_a_field_depends_on_its_own_seed_only() -> None:
    seeds = torch.tensor([3, 9, 27])
    together = uniform_field(seeds, (8, 8))
    for index in range(3):
        assert torch.equal(uniform_field(seeds[index : index + 1], (8, 8))[0], together[index])


def test_derived_seeds_differ_by_every_part() -> None:
    found = {derive(0), derive(1), derive(0, "a"), derive(0, "a", "b"), derive(0, "ab"), derive(0, "b", "a")}
    assert len(found) == 6
    assert all(0 <= seed < 2**63 for seed in found)


def test_isolated_gives_torchs_generator_back_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with isolated(1, "x"):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with isolated(1, "x"):
        assert torch.equal(torch.rand(3), first)
    torch.manual_seed(derive(1, "x"))
    assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.rand(2, generator=generator(1, "y")), torch.rand(2, generator=generator(1, "y")))


def test_normal_field_is_standard_normal() -> None:
    field = normal_field(torch.from_numpy(sample_seeds(0, [f"image {index}" for index in range(16)])), (64, 64))
    assert field.shape == (16, 64, 64)
    assert bool(torch.isfinite(field).all())
    assert stats.kstest(field.numpy().ravel(), "norm").pvalue > 0.001
    assert torch.equal(normal_field(torch.tensor([7]), (4,)), normal_field(torch.tensor([3, 7]), (4,))[1:])


def test_normal_field_is_finite_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[0.0, 1 - 2.0**-24, 0.5]])
    monkeypatch.setattr(randomness, "uniform_field", lambda seeds, shape: ends)
    low, high, middle = normal_field(torch.tensor([0]), (3,))[0].tolist()
    assert low == -high
    assert 5 < high < 6
    assert abs(middle) < 1e-6
