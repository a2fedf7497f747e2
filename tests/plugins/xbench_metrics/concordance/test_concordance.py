"""Maps against the expert's mask: closed forms, scikit-learn, Quantus, plain loops, and what must not matter."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

import xbench_metrics
from xbench import Case, DatasetInfo, Session, Split, UserError
from xbench.contracts.options import parse_options
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.fakes import fake_case

SPECS = {
    spec.name: spec
    for spec in xbench_metrics.xbench_metrics()
    if spec.factory.startswith("xbench_metrics.concordance.concordance:")
}
RANKED = ("roc_auc", "average_precision", "pointing_game", "relevance_rank")


class Nothing(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :2]


def metric_of(name: str, **options: Any) -> Any:
    spec = SPECS[name]
    return spec.load()(parse_options(spec.load_options(), options, f"metric {name}"))


def case_of(
    maps: np.ndarray, masks: np.ndarray, tmp_path: Path, has_mask: np.ndarray | None = None, batch_size: int = 3
) -> Case:
    n, spatial = len(maps), masks.shape[1:]
    ids = [f"sample-{index}" for index in range(n)]
    images = rng(0, "images").random((n, 1, *spatial), dtype=np.float32)
    split = Split.from_arrays(images, np.arange(n) % 2, ids, ids, masks, has_mask)
    info = DatasetInfo("toy", ("a", "b"), 1, spatial, has_masks=True)
    session = Session(tmp_path, batch_size=batch_size)
    return fake_case(info, split, Nothing(), np.asarray(maps, dtype=np.float32), session)


def observed(
    name: str,
    maps: np.ndarray,
    masks: np.ndarray,
    tmp_path: Path,
    has_mask: np.ndarray | None = None,
    batch_size: int = 3,
    **options: Any,
) -> tuple[Any, dict[str, np.ndarray]]:
    case = case_of(maps, masks, tmp_path, has_mask, batch_size)
    metric = metric_of(name, **options)
    return metric, {**metric.observe(case), "label": case.split.labels, "target": case.targets}


def value(name: str, *arguments: Any, **options: Any) -> float:
    metric, seen = observed(name, *arguments, **options)
    return metric.summarise(seen)


def blobs(n: int = 8, size: int = 16, seed: int = 0) -> np.ndarray:
    """Disks of several sizes: bool (n, size, size)."""
    draw, (y, x) = rng(seed, "blobs"), np.mgrid[:size, :size]
    centre, radius = draw.uniform(4, size - 4, (n, 2, 1, 1)), draw.uniform(1.5, 4, (n, 1, 1))
    return (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 <= radius**2


def noise(masks: np.ndarray, ties: bool = False, seed: int = 0) -> np.ndarray:
    """Maps that know something of the mask."""
    maps = rng(seed, "maps").standard_normal(masks.shape) + masks
    return (maps.round() if ties else maps).astype(np.float32)


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_the_mask_itself_is_perfect_and_its_inverse_is_not(tmp_path: Path, name: str) -> None:
    masks = blobs()
    assert value(name, masks, masks, tmp_path) == 1
    assert value(name, 3.0 * masks - 1, masks, tmp_path) == 1
    inverse = value(name, 1.0 - masks, masks, tmp_path)
    assert inverse == 0 if name != "average_precision" else 0 < inverse == pytest.approx(masks.mean((1, 2)).mean())


@pytest.mark.parametrize("constant", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("name", SPECS)
def test_a_constant_map_has_what_chance_has(tmp_path: Path, name: str, constant: float) -> None:
    masks = blobs()
    share = 0.5 if name == "roc_auc" else masks.mean((1, 2)).mean()
    assert value(name, np.full(masks.shape, constant), masks, tmp_path) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_a_random_map_has_what_chance_has(tmp_path: Path, name: str) -> None:
    masks = np.broadcast_to(blobs(1), (400, 16, 16))
    share, size = masks.mean(), masks[0].sum()
    _, seen = observed(name, rng(0, "random").random(masks.shape), masks, tmp_path, batch_size=64)
    chance = 0.5 if name == "roc_auc" else share
    # The precision at the few highest pixels is a ratio of small counts, so AP exceeds the share by about log(n) / n.
    allowed = np.log(256) / 256 if name == "average_precision" else 0
    assert abs(seen[name].mean() - chance) < 4 * seen[name].std() / np.sqrt(400) + allowed
    if name == "roc_auc":
        assert seen[name].std() == pytest.approx(np.sqrt((256 + 1) / (12 * size * (256 - size))), rel=0.15)


# --- independent implementations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("name", "theirs"), [("roc_auc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_agrees_with_scikit_learn(tmp_path: Path, name: str, theirs: Callable[..., Any], ties: bool) -> None:
    masks = blobs()
    maps = noise(masks, ties)
    _, seen = observed(name, maps, masks, tmp_path)
    expected = [theirs(mask.ravel(), pixels.ravel()) for mask, pixels in zip(masks, maps, strict=True)]
    np.testing.assert_allclose(seen[name], expected, atol=1e-12)
    counts = [np.unique(pixels, return_counts=True)[1] for pixels in maps]
    np.testing.assert_allclose(seen["tie_fraction"], [count[count > 1].sum() / 256 for count in counts])


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("relevance_mass", "RelevanceMassAccuracy"),
        ("relevance_rank", "RelevanceRankAccuracy"),
        ("pointing_game", "PointingGame"),
    ],
)
def test_agrees_with_quantus_where_its_conventions_allow(tmp_path: Path, name: str, theirs: str) -> None:
    """Positive maps without ties, and every image outlined."""
    quantus = pytest.importorskip("quantus")
    masks = blobs(seed=1)
    maps = np.exp(noise(masks, seed=1))
    reference = getattr(quantus, theirs)(
        abs=False, normalise=False, disable_warnings=True, display_progressbar=False, return_aggregate=False
    )
    expected = reference.evaluate_batch(x_batch=None, a_batch=maps[:, None].astype(np.float64), s_batch=masks[:, None])
    _, seen = observed(name, maps, masks, tmp_path)
    assert 0 < seen[name].mean() < 1
    np.testing.assert_allclose(seen[name], np.asarray(expected, dtype=float), atol=1e-6)


def test_ties_of_the_relevance_rank_are_the_mean_over_all_their_orders(tmp_path: Path) -> None:
    maps = np.array([[[2, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0]], [[3, 3, 3], [3, 3, 2]]], dtype=float)
    masks = np.array([[[1, 1, 0], [1, 0, 0]], [[0, 0, 0], [1, 0, 1]], [[1, 0, 0], [0, 0, 1]]], dtype=bool)
    expected = []
    for pixels, mask in zip(maps.reshape(3, -1), masks.reshape(3, -1), strict=True):
        orders = [
            sorted(range(6), key=lambda p, o=order: (-pixels[p], o[p]))  # type: ignore[misc]
            for order in itertools.permutations(range(6))
        ]
        expected.append(np.mean([mask[order[: mask.sum()]].mean() for order in orders]))
    _, seen = observed("relevance_rank", maps, masks, tmp_path)
    np.testing.assert_allclose(seen["relevance_rank"], expected, atol=1e-12)


def slow_curves(maps: np.ndarray, masks: np.ndarray, thresholds: int = 200) -> np.ndarray:
    """Brocki et al., section 3.2, in plain loops: mean TPR and FPR at each threshold."""
    curves = np.empty((2, len(maps), thresholds + 1))
    for index, (pixels, mask) in enumerate(zip(maps, masks, strict=True)):
        ranks = [(np.sum(pixels < pixel) + np.sum(pixels <= pixel) + 1) / 2 for pixel in pixels.ravel()]
        scores = np.reshape(ranks, pixels.shape) / pixels.size
        for k in range(thresholds + 1):
            # 1e-9: in floating point, k / 200 may lie on either side of a rank that equals it.
            relevant = scores > k / thresholds + 1e-9
            curves[:, index, k] = relevant[mask].mean(), relevant[~mask].mean()
    return curves.mean(1)


@pytest.mark.parametrize("ties", [False, True])
def test_the_papers_protocols_agree_with_plain_loops(tmp_path: Path, ties: bool) -> None:
    masks = blobs(5, 20)  # 400 pixels: thresholds that equal a rank
    maps = noise(masks, ties)
    tpr, fpr = slow_curves(maps, masks)
    heights = value("roc_auc", maps, masks, tmp_path, protocol="heights")
    area = value("roc_auc", maps, masks, tmp_path, protocol="trapezoid")
    assert heights == pytest.approx(tpr.mean(), abs=1e-6)
    assert area == pytest.approx(-np.trapezoid(tpr, fpr), abs=1e-6)
    metric, seen = observed("roc_auc", maps, masks, tmp_path, protocol="trapezoid")
    curves = metric.curves(seen)
    np.testing.assert_allclose(curves.y["map"], 100 * tpr[::-1], atol=1e-4)
    np.testing.assert_allclose(curves.x, 100 * fpr[::-1], atol=1e-4)
    assert (curves.x[[0, -1]] == [0, 100]).all()
    assert np.trapezoid(curves.y["map"], curves.x) / 1e4 == pytest.approx(area, abs=1e-12)


def test_the_mean_height_is_not_the_area(tmp_path: Path) -> None:
    """It is |m| / 2n + (1 - |m| / n) AUC, and half of 1 / n more by the finite number of pixels."""
    masks = blobs(12, 24)
    maps, share = noise(masks), masks.mean((1, 2))
    _, seen = observed("roc_auc", maps, masks, tmp_path)
    expected = (share / 2 + (1 - share) * seen["roc_auc"]).mean()
    assert abs(expected - seen["roc_auc"].mean()) > 0.005
    assert value("roc_auc", maps, masks, tmp_path, protocol="heights") == pytest.approx(expected, abs=3e-3)


def test_the_area_under_the_mean_curve_is_the_mean_area_of_alike_images(tmp_path: Path) -> None:
    masks = np.broadcast_to(blobs(1, 24), (6, 24, 24))
    maps = np.broadcast_to(noise(masks[:1]), masks.shape)
    exact = value("roc_auc", maps, masks, tmp_path)
    assert value("roc_auc", maps, masks, tmp_path, protocol="trapezoid") == pytest.approx(exact, abs=2e-3)


# --- masks that say nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in SPECS), *(("roc_auc", {"protocol": protocol}) for protocol in ("trapezoid", "heights"))],
)
def test_missing_empty_and_full_masks_do_not_count(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    masks = blobs(7)
    maps = noise(masks)
    masks[1], masks[3] = False, True
    has_mask = np.arange(7) != 4
    masks[4] &= has_mask[4]
    kept = [0, 2, 5, 6]
    metric, seen = observed(name, maps, masks, tmp_path, has_mask, **options)
    assert seen["used"].tolist() == [index in kept for index in range(7)]
    assert np.isnan(seen[name]).tolist() == [index not in kept for index in range(7)]
    assert metric.summarise(seen) == pytest.approx(value(name, maps[kept], masks[kept], tmp_path, **options), abs=1e-12)
    nobody = {key: values[[1, 3, 4]] for key, values in seen.items()}
    with np.errstate(all="raise"):
        for subset in (nobody, {key: values[:0] for key, values in seen.items()}):
            assert np.isnan(metric.summarise(subset))
            assert metric.curves(subset) is None


# --- signs, ties, tolerance -------------------------------------------------------------------------------------------


def test_only_positive_relevance_has_mass(tmp_path: Path) -> None:
    maps = np.array([[[4.0, -3.0], [-8.0, 1.0]], [[-1.0, -2.0], [0.0, -0.0]], [[1e-40, 0.0], [0.0, 0.0]]])
    masks = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[1, 0], [1, 1]]], dtype=bool)
    _, seen = observed("relevance_mass", maps, masks, tmp_path)
    assert seen["relevance_mass"].tolist() == [0.8, 0.25, 1]
    assert seen["blank"].tolist() == [0, 1, 0]


def test_tied_maxima_hit_in_equal_parts(tmp_path: Path) -> None:
    maps = np.array([[[7, 7, 1], [7, 0, 7]]])
    masks = np.array([[[1, 0, 1], [1, 1, 0]]], dtype=bool)
    _, seen = observed("pointing_game", maps, masks, tmp_path)
    assert (seen["pointing_game"], seen["maxima"]) == (0.5, 4)


@pytest.mark.parametrize("spatial", [(13, 17), (7, 8, 9)])
@pytest.mark.parametrize("tolerance", [0, 1, 2, 5])
def test_tolerance_is_a_distance(tmp_path: Path, spatial: tuple[int, ...], tolerance: int) -> None:
    pixels = int(np.prod(spatial))
    maps = np.eye(pixels).reshape(pixels, *spatial)  # one for each place of the maximum
    mask = np.zeros(spatial, dtype=bool)
    mask[(3,) * len(spatial)] = mask[(5,) * len(spatial)] = True
    masks = np.broadcast_to(mask, maps.shape)
    _, seen = observed("pointing_game", maps, masks, tmp_path, tolerance=tolerance, batch_size=128)
    places = np.indices(spatial).reshape(len(spatial), -1)
    squared = ((places[:, :, None] - places[:, None, mask.ravel()]) ** 2).sum(0).min(1)
    np.testing.assert_array_equal(seen["pointing_game"], squared <= tolerance**2)


def test_negative_tolerance_is_refused() -> None:
    with pytest.raises(UserError, match="tolerance"):
        metric_of("pointing_game", tolerance=-1)


# --- what must not matter ---------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(power=st.sampled_from([1, 3]), scale=st.integers(1, 64), shift=st.integers(-32, 32), seed=st.integers(0, 1000))
@pytest.mark.parametrize("name", RANKED)
def test_monotone_transforms_of_a_map_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, name: str, power: float, scale: int, shift: int, seed: int
) -> None:
    masks, folder = blobs(4), tmp_path_factory.mktemp("case")
    maps = rng(seed, "maps").integers(-8, 8, masks.shape)  # integers, so that a transform makes no tie and breaks none
    _, first = observed(name, maps, masks, folder)
    _, second = observed(name, scale * maps.astype(float) ** power + shift, masks, folder)
    np.testing.assert_array_equal(first[name], second[name])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), axis=st.sampled_from([1, 2]))
@pytest.mark.parametrize("name", SPECS)
def test_mirroring_and_sample_order_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int, axis: int
) -> None:
    masks, folder = blobs(5), tmp_path_factory.mktemp("case")
    maps, order = noise(masks, ties=bool(seed % 2), seed=seed), rng(seed, "order").permutation(5)
    _, first = observed(name, maps, masks, folder)
    _, mirrored = observed(name, np.flip(maps, axis), np.flip(masks, axis).copy(), folder)
    _, permuted = observed(name, maps[order], masks[order], folder)
    np.testing.assert_allclose(mirrored[name], first[name], rtol=1e-12)
    np.testing.assert_allclose(permuted[name], first[name][order], rtol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_volumes_are_compared_like_images(tmp_path: Path, name: str) -> None:
    masks = blobs(6)
    maps = noise(masks)
    flat, solid = (observed(name, maps.reshape(6, *shape), masks.reshape(6, *shape), tmp_path)[1][name]
                   for shape in ((16, 16), (4, 8, 8)))  # fmt: skip
    np.testing.assert_array_equal(flat, solid)


def test_the_mass_hangs_on_the_values(tmp_path: Path) -> None:
    masks = blobs()
    maps = abs(noise(masks))
    assert value("relevance_mass", maps + 5, masks, tmp_path) < value("relevance_mass", maps, masks, tmp_path)


def test_protocols_have_cards_of_their_own(tmp_path: Path) -> None:
    info = case_of(blobs(2), blobs(2), tmp_path).info
    cards = [metric_of("roc_auc", protocol=protocol).card(info) for protocol in ("exact", "trapezoid", "heights")]
    assert len({str(card) for card in cards}) == 3


@parametrize_with_checks(SPECS.values())
def test_conformance(check: Callable[..., None]) -> None:
    check()
