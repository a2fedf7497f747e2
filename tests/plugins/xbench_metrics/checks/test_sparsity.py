"""How little a map singles out: closed forms, Quantus, and what must not matter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import xbench_metrics
from xbench import DatasetInfo, Session, Split
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.fakes import fake_case

SPECS = {
    spec.name: spec
    for spec in xbench_metrics.xbench_metrics()
    if spec.factory.startswith("xbench_metrics.checks.sparsity:")
}


class Nothing(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :2]


def observed(name: str, maps: np.ndarray, tmp_path: Path, batch_size: int = 3) -> tuple[Any, dict[str, np.ndarray]]:
    n, spatial = len(maps), maps.shape[1:]
    ids = [f"sample-{index}" for index in range(n)]
    split = Split.from_arrays(np.zeros((n, 1, *spatial), dtype=np.float32), np.arange(n) % 2, ids, ids)
    info = DatasetInfo("toy", ("a", "b"), 1, spatial)
    session = Session(tmp_path, batch_size=batch_size)
    case = fake_case(info, split, Nothing(), np.asarray(maps, dtype=np.float32), session)
    metric = SPECS[name].load()(SPECS[name].load_options()())
    return metric, {**metric.observe(case), "label": split.labels, "target": case.targets}


def value(name: str, maps: np.ndarray, tmp_path: Path) -> float:
    metric, seen = observed(name, maps, tmp_path)
    return metric.summarise(seen)


def one_pixel(n: int = 4, side: int = 8) -> np.ndarray:
    maps = np.zeros((n, side, side))
    maps[:, 3, 5] = 1
    return maps


# --- importance loss --------------------------------------------------------------------------------------------------


def test_importance_loss_is_the_mean(tmp_path: Path) -> None:
    maps = rng(0, "maps").random((7, 6, 5))
    metric, seen = observed("importance_loss", maps, tmp_path)
    np.testing.assert_allclose(seen["importance_loss"], maps.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(seen["peak"], maps.max((1, 2)), atol=1e-6)
    assert metric.summarise(seen) == pytest.approx(maps.mean(), abs=1e-6)
    assert not metric.higher_is_better


def test_importance_loss_has_the_papers_range(tmp_path: Path) -> None:
    assert value("importance_loss", one_pixel(), tmp_path) == 1 / 64
    assert value("importance_loss", np.ones((3, 8, 8)), tmp_path) == 1
    assert value("importance_loss", np.zeros((3, 8, 8)), tmp_path) == 0


@pytest.mark.parametrize("extreme", [-0.01, 1.01, 255.0])
def test_maps_that_are_no_importance_do_not_count(tmp_path: Path, extreme: float) -> None:
    maps = np.full((3, 8, 8), 0.25)
    maps[1, 0, 0] = extreme
    metric, seen = observed("importance_loss", maps, tmp_path)
    assert np.isnan(seen["importance_loss"]).tolist() == [False, True, False]
    assert metric.summarise(seen) == 0.25
    with np.errstate(all="raise"):
        assert np.isnan(metric.summarise({key: values[[1, 1]] for key, values in seen.items()}))


def test_rounding_does_not_take_a_map_out(tmp_path: Path) -> None:
    maps = np.full((2, 8, 8), 0.5)
    maps[:, 0, 0] = 1 + 1e-6
    assert value("importance_loss", maps, tmp_path) == pytest.approx(0.5078125, abs=1e-6)


# --- sparseness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, -3.0, 1e-38, 1e30])
def test_one_pixel_is_the_sparsest_map(tmp_path: Path, scale: float) -> None:
    assert value("sparseness", scale * one_pixel(), tmp_path) == pytest.approx(1 - 1 / 64, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.5, -2.0])
def test_constant_maps_are_not_sparse(tmp_path: Path, constant: float) -> None:
    assert value("sparseness", np.full((3, 8, 8), constant), tmp_path) == pytest.approx(0, abs=1e-12)


def test_k_equal_pixels(tmp_path: Path) -> None:
    maps = np.zeros((16, 4, 4))
    for count in range(16):
        maps[count].flat[: count + 1] = 2.0
    _, seen = observed("sparseness", maps, tmp_path)
    np.testing.assert_allclose(seen["sparseness"], 1 - np.arange(1, 17) / 16, atol=1e-12)


def test_sparseness_is_half_the_relative_mean_difference(tmp_path: Path) -> None:
    """The Gini index by its other definition, over all pairs of pixels."""
    maps = rng(0, "maps").standard_normal((4, 6, 7)).astype(np.float32)
    flat = abs(maps.reshape(4, -1).astype(float))
    expected = abs(flat[:, :, None] - flat[:, None]).mean((1, 2)) / (2 * flat.mean(1))
    _, seen = observed("sparseness", maps, tmp_path)
    np.testing.assert_allclose(seen["sparseness"], expected, atol=1e-12)


def test_sparseness_agrees_with_quantus(tmp_path: Path) -> None:
    """It adds 1e-7 to every pixel, which changes the index by about 1e-7 over the mean of the map."""
    quantus = pytest.importorskip("quantus")
    maps = abs(rng(1, "maps").standard_normal((5, 8, 9)))
    reference = quantus.Sparseness(abs=True, normalise=False, disable_warnings=True, display_progressbar=False)
    expected = reference.evaluate_batch(x_batch=None, a_batch=maps[:, None].copy())
    _, seen = observed("sparseness", maps, tmp_path)
    np.testing.assert_allclose(seen["sparseness"], expected, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(scale=st.sampled_from([2.0**-20, 0.5, 4.0, -1.0]), seed=st.integers(0, 1000))
def test_scale_sign_and_place_change_nothing(tmp_path_factory: pytest.TempPathFactory, scale: float, seed: int) -> None:
    folder = tmp_path_factory.mktemp("case")
    maps, draw = rng(seed, "maps").standard_normal((4, 6, 6)).astype(np.float32), rng(seed, "places")
    _, first = observed("sparseness", maps, folder)
    moved = draw.permuted(scale * maps.reshape(4, -1), axis=1).reshape(maps.shape)
    _, second = observed("sparseness", moved, folder)
    np.testing.assert_allclose(second["sparseness"], first["sparseness"], rtol=1e-12)


@parametrize_with_checks(SPECS.values())
def test_conformance(check: Callable[..., None]) -> None:
    check()
