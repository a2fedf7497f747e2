"""XRAI: the authors' package label for label and map for map, closed forms, and what scaled parameters buy."""

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

import xbench_regions
from xbench import Batch, DatasetInfo, UserError
from xbench.runtime.seeding import rng, sample_seeds
from xbench.testing import parametrize_with_checks
from xbench_regions.explainer import Xrai
from xbench_regions.greedy import rank_regions
from xbench_regions.membership import RegionSet
from xbench_regions.options import XraiOptions
from xbench_regions.segmentation import Regions


def picture(height: int, width: int, channels: int = 1, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """Blobs of several grey values, and noise: float32 (C, H, W) in [0, 1]."""
    random = rng(seed, "picture", height, width, channels)
    smooth = ndimage.gaussian_filter(random.random((channels, height, width)), (0, 3, 3))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return ((smooth + noise * random.random(smooth.shape)) / (1 + noise)).astype(np.float32)


def attribution(height: int, width: int, kind: str = "normal", seed: int = 0) -> np.ndarray:
    values = rng(seed, "attribution").standard_normal((height, width))
    return values if kind == "normal" else 10 * ndimage.gaussian_filter(values, 3)


@functools.cache
def labels_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return Regions().compute(picture(height, width, seed=seed))


def batch_of(images: torch.Tensor | np.ndarray, feature: torch.Tensor | None = None) -> Batch:
    n, spatial = len(images), images.shape[2:]
    ids = tuple(f"sample-{index}" for index in range(n))
    return Batch(
        images=torch.as_tensor(images),
        labels=torch.zeros(n, dtype=torch.int64),
        ids=ids,
        groups=ids,
        masks=torch.zeros((n, *spatial), dtype=torch.bool),
        has_mask=torch.zeros(n, dtype=torch.bool),
        seeds=torch.from_numpy(sample_seeds(0, ids)),
        feature=feature,
    )


def transformed(maps: torch.Tensor | np.ndarray, images: np.ndarray, **options: Any) -> torch.Tensor:
    maps = torch.as_tensor(maps, dtype=torch.float32)
    return Xrai(XraiOptions(**options), "gradient").checked_transform(maps, batch_of(images), "under test")


def stripes(*widths: int, height: int = 6) -> np.ndarray:
    """One scale, vertical stripes: int32 (1, H, sum of widths)."""
    row = np.repeat(np.arange(len(widths)), widths)
    return np.tile(row, (1, height, 1)).astype(np.int32)


def theirs(image: np.ndarray, values: np.ndarray, masks: Any = None, least: int = 50) -> np.ndarray:
    """The map of the authors' package; image (C, H, W), values (H, W)."""
    xrai = pytest.importorskip("saliency.core.xrai")
    parameters = xrai.XRAIParameters()
    parameters.experimental_params["min_pixel_diff"] = least
    segments = None if masks is None else list(masks)
    given = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    values = values if given.ndim == 2 else np.repeat(values[..., None], len(image), -1)
    return xrai.XRAI().GetMask(given, None, segments=segments, base_attribution=values, extra_parameters=parameters)


# --- segmentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "channels", "radius"), [(64, 64, 1, 1), (50, 70, 3, 5), (240, 230, 1, 0)])
def test_regions_are_the_authors_to_the_pixel(height: int, width: int, channels: int, radius: int) -> None:
    xrai = pytest.importorskip("saliency.core.xrai")
    image = picture(height, width, channels)
    given = image[0] if channels == 1 else np.moveaxis(image, 0, -1)
    expected = np.array(xrai._get_segments_felzenszwalb(given, dilation_rad=radius))
    labels = Regions().computed(image)
    assert labels.dtype == np.int32
    assert labels.shape == (6, height, width)
    assert len(expected) > 30
    np.testing.assert_array_equal(RegionSet.dilated(labels, radius).masks(), expected)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_an_image_of_one_value_is_one_region(value: float) -> None:
    image = np.full((1, 20, 30), value, dtype=np.float32)
    assert not Regions().computed(image).any()
    values = attribution(20, 30)
    (found,) = transformed(values[None], image[None])
    np.testing.assert_allclose(found, np.full((20, 30), values.mean()), rtol=1e-5)


def test_brightness_and_contrast_do_not_matter() -> None:
    image = picture(40, 40)
    # By a power of two, so that rounding is the same.
    np.testing.assert_array_equal(Regions().compute(image), Regions().compute(image / 4))


def test_segmentation_options_do_what_they_say() -> None:
    image = picture(64, 64)
    counts = {
        name: Regions(**{name: value}).compute(image)[0].max() + 1
        for name, value in [("scale", 1), ("scale", 8), ("min_size", 2000), ("sigma", 4)]
    }
    usual = Regions().compute(image)[0].max() + 1
    assert all(count < usual for count in counts.values()), (usual, counts)
    assert len({repr(Regions(scale, sigma).parameters) for scale in (1, 2) for sigma in (0.8, 1)}) == 4


@pytest.mark.parametrize("spatial", [(7, 8, 9), (7,)])
def test_other_than_two_axes_are_refused_with_the_reason(spatial: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=f"two-dimensional images, these have {len(spatial)} spatial axes"):
        Regions().computed(np.zeros((1, *spatial), dtype=np.float32))
    info = DatasetInfo("scans", ("a", "b"), 1, spatial)
    assert f"scans has {len(spatial)} spatial axes" in Xrai(XraiOptions()).supports(torch.nn.Identity(), info)


# --- dilation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 30])
def test_dilation_agrees_with_scipy(radius: int) -> None:
    labels = rng(0, "labels").integers(0, 4, (3, 6, 9)).repeat(3, axis=1).repeat(2, axis=2)
    labels[2] = 1  # label 0 has no pixel there
    offset = np.arange(-radius, radius + 1)
    disk = offset[:, None] ** 2 + offset**2 <= radius**2
    regions = [labels[scale] == label for scale in range(3) for label in range(labels[scale].max() + 1)]
    expected = [ndimage.binary_dilation(region, disk) for region in regions]
    found = RegionSet.dilated(labels, radius)
    np.testing.assert_array_equal(found.masks(), expected)
    assert found.sizes.sum() == labels[0].size


def test_atoms_are_the_sets_of_regions_that_occur() -> None:
    regions = RegionSet.dilated(labels_of(64, 64), 1)
    sets = np.unique(regions.masks().reshape(len(regions.incidence.toarray()), -1), axis=1)
    assert regions.incidence.shape[1] == sets.shape[1] == len(regions.sizes)
    np.testing.assert_array_equal(np.unique(regions.incidence.toarray(), axis=1), sets)


def test_parameters_follow_the_size_of_the_image() -> None:
    scaled = {size: (XraiOptions().radius((size, size)), XraiOptions().min_new_pixels((size, size)))
              for size in (8, 64, 128, 224, 512)}  # fmt: skip
    assert scaled == {8: (0, 1), 64: (1, 4), 128: (3, 16), 224: (5, 50), 512: (11, 261)}
    assert XraiOptions().radius((224, 64)) == 1
    given = XraiOptions(dilation=0, min_pixel_diff=7)
    assert (given.radius((224, 224)), given.min_new_pixels((224, 224))) == (0, 7)


# --- the greedy step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "smooth"])
@pytest.mark.parametrize(("height", "width", "radius", "least"), [(64, 64, 5, 50), (64, 64, 1, 4), (40, 70, 0, 1)])
def test_maps_agree_with_the_authors(kind: str, height: int, width: int, radius: int, least: int) -> None:
    for seed in range(2):
        image, values = picture(height, width, seed=seed), attribution(height, width, kind, seed)
        regions = RegionSet.dilated(labels_of(height, width, seed), radius)
        found = rank_regions(regions, values, least)
        np.testing.assert_allclose(found.map, theirs(image, values, regions.masks(), least), atol=1e-6)
        assert len(found.order) > 20


@pytest.mark.parametrize(("size", "channels"), [(64, 1), (224, 1), (96, 3)])
def test_the_explainer_agrees_with_the_authors_from_the_image_on(size: int, channels: int) -> None:
    image, values = picture(size, size, channels), attribution(size, size, "smooth").astype(np.float32)
    (found,) = transformed(values[None], image[None], dilation=5, min_pixel_diff=50)
    np.testing.assert_allclose(found, theirs(image, values), atol=1e-5)


def test_order_agrees_with_the_authors() -> None:
    xrai = pytest.importorskip("saliency.core.xrai")
    regions, values = RegionSet.dilated(labels_of(64, 64), 1), attribution(64, 64, "smooth")
    found = rank_regions(regions, values, 4)
    _, traced = xrai.XRAI._xrai(values, list(regions.masks()), min_pixel_diff=4, integer_segments=False)
    added = [found.map == np.float32(mean) for mean in found.means]
    by_mean = np.argsort(-found.means, kind="stable")  # as the package sorts its trace
    np.testing.assert_array_equal([added[index] for index in by_mean], traced[: len(added)])


def test_one_region_as_the_map_comes_first() -> None:
    regions = RegionSet.dilated(labels_of(64, 64), 0)
    masks = regions.masks()
    for wanted in (3, 20, len(masks) - 1):
        found = rank_regions(regions, masks[wanted], 4)
        chosen = masks[found.order[0]]
        assert found.means[0] == 1
        assert not (chosen & ~masks[wanted]).any()  # itself, or a finer region inside it: all of mean 1
        np.testing.assert_array_equal(found.map == 1, masks[wanted])


def test_regions_are_taken_by_the_mean_of_what_they_add() -> None:
    # Scale 0: stripes of 4, 4 and 4 columns; scale 1: the left 6 columns and the right 6.
    labels = np.concatenate([stripes(4, 4, 4, height=2), stripes(6, 6, height=2)])
    values = np.tile([9.0] * 4 + [5, 5, 1, 1] + [2.0] * 4, (2, 1))
    found = rank_regions(RegionSet.dilated(labels, 0), values, 1)
    # First 9 (label 0). Then the left half adds two columns of 5; then label 2 has 2; then label 1 or the right half
    # add two columns of 1: of equals the first.
    assert found.order.tolist() == [0, 3, 2, 1]
    assert found.means.tolist() == [9, 5, 2, 1]
    assert found.new_pixels.tolist() == [8, 4, 8, 4]
    np.testing.assert_array_equal(found.map, values)


def test_what_no_region_adds_enough_of_gets_its_own_mean() -> None:
    labels = stripes(5, 2, 1, height=3)
    values = np.tile([7.0] * 5 + [1, 2] + [6.0], (3, 1))
    found = rank_regions(RegionSet.dilated(labels, 0), values, 7)
    assert found.order.tolist() == [0]
    np.testing.assert_array_equal(found.map, np.tile([7.0] * 5 + [3.0] * 3, (3, 1)))
    none = rank_regions(RegionSet.dilated(labels, 0), values, 100)
    assert none.order.size == 0
    assert (none.map == np.float32(values.mean())).all()


@pytest.mark.parametrize(("radius", "least"), [(0, 1), (1, 4), (5, 50)])
def test_means_are_means_and_their_sum_is_kept(radius: int, least: int) -> None:
    regions = RegionSet.dilated(labels_of(64, 64), radius)
    values, covered = attribution(64, 64), np.zeros((64, 64), dtype=bool)
    found = rank_regions(regions, values, least)
    masks = regions.masks()
    for region, mean, count in zip(found.order, found.means, found.new_pixels, strict=True):
        new = masks[region] & ~covered
        assert new.sum() == count >= least
        assert mean == pytest.approx(values[new].mean(), abs=1e-12)
        np.testing.assert_allclose(found.map[new], mean, rtol=1e-6)
        covered |= new
    assert max((mask & ~covered).sum() for mask in masks) < least
    assert found.map.sum(dtype=np.float64) == pytest.approx(values.sum(), abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_a_constant_map_stays_constant(value: float) -> None:
    (found,) = transformed(np.full((1, 48, 40), value), picture(48, 40)[None])
    assert (found == np.float32(value)).all()


def test_scaled_parameters_leave_room_for_a_perfect_map() -> None:
    """Dice of the top |mask| pixels with a nodule of a segmented image: with the library's values, and with scaled."""
    y, x = np.mgrid[:64, :64]
    dice = {"library": [], "scaled": []}
    for seed in range(4):
        centre = rng(seed, "centre").uniform(20, 44, 2)
        mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 6**2
        image = np.clip(0.2 + 0.6 * mask + rng(seed, "noise").normal(0, 0.03, mask.shape), 0, 1).astype(np.float32)
        for name, options in [("library", {"dilation": 5, "min_pixel_diff": 50}), ("scaled", {})]:
            (found,) = transformed(mask[None].astype(np.float32), image[None, None], **options)
            shown = found.numpy() >= np.quantile(found, 1 - mask.mean())
            dice[name].append(2 * (shown & mask).sum() / (shown.sum() + mask.sum()))
    assert np.mean(dice["library"]) < 0.75
    assert np.mean(dice["scaled"]) > 0.9


# --- the explainer --------------------------------------------------------------------------------------------------


def test_maps_do_not_depend_on_the_batch_and_use_the_feature_they_are_given() -> None:
    images = np.stack([picture(40, 48, seed=seed) for seed in range(3)])
    maps = np.stack([attribution(40, 48, seed=seed) for seed in range(3)])
    whole = transformed(maps, images)
    for index in range(3):
        assert torch.equal(transformed(maps[index : index + 1], images[index : index + 1])[0], whole[index])
    labels = torch.from_numpy(np.stack([Regions().compute(image) for image in images]))
    nonsense = torch.zeros_like(torch.from_numpy(images))
    explainer = Xrai(XraiOptions())
    given = explainer.checked_transform(torch.from_numpy(maps).float(), batch_of(nonsense, labels), "under test")
    assert torch.equal(given, whole)


def test_a_signed_map_keeps_its_sign() -> None:
    image, values = picture(64, 64)[None], attribution(64, 64, "smooth")[None]
    assert Xrai(XraiOptions()).signed
    found = transformed(values, image)
    assert found.min() < 0 < found.max()
    assert (transformed(-abs(values), image) < 0).all()


def test_the_plugin_imports_no_torch() -> None:
    code = """if True:
        import sys, xbench_regions
        [spec.load_options() for spec in xbench_regions.xbench_explainers()]
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_default_is_the_papers() -> None:
    (spec,) = xbench_regions.xbench_explainers()
    assert (spec.name, spec.argument, spec.default) == ("xrai", "explainer", "integrated-gradients-bw")


_compute = Regions.compute


@functools.cache
def _computed_once(shape: tuple[int, ...], content: bytes) -> np.ndarray:
    return _compute(Regions(), np.frombuffer(content, dtype=np.float32).reshape(shape))


@parametrize_with_checks(xbench_regions.xbench_explainers())
def test_conformance(check: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    # The checks ask for the same few images eighty times.
    monkeypatch.setattr(Regions, "compute", lambda _, image: _computed_once(image.shape, image.tobytes()))
    check()
