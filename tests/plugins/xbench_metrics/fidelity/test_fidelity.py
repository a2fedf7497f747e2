"""Fidelity: closed forms, a slow independent implementation, invariances, and what it costs."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from xbench import Case, DatasetInfo, Session, Split, UserError
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case
from xbench.testing.networks import ConvNetwork
from xbench_metrics.fidelity.fidelity import Fidelity
from xbench_metrics.fidelity.options import FidelityOptions
from xbench_metrics.fidelity.removal import Removal
from xbench_metrics.ranking import tie_keys

DECIDING = 27  # the one pixel that the single-pixel classifier looks at


class OnePixel(nn.Module):
    """Class 1 exactly where the deciding pixel is above one half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, DECIDING : DECIDING + 1] - 0.5


class Constant(nn.Module):
    """Class 1, whatever the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 1)


def info_of(
    channels: int = 1, spatial: tuple[int, ...] = (8, 8), classes: int = 2, removal: tuple[float, ...] = (1.0, 0.0)
) -> DatasetInfo:
    return DatasetInfo("toy", tuple("abcdef"[:classes]), channels, spatial, removal=removal)


def split_of(images: np.ndarray, labels: np.ndarray) -> Split:
    ids = [f"sample-{index}" for index in range(len(images))]
    return Split.from_arrays(images.astype(np.float32), np.asarray(labels), ids, ids)


def deciding_images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images whose deciding pixel is the label, the others noise."""
    images = rng(seed, "images").random((n, 1, 8, 8), dtype=np.float32)
    labels = np.arange(n) % 2
    images.reshape(n, -1)[:, DECIDING] = labels
    return images, labels


def case_of(
    module: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    maps: np.ndarray,
    tmp_path: Path,
    info: DatasetInfo | None = None,
    batch_size: int = 32,
    **replaced: Any,
) -> Case:
    session = Session(tmp_path, batch_size=batch_size)
    return fake_case(info or info_of(), split_of(images, labels), module, maps.astype(np.float32), session, **replaced)


def observed(case: Case, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    metric = Fidelity(FidelityOptions(**options))
    case = dataclasses.replace(case, prepared=metric.prepare(case))
    return metric, {**metric.observe(case), "label": case.split.labels, "target": case.targets}


def fidelity(case: Case, **options: Any) -> float:
    metric, seen = observed(case, **options)
    return metric.summarise(seen)


def deciding_map(n: int) -> np.ndarray:
    maps = np.zeros((n, 64))
    maps[:, DECIDING] = 1
    return maps.reshape(n, 8, 8)


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "expected"), [(1, 0.975), (-1, -0.975)])
def test_single_pixel_classifier(tmp_path: Path, sign: int, expected: float) -> None:
    images, labels = deciding_images(20)
    case = case_of(OnePixel(), images, labels, sign * deciding_map(20), tmp_path)
    assert fidelity(case, removal="opposite") == pytest.approx(expected, abs=1e-6)


def test_coarser_steps_lose_one_step(tmp_path: Path) -> None:
    images, labels = deciding_images(6)
    case = case_of(OnePixel(), images, labels, deciding_map(6), tmp_path)
    assert fidelity(case, step=0.1) == pytest.approx(1 - 0.1, abs=1e-12)
    assert fidelity(case, step=0.5) == pytest.approx(1 - 0.5, abs=1e-12)


def test_a_model_that_ignores_its_input_has_no_fidelity(tmp_path: Path) -> None:
    images, labels = deciding_images(10)
    assert fidelity(case_of(Constant(), images, labels, deciding_map(10), tmp_path)) == 0


