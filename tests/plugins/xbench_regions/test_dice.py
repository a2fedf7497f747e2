"""Dice of ranked regions: the authors' package and plain numpy, closed forms, and which images count."""

import dataclasses
import functools
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import xbench_regions
from xbench import Case, DatasetInfo, Session, Split, UserError
from xbench.contracts.options import parse_options
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.fakes import fake_case
from xbench_regions.dice import Dice, dice_at
from xbench_regions.explainer import Xrai
from xbench_regions.options import DiceOptions, XraiOptions
from xbench_regions.segmentation import Regions

PAPER = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 70, 100)


_compute = Regions.compute


@functools.cache
def _computed_once(shape: tuple[int, ...], content: bytes) -> np.ndarray:
    return _compute(Regions(), np.frombuffer(content, dtype=np.float32).reshape(shape))


@pytest.fixture(autouse=True)
def _segmented_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness hands the regions over; without it they are made for `prepare` and for each `observe`."""
    monkeypatch.setattr(Regions, "compute", lambda _, image: _computed_once(image.shape, image.tobytes()))


class Nothing(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :2]


def nodules(n: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Disks on noise: float32 (n, 1, H, W), and where they are."""
    draw, (y, x) = rng(seed, "nodules"), np.mgrid[:size, :size]
    centre, radius = draw.uniform(size * 0.3, size * 0.7, (n, 2, 1, 1)), draw.uniform(0.07, 0.15, (n, 1, 1)) * size
    masks = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 <= radius**2
    images = 0.2 + 0.5 * masks + draw.normal(0, 0.04, masks.shape)
    return images.clip(0, 1).astype(np.float32)[:, None], masks


def case_of(
    images: np.ndarray,
    masks: np.ndarray,
    maps: np.ndarray,
    tmp_path: Path,
    has_mask: np.ndarray | None = None,
    feature: np.ndarray | None = None,
    batch_size: int = 2,
) -> Case:
    n, spatial = len(maps), images.shape[2:]
    ids = [f"sample-{index}" for index in range(n)]
    split = Split.from_arrays(images, np.arange(n) % 2, ids, ids, masks, has_mask)
    info = DatasetInfo("toy", ("a", "b"), images.shape[1], spatial, has_masks=True)
    session = Session(tmp_path, batch_size=batch_size)
    return fake_case(info, split, Nothing(), np.asarray(maps, dtype=np.float32), session, feature=feature)


