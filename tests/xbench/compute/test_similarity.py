"""Structural similarity and rank correlation: scikit-image, scipy, and what has no scale or no order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from xbench.compute.similarity import dssim, map_spearman, map_ssim, ssim
from xbench.runtime.seeding import rng


@pytest.mark.parametrize("shape", [(1, 20, 31), (3, 16, 16), (2, 12, 13, 14)])
def test_ssim_agrees_with_scikit_image(shape: tuple[int, ...]) -> None:
    draw = rng(0, "pictures", shape)
    first = draw.random((4, *shape))
    second = (first + draw.normal(0, 0.2, first.shape)).clip(0, 1)
    settings_of_wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        structural_similarity(a, b, channel_axis=0, **settings_of_wang) for a, b in zip(first, second, strict=True)
    ]
    found = ssim(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(dssim(torch.from_numpy(first), torch.from_numpy(second)), (1 - found) / 2)
    np.testing.assert_allclose(dssim(torch.from_numpy(first), torch.from_numpy(first)), 0, atol=1e-14)


def test_ssim_of_images_smaller_than_its_window() -> None:
    small = torch.from_numpy(rng(0, "small").random((3, 1, 8, 5)))
    np.testing.assert_allclose(ssim(small, small), 1)
    assert (ssim(small, 1 - small) < 0).all()


def test_ssim_of_maps_ignores_their_scale() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(5, 16, 16, generator=draw), torch.randn(5, 16, 16, generator=draw)
    np.testing.assert_allclose(map_ssim(first, second), map_ssim(100 * first, second / 7), atol=1e-6)
    np.testing.assert_allclose(map_ssim(first, 3 * first), 1)
    assert (map_ssim(first, -first) < -0.5).all()
    assert map_ssim(first, second).abs().max() < 0.3
    nothing = torch.zeros(2, 16, 16)
    assert map_ssim(nothing, nothing).tolist() == [1, 1]


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 1000]))
@settings(max_examples=40, deadline=None)
def test_spearman_agrees_with_scipy(seed: int, levels: int) -> None:
    draw = rng(seed, "maps")
    first, second = (draw.integers(-levels, levels + 1, (3, 5, 6)).astype(np.float32) for _ in range(2))
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(map_spearman(torch.from_numpy(first), torch.from_numpy(second)), expected, atol=1e-12)
    stretched = torch.from_numpy(np.exp(first / levels)), torch.from_numpy(second**3)
    np.testing.assert_allclose(map_spearman(*stretched), expected, atol=1e-12)


def test_spearman_of_constant_maps() -> None:
    varied, constant = torch.arange(12.0).view(1, 3, 4), torch.full((1, 3, 4), 0.5)
    assert map_spearman(varied, constant).item() == map_spearman(constant, varied).item() == 0
    assert map_spearman(constant, 2 * constant).item() == 1
