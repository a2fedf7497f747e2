"""Occlusion against closed forms and captum; what every explainer that changes the image costs and promises."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import nn

import xbench_baselines
from xbench import Batch, DatasetInfo, ExplainerSpec
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import LinearNetwork
from xbench_baselines.perturbation.occlusion import Occlusion
from xbench_baselines.perturbation.options import (
    FeatureAblationOptions,
    KernelShapOptions,
    LimeOptions,
    OcclusionOptions,
    RiseOptions,
)
from xbench_baselines.perturbation.rise import Rise
from xbench_baselines.perturbation.surrogates import FeatureAblation, KernelShap, Lime


def noise(*shape: int) -> np.ndarray:
    return rng(0, "images").random(shape, dtype=np.float32)


def tiles(spatial: tuple[int, ...], side: int) -> np.ndarray:
    """Square superpixels: int (*spatial)."""
    rows, columns = (np.arange(size) // side for size in spatial)
    return rows[:, None] * (columns[-1] + 1) + columns


def close(made: torch.Tensor, expected: np.ndarray | torch.Tensor, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    scale = max(float(expected.abs().max()), 1e-30)
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=tolerance * scale)


# --- occlusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "outputs", "targets"), [(1, 1, [0, 1, 1]), (3, 3, [2, 0, 1])])
def test_occlusion_of_single_pixels_is_input_times_weight(
    explain: Callable[..., torch.Tensor],
    weights_of: Callable[..., torch.Tensor],
    channels: int,
    outputs: int,
    targets: list[int],
) -> None:
    model, images = LinearNetwork(channels, (7, 6), outputs), noise(3, channels, 7, 6)
    maps = explain(Occlusion(OcclusionOptions(window=1)), model, images, targets)
    close(maps, (weights_of(model, targets, (channels, 7, 6)) * torch.from_numpy(images)).sum(1), 3e-5)


def test_occlusion_by_disjoint_windows_gives_every_pixel_the_sum_of_its_block(
    explain: Callable[..., torch.Tensor], weights_of: Callable[..., torch.Tensor]
) -> None:
    model, images = LinearNetwork(2, (8, 12), 2), noise(2, 2, 8, 12)
    maps = explain(Occlusion(OcclusionOptions(window=4, stride=4)), model, images, [1, 0])
    products = (weights_of(model, [1, 0], (2, 8, 12)) * torch.from_numpy(images)).sum(1)
    blocks = products.view(2, 2, 4, 3, 4).sum((2, 4))
    close(maps, blocks.repeat_interleave(4, 1).repeat_interleave(4, 2), 3e-5)


@pytest.mark.parametrize(
    ("spatial", "window", "stride"), [((16, 16), 4, 2), ((17, 13), 5, 3), ((9, 14), 4, 4), ((6, 7, 8), 3, 2)]
)
@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_occlusion_agrees_with_captum(
    explain: Callable[..., torch.Tensor],
    positional_network: Callable[..., nn.Module],
    spatial: tuple[int, ...],
    window: int,
    stride: int,
    fill: str,
) -> None:
    torch.manual_seed(0)
    model = positional_network(3, 3) if len(spatial) == 2 else LinearNetwork(3, spatial, 3)
    images, targets = torch.from_numpy(noise(3, 3, *spatial)), torch.tensor([2, 0, 1])
    baselines = images.flatten(2).mean(2).view(3, 3, *(1,) * len(spatial)).expand_as(images) if fill == "mean" else 0
    expected = CaptumOcclusion(model).attribute(
        images,
        sliding_window_shapes=(3, *(window,) * len(spatial)),
        strides=(3, *(stride,) * len(spatial)),
        baselines=baselines,
        target=targets,
    )
    options = OcclusionOptions(window=window, stride=stride, fill=fill)
    close(explain(Occlusion(options), model, images, targets), expected[:, 0].detach())


def test_occlusion_reaches_every_pixel(explain: Callable[..., torch.Tensor]) -> None:
    class Corner(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, 0, -1, -1:]

    images = np.ones((1, 1, 11, 10), dtype=np.float32)
    (drops,) = explain(Occlusion(OcclusionOptions(window=4, stride=3)), Corner(), images, [1])
    assert drops[-1, -1] == 1  # all its windows hide it
    assert drops[-2, -1] == 0.5  # one of its two windows does
    assert not drops[:-2].any()


def test_occlusion_has_a_window_for_the_size_of_the_image() -> None:
    explainer = Occlusion(OcclusionOptions())
    assert explainer._window_and_stride((64, 64)) == (8, 4)
    assert explainer._window_and_stride((300, 224)) == (15, 7)
    assert explainer._window_and_stride((1, 1)) == (1, 1)


def test_occlusion_refuses_windows_that_cannot_be_laid() -> None:
    info = DatasetInfo("toy", ("a", "b"), 1, (20, 16))
    assert Occlusion(OcclusionOptions(window=16)).supports(nn.Identity(), info) is None
    assert "17 pixels does not fit" in Occlusion(OcclusionOptions(window=17)).supports(nn.Identity(), info)
    assert "stride of 5" in Occlusion(OcclusionOptions(window=4, stride=5)).supports(nn.Identity(), info)


# --- cost and conformance -------------------------------------------------------------------------------------------

PASSES = [0]


class Counted(nn.Module):
    """A linear model that counts the images it sees; its copies count together."""

    def __init__(self) -> None:
        super().__init__()
        self.network = LinearNetwork(1, (16, 16), 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        PASSES[0] += len(images)
        return self.network(images)


@pytest.mark.parametrize(
    ("explainer", "expected"),
    [
        (Occlusion(OcclusionOptions(window=4, stride=2)), 2 * (7 * 7 + 1)),
        (FeatureAblation(FeatureAblationOptions()), (16 + 1) + (4 + 1)),
        (Lime(LimeOptions(samples=70)), 2 * 70),
        (KernelShap(KernelShapOptions(samples=70)), 2 * 2 + 70 + (2**4 - 2)),
        (Rise(RiseOptions(masks=70)), 2 * 70),
    ],
    ids=lambda value: type(value).__name__,
)
def test_passes_are_no_more_than_needed(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    explainer: Occlusion | FeatureAblation | Lime | KernelShap | Rise,
    expected: int,
) -> None:
    batch = batch_of(noise(2, 1, 16, 16), feature=np.stack([tiles((16, 16), 4), tiles((16, 16), 8)]))
    PASSES[0] = 0
    explain(explainer, Counted(), batch, [0, 1])
    probing = 2 * len(batch)  # the model and a copy of it are compared on the batch
    assert expected <= PASSES[0] <= expected + probing


def specs(*names: str) -> list[ExplainerSpec]:
    return [spec for spec in xbench_baselines.xbench_explainers() if spec.name in names]


@parametrize_with_checks(specs("occlusion", "feature-ablation"))
def test_conformance(check: Callable[..., None]) -> None:
    check()


def test_conformance_reaches_every_explainer() -> None:
    assert len(specs("occlusion", "feature-ablation", "lime", "kernelshap", "rise")) == 5