def observed(case: Case, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    metric = Dice(parse_options(DiceOptions, options, "metric dice"))
    case = dataclasses.replace(case, prepared=metric.prepare(case))
    return metric, {**metric.observe(case), "label": case.split.labels, "target": case.targets}


def striped_case(maps: np.ndarray, masks: np.ndarray, tmp_path: Path, columns: int = 4, **more: Any) -> Case:
    """Images whose regions are stripes of `columns` columns, at two scales."""
    n, height, width = maps.shape
    row = np.arange(width) // columns
    labels = np.broadcast_to(np.stack([row, row // 2])[None, :, None], (n, 2, height, width)).astype(np.int32)
    images = rng(0, "images").random((n, 1, height, width), dtype=np.float32)
    return case_of(images, masks, maps, tmp_path, feature=labels, **more)


PLAIN = {"dilation": 0, "min_pixel_diff": 1}


# --- independent implementations --------------------------------------------------------------------------------------


def slow_dice(region_map: np.ndarray, mask: np.ndarray, area: float) -> tuple[float, float]:
    """As in the package's notebook: everything from a percentile up."""
    shown = region_map >= np.percentile(region_map.astype(np.float64), 100 - area)
    return 2 * (shown & mask).sum() / (shown.sum() + mask.sum()), shown.mean()


def test_agrees_with_the_authors_package_from_the_image_on(tmp_path: Path) -> None:
    xrai = pytest.importorskip("saliency.core.xrai")
    images, masks = nodules(3)
    maps = (rng(0, "maps").standard_normal(masks.shape) + masks).astype(np.float32)
    parameters = xrai.XRAIParameters()
    parameters.experimental_params["min_pixel_diff"] = 4  # 50 of 224 x 224, at 64 x 64
    expected = []
    for image, values, mask in zip(images[:, 0], maps, masks, strict=True):
        segments = xrai._get_segments_felzenszwalb(image, dilation_rad=1)  # 5 of 224
        region_map = xrai.XRAI().GetMask(
            image, None, segments=segments, base_attribution=values, extra_parameters=parameters
        )
        expected.append([slow_dice(region_map, mask, area) for area in PAPER])
    metric, seen = observed(case_of(images, masks, maps, tmp_path))
    np.testing.assert_allclose(np.stack([seen["dice"], seen["displayed"]], -1), expected, atol=1e-6)
    mean = np.mean(expected, 0)[:, 0]
    assert metric.summarise(seen) == pytest.approx(mean.max(), abs=1e-6)
    curves = metric.curves(seen)
    assert curves.x[curves.y["map"].argmax()] == PAPER[mean.argmax()]
    assert 0.1 < mean.max() < 1


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(0, 6), min_size=2, max_size=40),
    areas=st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True),
    seed=st.integers(0, 99),
)
def test_displayed_pixels_are_those_from_the_percentile_up(values: list[int], areas: list[int], seed: int) -> None:
    maps = np.array(values, dtype=np.float32)[None, None]
    mask = rng(seed, "mask").random(maps.shape) < 0.4
    dice, displayed = dice_at(maps, mask, tuple(map(float, areas)))
    for index, area in enumerate(areas):
        # The percentile in fractions: between two values of the map, linearly.
        place = Fraction(100 - area, 100) * (maps.size - 1)
        low, high = (int(np.sort(values)[at]) for at in (math.floor(place), math.ceil(place)))
        shown = maps >= float(low + (place - math.floor(place)) * (high - low))
        assert displayed[0, index] == shown.mean()
        assert dice[0, index] == pytest.approx(2 * (shown & mask).sum() / (shown.sum() + mask.sum()), abs=1e-12)


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_the_mask_as_map_has_the_ceiling_and_its_inverse_nothing(tmp_path: Path) -> None:
    images, masks = nodules(4)
    metric, seen = observed(case_of(images, masks, masks, tmp_path))
    np.testing.assert_array_equal(seen["dice"], seen["ceiling"])
    assert 0.9 < metric.summarise(seen) < 1
    curves = metric.curves(seen)
    np.testing.assert_array_equal(curves.y["map"], curves.y["mask as map"])
    _, inverse = observed(case_of(images, masks, 1.0 - masks, tmp_path))
    # The background without a region that touches the nodule is larger than 30 %.
    assert not inverse["dice"][:, :14].any()
    np.testing.assert_array_equal(inverse["ceiling"], seen["ceiling"])


def test_a_mask_made_of_regions_can_be_found(tmp_path: Path) -> None:
    masks = np.zeros((1, 8, 40), dtype=bool)
    masks[0, :, 12:16] = True
    metric, seen = observed(striped_case(masks, masks, tmp_path), **PLAIN)
    shown = np.maximum(np.array(PAPER) / 100, 0.1)  # regions are displayed whole, the second at once with all others
    shown = np.where(np.array(PAPER) > 10, 1.0, shown)
    np.testing.assert_allclose(seen["displayed"], [shown])
    np.testing.assert_allclose(seen["dice"], [2 * 0.1 / (shown + 0.1)])
    assert metric.summarise(seen) == 1


@pytest.mark.parametrize("constant", [0.0, 1.5, -3.0])
def test_a_constant_map_displays_everything(tmp_path: Path, constant: float) -> None:
    images, masks = nodules(3)
    _, seen = observed(case_of(images, masks, np.full(masks.shape, constant), tmp_path))
    share = masks.mean((1, 2))
    assert (seen["displayed"] == 1).all()
    np.testing.assert_allclose(seen["dice"], np.tile((2 * share / (1 + share))[:, None], 17), atol=1e-12)


def test_at_all_of_the_image_every_map_has_the_same(tmp_path: Path) -> None:
    images, masks = nodules(3)
    share = masks.mean((1, 2))
    _, seen = observed(case_of(images, masks, rng(0, "maps").standard_normal(masks.shape), tmp_path))
    np.testing.assert_allclose(seen["dice"][:, -1], 2 * share / (1 + share), atol=1e-12)
    assert (seen["displayed"][:, -1] == 1).all()
    assert (seen["displayed"] >= np.array(PAPER) / 100 - 1 / 4096).all()


def test_the_value_is_the_maximum_of_the_mean_not_the_mean_of_the_maxima(tmp_path: Path) -> None:
    maps = np.tile(np.arange(40.0, 0, -1), (2, 4, 1))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, :, :4], masks[1, :, :20] = True, True  # found whole at 10 % and at 50 %
    metric, seen = observed(striped_case(maps, masks, tmp_path), areas="10,50", **PLAIN)
    np.testing.assert_allclose(seen["dice"], [[1, 1 / 3], [1 / 3, 1]])
    assert seen["best"].tolist() == [1, 1]
    assert metric.summarise(seen) == pytest.approx(2 / 3)


