"""VisualBackProp: the paper's steps written out, for chains, poolings and residual networks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import xbench_baselines
from xbench import Options
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork
from xbench_baselines.cams.visual_backprop import VisualBackProp


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def pooled(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(2).mean(2)


def network(channels: int = 1, outputs: int = 3, relu: str = "module", seed: int = 0, **options: Any) -> ConvNetwork:
    torch.manual_seed(seed)
    return ConvNetwork(channels, outputs, relu=relu, **options).eval()


def test_visualbackprop_of_a_chain_follows_each_convolution(explain: Callable[..., torch.Tensor]) -> None:
    """Against the paper's steps written out: odd sizes, so that strides leave rows over."""
    model, images = network(), noise(3, 1, 17, 22)
    averages, values = [], images
    for convolution in model.convolutions:
        values = convolution(values).relu()
        averages.append(values.detach().mean(1, keepdim=True))
    mask = averages[2]
    steps = ((averages[1], 2, (9, 11)), (averages[0], 2, (17, 22)), (None, 1, (17, 22)))
    for below, stride, size in steps:
        grown = torch.autograd.functional.vjp(  # the transpose of the convolution, by autograd
            lambda values, stride=stride: F.conv2d(values, torch.ones(1, 1, 3, 3), stride=stride, padding=1),
            torch.zeros(3, 1, *size),
            mask,
        )[1]
        mask = grown if below is None else grown * below
    least, largest = mask.amin((1, 2, 3), keepdim=True), mask.amax((1, 2, 3), keepdim=True)
    maps = explain(VisualBackProp(Options()), model, images, [0, 1, 2])
    torch.testing.assert_close(maps, ((mask - least) / (largest - least))[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 5, "stride": 3, "padding": 1},
        {"kernel_size": (3, 2), "stride": (1, 2), "dilation": (2, 1)},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
    ],
)
def test_visualbackprop_knows_every_geometry_of_a_convolution(
    explain: Callable[..., torch.Tensor], chain: Callable[..., nn.Module], geometry: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = chain([nn.Conv2d(1, 4, **geometry), nn.ReLU()], pooled, nn.Linear(4, 3)).eval()
    ones, images = nn.Conv2d(1, 1, **geometry, bias=False), noise(2, 1, 17, 16)
    nn.init.ones_(ones.weight)
    mean = model.features(images).mean(1, keepdim=True).detach()
    mask = torch.autograd.functional.vjp(ones, torch.zeros(2, 1, 17, 16), mean)[1][:, 0]
    expected = (mask - mask.amin((1, 2), keepdim=True)) / (mask.amax((1, 2)) - mask.amin((1, 2)))[:, None, None]
    torch.testing.assert_close(explain(VisualBackProp(Options()), model, images, [0, 1]), expected)


def test_visualbackprop_undoes_poolings_before_and_after_the_activation(
    explain: Callable[..., torch.Tensor], chain: Callable[..., nn.Module]
) -> None:
    torch.manual_seed(0)
    for order in ((nn.ReLU(), nn.MaxPool2d(2)), (nn.MaxPool2d(2), nn.ReLU())):
        model = chain([nn.Conv2d(1, 4, 3), *order, nn.Conv2d(4, 6, 3), nn.ReLU()], pooled, nn.Linear(6, 3)).eval()
        images = noise(2, 1, 14, 16)
        with torch.no_grad():
            first = model.features[:3](images) if isinstance(order[0], nn.MaxPool2d) else model.features[:2](images)
            last = model.features(images).mean(1, keepdim=True)
        ones = torch.ones(1, 1, 3, 3)
        mask = F.interpolate(F.conv_transpose2d(last, ones), first.shape[2:]) * first.mean(1, keepdim=True)
        mask = F.conv_transpose2d(F.interpolate(mask, (12, 14)), ones)[:, 0]
        expected = (mask - mask.amin((1, 2), keepdim=True)) / (mask.amax((1, 2)) - mask.amin((1, 2)))[:, None, None]
        torch.testing.assert_close(explain(VisualBackProp(Options()), model, images, [0, 0]), expected)


def test_visualbackprop_of_a_residual_network_takes_one_map_a_resolution(explain: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=2, in_chans=1).eval()
    images = noise(2, 1, 64, 64)
    with torch.no_grad():
        features = model.forward_intermediates(images, intermediates_only=True)
        averages = [values.relu().mean(1, keepdim=True) for values in features]
        mask = averages[-1]
        for below in averages[-2::-1]:
            mask = F.conv_transpose2d(F.interpolate(mask, below.shape[2:]), torch.ones(1, 1, 3, 3), padding=1) * below
        mask = F.conv_transpose2d(F.interpolate(mask, (64, 64)), torch.ones(1, 1, 3, 3), padding=1)[:, 0]
    expected = (mask - mask.amin((1, 2), keepdim=True)) / (mask.amax((1, 2)) - mask.amin((1, 2)))[:, None, None]
    torch.testing.assert_close(
        explain(VisualBackProp(Options()), model, images, [0, 1]), expected, rtol=1e-4, atol=1e-5
    )


def test_visualbackprop_knows_no_class(explain: Callable[..., torch.Tensor]) -> None:
    images = noise(2, 1, 16, 16)
    maps = [explain(VisualBackProp(Options()), network(), images, [target] * 2) for target in range(3)]
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])
    assert maps[0].amin() == 0
    assert (maps[0].amax((1, 2)) == 1).all()


def test_visualbackprop_of_nothing_is_zero(explain: Callable[..., torch.Tensor]) -> None:
    model = network()
    for convolution in model.convolutions:
        convolution.bias.data.zero_()
    assert not explain(VisualBackProp(Options()), model, torch.zeros(2, 1, 16, 16), [0, 1]).any()


@parametrize_with_checks(spec for spec in xbench_baselines.xbench_explainers() if spec.name == "visualbackprop")
def test_conformance(check: Callable[..., None]) -> None:
    check()
