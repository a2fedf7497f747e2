"""Superpixels: numbered without gaps, those of scikit-image, shared by the explainers that ask for them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import slic
from torch import nn

from xbench import DatasetInfo
from xbench.runtime.seeding import rng
from xbench_baselines.perturbation.options import FeatureAblationOptions, KernelShapOptions, LimeOptions
from xbench_baselines.perturbation.superpixels import Superpixels
from xbench_baselines.perturbation.surrogates import FeatureAblation, KernelShap, Lime


def noise(*shape: int) -> np.ndarray:
    return rng(0, "images").random(shape, dtype=np.float32)


def smooth(*shape: int) -> np.ndarray:
    """Images with structure to cut up."""
    return np.stack([[ndimage.gaussian_filter(channel, 2) * 4 for channel in image] for image in noise(*shape)])


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 33, 27), (4, 20, 31), (1, 4, 4), (2, 12, 14, 10)])
@pytest.mark.parametrize("kind", ["constant", "noise", "smooth"])
def test_superpixels_are_numbered_without_gaps(shape: tuple[int, ...], kind: str) -> None:
    image = {"constant": np.full(shape, 0.5, np.float32), "noise": noise(*shape), "smooth": smooth(1, *shape)[0]}[kind]
    labels = Superpixels().computed(image)
    assert labels.dtype == np.int32
    assert labels.shape == shape[1:]
    present = np.unique(labels)
    np.testing.assert_array_equal(present, np.arange(len(present)))
    assert min(50, labels.size) / 4 <= len(present) <= 2 * 50


def test_superpixels_are_those_of_scikit_image() -> None:
    image = smooth(1, 1, 48, 40)[0]
    expected = slic(image[0], n_segments=50, compactness=0.1, channel_axis=None, start_label=0)
    assert expected.max() > 12
    np.testing.assert_array_equal(Superpixels().compute(image), expected)
    for label in range(expected.max() + 1):
        assert ndimage.label(expected == label)[1] == 1


def test_superpixels_of_noise_do_not_melt_into_one() -> None:
    image = noise(1, 64, 64)
    assert slic(image[0], n_segments=50, compactness=0.1, channel_axis=None).max() == 1
    assert Superpixels().compute(image).max() + 1 >= 13


def test_superpixels_are_the_same_from_every_thread() -> None:
    images = list(smooth(8, 1, 40, 40))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(Superpixels().compute, images))
    for image, labels in zip(images, together, strict=True):
        np.testing.assert_array_equal(labels, Superpixels().compute(image))


def test_superpixels_are_shared() -> None:
    options = {"n_segments": 30, "compactness": 0.2}
    made = [
        FeatureAblation(FeatureAblationOptions(**options, fill="zero")).feature,
        Lime(LimeOptions(**options, samples=10)).feature,
        KernelShap(KernelShapOptions(**options)).feature,
    ]
    assert len({(feature.name, str(feature.parameters), feature.dtype) for feature in made}) == 1
    assert Lime(LimeOptions()).feature.parameters != made[0].parameters


@pytest.mark.parametrize("explainer", [FeatureAblation(FeatureAblationOptions()), Lime(LimeOptions())])
def test_superpixels_need_two_or_three_axes(explainer: FeatureAblation | Lime) -> None:
    assert explainer.supports(nn.Identity(), DatasetInfo("toy", ("a", "b"), 1, (20, 16, 18))) is None
    assert "2 or 3 axes, not 1" in explainer.supports(nn.Identity(), DatasetInfo("toy", ("a", "b"), 1, (20,)))