# --- which images count -----------------------------------------------------------------------------------------------


def test_images_that_say_nothing_do_not_count(tmp_path: Path) -> None:
    images, masks = nodules(7, size=32)
    maps = rng(0, "maps").standard_normal(masks.shape)
    images[1], masks[2], masks[4] = 0.5, False, True
    has_mask = np.arange(7) != 5
    masks[5] = False
    kept = [0, 3, 6]
    metric, seen = observed(case_of(images, masks, maps, tmp_path, has_mask))
    assert seen["used"].tolist() == [index in kept for index in range(7)]
    for name in ("dice", "displayed", "ceiling"):
        assert np.isnan(seen[name]).all(1).tolist() == [index not in kept for index in range(7)]
        assert not np.isnan(seen[name][kept]).any()
    few, expected = observed(case_of(images[kept], masks[kept], maps[kept], tmp_path))
    np.testing.assert_array_equal(seen["dice"][kept], expected["dice"])
    assert metric.summarise(seen) == pytest.approx(few.summarise(expected), abs=1e-12)
    nobody = {key: values[[1, 2, 4, 5]] for key, values in seen.items()}
    with np.errstate(all="raise"):
        for subset in (nobody, {key: values[:0] for key, values in seen.items()}):
            assert np.isnan(metric.summarise(subset))
            assert metric.curves(subset) is None


def test_volumes_are_refused_with_the_reason() -> None:
    reason = Dice(DiceOptions()).supports(DatasetInfo("scans", ("a", "b"), 1, (8, 8, 8)))
    assert "scans has 3 spatial axes" in reason
    assert Dice(DiceOptions()).supports(DatasetInfo("slices", ("a", "b"), 1, (8, 8))) is None


# --- the regions ------------------------------------------------------------------------------------------------------


def test_the_regions_are_those_of_the_explainer() -> None:
    mine, theirs = Dice(DiceOptions()).feature, Xrai(XraiOptions()).feature
    assert (type(mine), mine.name, mine.parameters) == (type(theirs), theirs.name, theirs.parameters)
    other = Dice(DiceOptions(scale=2)).feature
    assert other.parameters != mine.parameters


def test_regions_that_are_given_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = nodules(3, size=32)
    case = case_of(images, masks, rng(0, "maps").standard_normal(masks.shape), tmp_path)
    _, expected = observed(case)
    labels = np.stack([Regions().compute(image) for image in images])
    monkeypatch.setattr(Regions, "compute", None)
    _, seen = observed(dataclasses.replace(case, feature=labels))
    np.testing.assert_array_equal(seen["dice"], expected["dice"])


# --- what must not matter ---------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(scale=st.sampled_from([0.5, 1.0, 8.0]), shift=st.integers(-64, 64), seed=st.integers(0, 1000))
def test_scale_shift_mirror_and_order_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, scale: float, shift: float, seed: int
) -> None:
    folder, draw = tmp_path_factory.mktemp("case"), rng(seed, "maps")
    maps, masks = draw.integers(-9, 9, (4, 6, 24)), draw.random((4, 6, 24)) < 0.3
    case = striped_case(maps, masks, folder)
    _, expected = observed(case, **PLAIN)
    _, changed = observed(striped_case(scale * maps + shift, masks, folder), **PLAIN)
    np.testing.assert_array_equal(changed["dice"], expected["dice"])
    images = case.split.batch(range(4)).images.numpy()
    mirrored = case_of(*(np.flip(array, -1).copy() for array in (images, masks, maps)), folder,  # type: ignore[arg-type, call-arg, misc]
                       feature=np.flip(case.feature, -1).copy())  # type: ignore[type-var]  # fmt: skip
    np.testing.assert_array_equal(observed(mirrored, **PLAIN)[1]["dice"], expected["dice"])
    order = draw.permutation(4)
    turned = striped_case(maps[order], masks[order], folder, batch_size=3)
    np.testing.assert_array_equal(observed(turned, **PLAIN)[1]["dice"], expected["dice"][order])


# --- options, conformance ---------------------------------------------------------------------------------------------


def test_areas_are_numbers_in_order() -> None:
    assert DiceOptions().grid == PAPER
    assert parse_options(DiceOptions, {"areas": "50, 2.5,2.50"}, "metric dice").areas == "2.5,50"
    for wrong in ("", "0,5", "5,101", "a", "nan", "-1"):
        with pytest.raises(UserError, match="areas"):
            parse_options(DiceOptions, {"areas": wrong}, "metric dice")


@parametrize_with_checks(xbench_regions.xbench_metrics())
def test_conformance(check: Callable[..., None]) -> None:
    check()
