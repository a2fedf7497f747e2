"""VINet's classifier reads images through given maps: its own, all ones, another image's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import DatasetInfo, Options, Session, Split, UserError
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case
from xbench_metrics.retraining.leaks import MaskSwapAgreement
from xbench_vinet.destruction import FixedNoise, destroy
from xbench_vinet.explainer import VINet
from xbench_vinet.options import VINetOptions

SIZE = 32
INFO = DatasetInfo("noise", ("zero", "one"), 1, (SIZE, SIZE))
SMALL = {"importance": "unet", "encoder": "tu-test_resnet", "width": 0.25, "classifier": "test_resnet", "epochs": 1}


def noise(count: int, name: str) -> Split:
    images = rng(0, name).random((count, 1, SIZE, SIZE), dtype=np.float32)
    ids = [f"{name}-{index}" for index in range(count)]
    return Split.from_arrays(images, np.arange(count) % 2, ids, ids)


def explainer_of(folder: Path, seed: int = 0, model: nn.Module | None = None, **options: Any) -> VINet:
    folder.mkdir(parents=True, exist_ok=True)
    explainer = VINet(VINetOptions(**{**SMALL, "train_batch": 8, **options}))
    explainer.fit(model, noise(16, "train"), noise(8, "validation"), INFO, Session(folder, seed=seed))
    explainer.restore(folder, model, INFO, "cpu")
    return explainer


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> VINet:
    return explainer_of(tmp_path_factory.mktemp("vinet"))


@pytest.fixture
def images() -> torch.Tensor:
    return noise(6, "test").batch(range(6)).images


def maps_of(explainer: VINet, images: torch.Tensor) -> torch.Tensor:
    return explainer.attribute(None, images, torch.zeros(len(images), dtype=torch.int64))


def test_its_own_maps_give_the_logits_of_its_own_classifier(explainer: VINet, images: torch.Tensor) -> None:
    assert explainer.reads_through_maps
    logits = explainer.masked_logits(images, maps_of(explainer, images))
    with torch.no_grad():
        assert torch.equal(logits, explainer.classifier()(images))


def test_they_do_with_several_noise_draws_and_one_scale(tmp_path: Path, images: torch.Tensor) -> None:
    explainer = explainer_of(tmp_path, noise_draws=3, multi_scale=False)
    with torch.no_grad():
        assert torch.equal(explainer.masked_logits(images, maps_of(explainer, images)), explainer.classifier()(images))


def test_a_map_of_ones_destroys_nothing(explainer: VINet, images: torch.Tensor) -> None:
    inner = explainer.classifier().network.classifier
    with torch.no_grad():
        whole = inner(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(explainer.masked_logits(images, torch.ones(6, SIZE, SIZE)), whole)


def test_the_given_map_decides_what_is_destroyed(tmp_path: Path, images: torch.Tensor) -> None:
    explainer = explainer_of(tmp_path, seed=4, multi_scale=False)
    maps = torch.rand(6, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    damaged = destroy(images, maps[:, None], FixedNoise(4)(images, "input"))
    with torch.no_grad():
        expected = explainer.classifier().network.classifier(damaged.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(explainer.masked_logits(images, maps), expected)


def test_nothing_of_the_image_passes_a_map_of_nothing(tmp_path: Path) -> None:
    explainer = explainer_of(tmp_path, multi_scale=False)
    # The range of the values does pass (equation 3): the same pixels in another order make the same noise.
    image = noise(1, "test").batch([0]).images
    order = torch.randperm(SIZE * SIZE, generator=torch.Generator().manual_seed(0))
    shuffled = image.flatten(2)[..., order].view_as(image)
    nothing = torch.zeros(1, SIZE, SIZE)
    assert torch.equal(explainer.masked_logits(image, nothing), explainer.masked_logits(shuffled, nothing))
    assert not torch.equal(explainer.masked_logits(image, nothing + 1), explainer.masked_logits(shuffled, nothing + 1))


def test_each_sample_is_read_through_its_own_map(explainer: VINet, images: torch.Tensor) -> None:
    maps = maps_of(explainer, images).flip(0)
    together = explainer.masked_logits(images, maps)
    alone = torch.cat([explainer.masked_logits(images[i : i + 1], maps[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together, explainer.masked_logits(images, maps.flip(0)))


def test_no_gradient_and_no_hook_is_left(explainer: VINet, images: torch.Tensor) -> None:
    assert not explainer.masked_logits(images, torch.ones(6, SIZE, SIZE)).requires_grad
    parts = explainer.classifier().modules()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)


def test_untrained_it_says_so(images: torch.Tensor) -> None:
    with pytest.raises(UserError, match="not trained"):
        VINet(VINetOptions()).masked_logits(images, torch.ones(6, SIZE, SIZE))


def test_its_masks_can_be_swapped(explainer: VINet, tmp_path: Path) -> None:
    split = noise(12, "test")
    maps = maps_of(explainer, split.batch(range(12)).images).numpy()
    case = fake_case(INFO, split, explainer.classifier(), maps, Session(tmp_path, batch_size=5), explanation=explainer)
    seen = MaskSwapAgreement(Options()).observe(case)
    assert np.array_equal(seen["right_own"], case.logits.argmax(1) == split.labels)
    assert np.array_equal(seen["follows_owner"], 1 - seen["follows_image"])  # two classes