@pytest.mark.parametrize("kind", ["random", "constant"])
def test_random_and_constant_maps_score_zero_within_chance(tmp_path: Path, kind: str) -> None:
    n = 600
    images, labels = deciding_images(n)
    maps = rng(1, "maps").random((n, 8, 8)) if kind == "random" else np.zeros((n, 8, 8))
    _, seen = observed(case_of(OnePixel(), images, labels, maps, tmp_path, batch_size=256))
    # The deciding pixel's place is uniform, so a sample's area difference is 1 - 2 U: standard deviation 2 / sqrt(12).
    assert abs(seen["fidelity"].mean()) < 3 * (2 / np.sqrt(12)) / np.sqrt(n)
    assert seen["fidelity"].std() == pytest.approx(2 / np.sqrt(12), rel=0.1)
    assert np.all(seen["tie_fraction"] == (0 if kind == "random" else 1))


def test_negated_maps_without_ties_have_negated_fidelity(tmp_path: Path) -> None:
    images, labels = deciding_images(15)
    maps = rng(2, "maps").standard_normal((15, 8, 8))
    value = fidelity(case_of(OnePixel(), images, labels, maps, tmp_path))
    assert value != 0
    # 64 pixels in 40 steps: no step removes a half pixel, so reading the order backwards swaps the two curves.
    assert fidelity(case_of(OnePixel(), images, labels, -maps, tmp_path)) == pytest.approx(-value, abs=1e-12)


def test_both_curves_start_and_end_together(tmp_path: Path) -> None:
    images, labels = deciding_images(9)
    _, seen = observed(case_of(OnePixel(), images, labels, deciding_map(9), tmp_path))
    assert seen["mif"].shape == seen["lif"].shape == (9, 41)
    assert np.array_equal(seen["mif"][:, [0, -1]], seen["lif"][:, [0, -1]])
    assert seen["mif"][:, 0].all()
    assert not seen["mif"][:, 1:].any()


# --- an independent implementation ------------------------------------------------------------------------------------


