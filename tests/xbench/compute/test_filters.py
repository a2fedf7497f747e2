"""The Gaussian filter: scipy as reference, for images, volumes and windows wider than the image."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from xbench.compute.filters import gaussian_blur
from xbench.runtime.seeding import rng


@pytest.mark.parametrize("shape", [(9,), (12, 7), (4, 5, 6)])
@pytest.mark.parametrize("sigma", [0.5, 1.5, 10.0])
def test_the_numbers_are_scipys(shape: tuple[int, ...], sigma: float) -> None:
    images = rng(0, "images", shape).random((2, 3, *shape))
    expected = gaussian_filter(images, (0, 0, *[sigma] * len(shape)))
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(images), sigma).numpy(), expected, atol=1e-12)


def test_a_shorter_window() -> None:
    images = rng(0, "window").random((2, 1, 16, 9))
    expected = gaussian_filter(images, (0, 0, 3, 3), radius=(0, 0, 2, 2))
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(images), 3, radius=2).numpy(), expected, atol=1e-12)


def test_only_where_the_window_lies_inside() -> None:
    images = torch.from_numpy(rng(0, "inside").random((2, 1, 16, 5)))
    everywhere, inside = gaussian_blur(images, 1.5, radius=3), gaussian_blur(images, 1.5, radius=3, inside=True)
    assert inside.shape == (2, 1, 10, 5)  # five pixels are fewer than the window's seven
    torch.testing.assert_close(inside, everywhere[:, :, 3:13])
    with pytest.raises(ValueError, match="radius"):
        gaussian_blur(images, 1.5, inside=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_stays_and_a_constant_stays_one(dtype: torch.dtype) -> None:
    blurred = gaussian_blur(torch.full((1, 2, 6, 8), 0.3, dtype=dtype), 2.0)
    assert blurred.dtype == dtype
    torch.testing.assert_close(blurred, torch.full((1, 2, 6, 8), 0.3, dtype=dtype))
