"""Maps become masks: equations 9 and 10 of VINet, shares by rank, and their edges."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xbench import UserError
from xbench.contracts.options import parse_options
from xbench.runtime.seeding import rng
from xbench_metrics.retraining.binarisation import Binarisation
from xbench_metrics.retraining.options import BinarisationOptions


def masks_of(maps: np.ndarray | torch.Tensor, seeds: Any = None, **options: Any) -> np.ndarray:
    """bool (L, n, *spatial)."""
    maps = torch.as_tensor(np.asarray(maps), dtype=torch.float32)
    seeds = torch.arange(len(maps)) if seeds is None else torch.as_tensor(seeds)
    return Binarisation(BinarisationOptions(**options)).masks(maps, seeds).numpy()


def mask_of(values: Any, **options: Any) -> np.ndarray:
    """Of one map (H, W)."""
    return masks_of(np.asarray(values)[None], **options)[0, 0]


# --- threshold --------------------------------------------------------------------------------------------------------


def test_the_threshold_is_one_minus_t_and_inclusive() -> None:
    values = np.arange(11)[None] / 10
    assert mask_of(values).tolist() == [[False] + [True] * 10]
    assert mask_of([[0, 0.0999, 0.1, 1]]).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("tenths", range(11))
def test_every_decimal_threshold_is_exact(tenths: int) -> None:
    # 1 - 0.7 is 0.30000000000000004: comparing I with 1 - T would lose the pixel that is exactly there.
    kept = mask_of(np.arange(11)[None] / 10, threshold=tenths / 10)
    assert kept.sum() == min(tenths + 1, 11)
    assert kept[0, 10 - tenths :].all()


def test_agrees_with_the_floor_of_the_paper() -> None:
    maps = rng(0, "maps").random((5, 7, 6), dtype=np.float32)
    low, high = (edge(maps, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    assert np.array_equal(masks_of(maps, threshold=0.6)[0], np.floor((maps - low) / (high - low) + 0.6) == 1)
    maps[:, 0, 0], maps[:, 0, 1] = 0, 1  # in [0, 1] as VINet's own are: nothing is left to normalise
    cover = (torch.from_numpy(maps) + 0.9).floor()  # a line of the authors' code
    assert np.array_equal(masks_of(maps)[0], cover.bool().numpy())


def test_the_negative_part_is_cut_off_or_kept() -> None:
    values = [[-10, -1, 0, 0.5, 1, 10]]
    assert mask_of(values).tolist() == [[False, False, False, False, True, True]]
    assert mask_of(values, normalisation="minmax").tolist() == [[False, True, True, True, True, True]]


def test_a_map_may_be_taken_as_it_is() -> None:
    assert mask_of([[0.2, 0.3, 1.0]], normalisation="none").all()
    assert mask_of([[0.2, 0.3, 1.0]]).tolist() == [[False, True, True]]


@pytest.mark.parametrize("values", [[[0.0, 0.0]], [[7.0, 7.0]], [[-3.0, -1.0]]])
def test_a_map_without_a_range_keeps_nothing(values: list[list[float]]) -> None:
    assert not mask_of(values).any()
    assert mask_of(values, threshold=1).all()


def test_images_are_normalised_one_by_one() -> None:
    maps = rng(0, "maps").random((4, 5, 5)) * np.array([1, 10, 100, 1e-6])[:, None, None]
    together = masks_of(maps)[0]
    for index in range(4):
        assert np.array_equal(mask_of(maps[index]), together[index])


@settings(max_examples=30, deadline=None)
@given(scale=st.integers(-20, 20), shift=st.integers(-100, 100), seed=st.integers(0, 1000))
def test_scaling_and_shifting_a_map_changes_no_threshold_mask(scale: int, shift: int, seed: int) -> None:
    maps = rng(seed, "maps").integers(-50, 50, (3, 6, 6))
    # A power of two, and integers: nothing is rounded.
    assert np.array_equal(masks_of(maps), masks_of(maps * 2.0**scale))
    options = {"normalisation": "minmax", "threshold": 0.75}
    assert np.array_equal(masks_of(maps, **options), masks_of(maps + shift, **options))


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.1, 3), (0.125, 3), (0.15, 4), (0.5, 13), (1, 25)])
def test_a_share_keeps_the_highest_halves_up(share: float, count: int) -> None:
    values = rng(0, "map").permutation(25).reshape(5, 5)
    assert np.array_equal(mask_of(values, shares=str(share)), values >= 25 - count)


@settings(max_examples=30, deadline=None)
@given(power=st.sampled_from([1, 3, 5]), scale=st.integers(1, 9), shift=st.integers(-9, 9), seed=st.integers(0, 1000))
def test_monotone_transforms_change_no_share(power: float, scale: int, shift: int, seed: int) -> None:
    maps = rng(seed, "maps").integers(-8, 8, (3, 6, 6))
    changed = scale * maps.astype(float) ** power + shift
    assert np.array_equal(masks_of(maps, shares="0.1,0.4"), masks_of(changed, shares="0.1,0.4"))


def test_ties_are_broken_by_the_samples_seed_and_not_by_place() -> None:
    first, again, other = (masks_of(np.zeros((1, 40, 40)), [seed], shares="0.25")[0, 0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.sum() == 400
    assert 60 < first[:10].sum() < 140  # 100 expected, hypergeometric: standard deviation 7.5


def test_shares_are_nested() -> None:
    low, middle, high = masks_of(rng(0, "maps").random((2, 8, 8)).round(1), shares="0.1,0.3,0.9")
    assert (middle >= low).all()
    assert (high >= middle).all()


def test_volumes_are_binarised_like_images() -> None:
    maps = rng(0, "maps").standard_normal((3, 4, 4, 4))
    for options in ({}, {"shares": "0.2"}):
        flat = masks_of(maps.reshape(3, 8, 8), **options)
        assert np.array_equal(masks_of(maps, **options).reshape(flat.shape), flat)


def test_the_weights_are_the_trapezoid_rule() -> None:
    shares = "0.05,0.1,0.2,0.6"
    binarisation = Binarisation(BinarisationOptions(shares=shares))
    heights, x = rng(0, "heights").random(4), np.array([0.05, 0.1, 0.2, 0.6])
    assert binarisation.weights @ heights == pytest.approx(np.trapezoid(heights, x) / 0.55, abs=1e-12)
    for single in ("", "0.3"):
        assert Binarisation(BinarisationOptions(shares=single)).weights.tolist() == [1]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["0.2, 0.05,0.2", [0.2, 0.05], (0.05, 0.2)])
def test_shares_are_brought_into_one_form(given: str | list[float] | tuple[float, ...]) -> None:
    options = parse_options(BinarisationOptions, {"shares": given}, "metric")
    assert options.shares == "0.05,0.2"
    assert options.top == (0.05, 0.2)


def test_one_share_may_be_a_number() -> None:
    assert parse_options(BinarisationOptions, {"shares": 0.1}, "metric").top == (0.1,)
    assert BinarisationOptions().top == ()


@pytest.mark.parametrize("wrong", ["ten", "0.1;0.2", "10", "-0.1", "nan"])
def test_what_is_no_share_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="shares"):
        parse_options(BinarisationOptions, {"shares": wrong}, "metric keep_accuracy")