def slow_fidelity(
    module: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    maps: np.ndarray,
    keys: np.ndarray,
    fill: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Brocki et al., section 3.1, in plain loops."""
    n, pixels = len(images), maps[0].size
    flat = images.reshape(n, images.shape[1], pixels)
    areas = {}
    for mode in ("mif", "lif"):
        heights = []
        for step in range(steps + 1):
            predicted = []
            for index in range(n):
                order = sorted(range(pixels), key=lambda p, i=index: (-float(maps[i].flat[p]), float(keys[i][p])))  # type: ignore[misc]
                order = order if mode == "mif" else order[::-1]
                removed = flat[index].copy()
                for pixel in order[: int(step / steps * pixels + 0.5)]:
                    removed[:, pixel] = fill[index, :, pixel]
                logits = module(torch.from_numpy(removed.reshape(1, *images.shape[1:])))[0].detach().numpy()
                predicted.append(int(logits[0] > 0) if len(logits) == 1 else int(np.argmax(logits)))
            heights.append(balanced_accuracy_score(labels, predicted))
        areas[mode] = np.trapezoid(heights, np.linspace(0, 1, steps + 1))
    return areas["lif"] - areas["mif"]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("channels", "outputs", "removal"), [(1, 1, "mean"), (3, 3, "mean"), (3, 3, "noise"), (1, 1, "blur")]
)
def test_agrees_with_plain_loops(tmp_path: Path, channels: int, outputs: int, removal: str, ties: bool) -> None:
    n, spatial = 7, (9, 8)
    classes = max(outputs, 2)
    torch.manual_seed(0)
    module = ConvNetwork(channels, outputs).eval()
    module.head.weight.data *= 30  # decided enough to change its mind
    images = rng(0, "images").random((n, channels, *spatial), dtype=np.float32)
    labels = np.arange(n) % classes
    maps = rng(0, "maps").standard_normal((n, *spatial))
    maps = maps.round() if ties else maps
    case = case_of(module, images, labels, maps, tmp_path, info_of(channels, spatial, classes), batch_size=13)
    batch = case.split.batch(range(n))
    fill = Removal(removal, case, 2.0).fill(batch).expand(n, channels, 72).numpy()
    keys = tie_keys(batch.seeds, 72).numpy()
    expected = slow_fidelity(module, images, labels, case.maps, keys, fill, steps=10)  # type: ignore[arg-type]
    assert fidelity(case, removal=removal, blur_sigma=2.0, step=0.1) == pytest.approx(expected, abs=1e-12)


# --- invariances ------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    power=st.sampled_from([1, 3, 5]), scale=st.integers(1, 64), shift=st.integers(-32, 32), seed=st.integers(0, 1000)
)
def test_monotone_transforms_of_a_map_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, power: float, scale: int, shift: int, seed: int
) -> None:
    images, labels = deciding_images(6)
    maps = rng(seed, "maps").integers(-8, 8, (6, 8, 8))  # integers, so that a transform makes no tie and breaks none
    folder = tmp_path_factory.mktemp("case")
    first, second = (
        observed(case_of(OnePixel(), images, labels, values, folder), step=0.125)[1]
        for values in (maps, scale * maps.astype(float) ** power + shift)
    )
    for name in ("mif", "lif", "tie_fraction"):
        assert np.array_equal(first[name], second[name])


def convolutional_case(tmp_path: Path, **replaced: Any) -> Case:
    torch.manual_seed(1)
    module = ConvNetwork(1, 2)
    module.head.weight.data *= 30
    images = rng(0, "images").random((11, 1, 8, 8), dtype=np.float32)
    maps = rng(0, "maps").standard_normal((11, 8, 8)).round(1)
    return case_of(module, images, np.arange(11) % 2, maps, tmp_path, **replaced)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_batch_size_changes_nothing(tmp_path: Path, size: int) -> None:
    _, expected = observed(convolutional_case(tmp_path, batch_size=32))
    _, seen = observed(convolutional_case(tmp_path, batch_size=size))
    assert np.array_equal(seen["mif"], expected["mif"])
    assert np.array_equal(seen["lif"], expected["lif"])


def test_sample_order_changes_nothing(tmp_path: Path) -> None:
    case = convolutional_case(tmp_path)
    order = rng(0, "order").permutation(11)
    turned = dataclasses.replace(case, split=case.split.select(order), logits=case.logits[order], maps=case.maps[order])
    metric, expected = observed(case)
    _, seen = observed(turned)
    assert np.array_equal(seen["mif"], expected["mif"][order])
    assert np.array_equal(seen["lif"], expected["lif"][order])
    assert metric.summarise(seen) == pytest.approx(metric.summarise(expected), abs=1e-12)


def test_mirroring_image_and_map_changes_nothing_for_a_mirror_invariant_model(tmp_path: Path) -> None:
    class MirrorInvariant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images[..., 2:4, :].amax((1, 2, 3)) - images[..., 5:, :].mean((1, 2, 3)) - 0.45)[:, None]

    images = rng(3, "images").random((12, 1, 8, 8), dtype=np.float32)
    maps = rng(3, "maps").standard_normal((12, 8, 8))
    labels = np.arange(12) % 2
    first, second = (
        observed(case_of(MirrorInvariant(), pixels, labels, values, tmp_path), removal="mean")[1]
        for pixels, values in ((images, maps), (images[..., ::-1].copy(), maps[..., ::-1]))
    )
    assert first["mif"].any()
    assert np.array_equal(first["mif"], second["mif"])
    assert np.array_equal(first["lif"], second["lif"])


def test_volumes_are_scored_like_images(tmp_path: Path) -> None:
    images, labels = deciding_images(8)
    volume = case_of(
        OnePixel(),
        images.reshape(8, 1, 4, 4, 4),
        labels,
        deciding_map(8).reshape(8, 4, 4, 4),
        tmp_path,
        info_of(spatial=(4, 4, 4)),
    )
    assert fidelity(volume) == pytest.approx(0.975, abs=1e-6)


def test_auto_removal_is_opposite_only_where_the_dataset_declares_it(tmp_path: Path) -> None:
    images, labels = deciding_images(10)
    with_values = case_of(OnePixel(), images, labels, deciding_map(10), tmp_path)
    without = dataclasses.replace(with_values, info=info_of(removal=None))
    assert fidelity(with_values, removal="auto") == fidelity(with_values, removal="opposite")
    assert fidelity(without, removal="auto") == fidelity(without, removal="mean") != fidelity(with_values)
    with pytest.raises(UserError, match="toy declares no removal value"):
        fidelity(without, removal="opposite")


# --- summaries, cost, errors ------------------------------------------------------------------------------------------


def test_missing_classes_and_empty_sets(tmp_path: Path) -> None:
    metric, seen = observed(case_of(OnePixel(), *deciding_images(8), deciding_map(8), tmp_path, info_of(classes=3)))
    one_class = {key: values[seen["label"] == 1] for key, values in seen.items()}
    assert metric.summarise(seen) == pytest.approx(0.975, abs=1e-6)
    assert metric.summarise(one_class) == pytest.approx(0.975, abs=1e-6)
    with np.errstate(all="raise"):
        assert np.isnan(metric.summarise({key: values[:0] for key, values in seen.items()}))


def test_unbalanced_classes_count_alike() -> None:
    areas, labels = np.array([1.0, 0.0, 0.0, -1.0]), np.array([0, 0, 0, 1])
    value = Fidelity(FidelityOptions()).summarise({"fidelity": areas, "label": labels})
    assert value == pytest.approx((1 / 3 - 1) / 2, abs=1e-12)


def test_summary_is_the_area_between_the_curves(tmp_path: Path) -> None:
    metric, seen = observed(convolutional_case(tmp_path))
    curves = metric.curves(seen)
    areas = {name: np.trapezoid(heights, curves.x / 100) for name, heights in curves.y.items()}
    assert metric.summarise(seen) == pytest.approx(
        areas["least important first"] - areas["most important first"], abs=1e-12
    )
    by_role = {role: areas[name] for name, role in curves.roles.items()}
    assert metric.summarise(seen) == pytest.approx(by_role["least_first"] - by_role["most_first"], abs=1e-12)


@pytest.mark.parametrize(("n", "size"), [(10, 32), (33, 8), (5, 100), (3, 1)])
def test_forward_passes_are_as_few_as_whole_steps_allow(tmp_path: Path, n: int, size: int) -> None:
    rows = []
    case = case_of(OnePixel(), *deciding_images(n), deciding_map(n), tmp_path, batch_size=size)

    def counting(images: torch.Tensor) -> torch.Tensor:
        rows.append(len(images))
        return case.logits_of(images)

    counted = dataclasses.replace(case, logits_of=counting)
    metric = Fidelity(FidelityOptions())
    counted = dataclasses.replace(counted, prepared=metric.prepare(counted))
    assert sum(rows) == n
    rows.clear()
    metric.observe(counted)
    assert sum(rows) == n * 2 * 39
    assert max(rows) <= size
    whole, rest = divmod(n, size)
    # A whole chunk takes a pass a step; what is left takes as many steps at once as fit.
    steps_at_once = size // rest if rest else 1
    assert len(rows) == 2 * (39 * whole + (math.ceil(39 / steps_at_once) if rest else 0))


def test_a_model_may_return_a_part_of_its_input(tmp_path: Path) -> None:
    class View(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, DECIDING : DECIDING + 2]

    class Copy(View):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).clone()

    images, labels = deciding_images(12)
    maps = rng(4, "maps").random((12, 8, 8))
    values = [fidelity(case_of(module, images, labels, maps, tmp_path, batch_size=5)) for module in (View(), Copy())]
    assert values[0] == values[1] != 0


def test_a_model_at_chance_is_warned_about(tmp_path: Path) -> None:
    case = case_of(Constant(), *deciding_images(6), deciding_map(6), tmp_path)
    Fidelity(FidelityOptions()).prepare(case)
    assert "no better than chance on toy" in case.session.progress.warnings[0]
