"""The rules of DeepLIFT one by one, by hand, and the gate before them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import DatasetInfo
from xbench_baselines.deeplift.explainers import DeepLift, DeepShap, against_background, against_baseline
from xbench_baselines.deeplift.options import DeepLiftOptions, DeepShapOptions


def info_of(images: torch.Tensor) -> DatasetInfo:
    return DatasetInfo("toy", ("a", "b"), images.shape[1], tuple(images.shape[2:]))


class Pointwise(nn.Module):
    """Logit = `function` of the image, summed."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(images).flatten(1).sum(1, keepdim=True)


def one_row(function: Callable[[torch.Tensor], torch.Tensor], image: list[float], baseline: list[float]) -> list[float]:
    """Attributions (W,) of a one-channel image of one row."""
    given, start = (torch.tensor(values, dtype=torch.float64)[None, None, None] for values in (image, baseline))
    return against_baseline(Pointwise(function), given, torch.tensor([1]), start)[0][0, 0].tolist()


def test_relu_by_hand() -> None:
    """Both active: 1. Both inactive: 0. One active: the share. At a tie, its derivative: 1 above zero."""
    relu = one_row(lambda x: 3 * (x - 1).relu(), [4.0, 0.5, 3.0, 0.0], [2.0, 0.0, 0.0, 3.0])
    assert relu == pytest.approx([6.0, 0.0, 6.0, -6.0])
    assert one_row(lambda x: (x.sum(-1) + 1).relu(), [2.0, 0.0], [0.0, 2.0]) == pytest.approx([2.0, -2.0])
    assert one_row(lambda x: (x.sum(-1) - 5).relu(), [2.0, 0.0], [0.0, 2.0]) == pytest.approx([0.0, 0.0])


def test_sigmoid_by_hand() -> None:
    """The secant; at a tie, the tangent."""
    sigmoid = one_row(torch.sigmoid, [2.0, 1.0], [-1.0, 1.0])
    assert sigmoid == pytest.approx([1 / (1 + np.exp(-2)) - 1 / (1 + np.e), 0.0])
    slope = np.exp(-3) / (1 + np.exp(-3)) ** 2
    tie = one_row(lambda x: (x.sum(-1) + 1).sigmoid(), [2.0, 0.0], [0.0, 2.0])
    assert tie == pytest.approx([2 * slope, -2 * slope])


def test_max_pool_by_hand() -> None:
    """The difference of the maxima goes to where the larger one stands, from every window that it wins."""
    pool = nn.MaxPool2d((1, 2), 1)
    assert one_row(pool, [1.0, 3.0], [2.0, 0.0]) == pytest.approx([0.0, 1.0])
    assert one_row(pool, [1.0, 5.0, 2.0], [0.0, 1.0, 4.0]) == pytest.approx([0.0, 4.0 + 1.0, 0.0])
    assert one_row(pool, [1.0, 2.0], [1.0, 4.0]) == pytest.approx([0.0, -2.0])
    tie = one_row(lambda x: nn.MaxPool2d(1)(x.sum(-1, keepdim=True)), [2.0, 0.0], [0.0, 2.0])
    assert tie == pytest.approx([2.0, -2.0])


def test_a_kink_between_near_neighbours() -> None:
    near = one_row(lambda x: nn.functional.relu6(x - 6), [6 - 3e-7], [6 + 5e-7])
    assert near == pytest.approx([-5e-7], rel=1e-6)


def test_product_by_hand() -> None:
    product = one_row(lambda x: x[..., :1] * x[..., 1:], [3.0, 5.0], [1.0, 2.0])
    assert product == pytest.approx([2 * (5 + 2) / 2, 3 * (3 + 1) / 2])
    assert one_row(lambda x: x * x, [3.0], [1.0]) == pytest.approx([8.0])


# --- the gate -------------------------------------------------------------------------------------------------------


class Folded(nn.Module):
    """Halves of the image as rows of their own, next to each other or all upper ones first."""

    def __init__(self, images_first: bool) -> None:
        super().__init__()
        self.features, self.images_first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), images_first

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        halves = torch.stack(images.chunk(2, 2), 1 if self.images_first else 0)
        features = self.features(halves.flatten(0, 1)).mean((2, 3)).view(*halves.shape[:2], 4)
        return features.mean(1 if self.images_first else 0)[:, :2]


def test_parts_of_an_image_may_be_rows_but_must_stay_together() -> None:
    explainer, images = DeepLift(DeepLiftOptions()), torch.rand(3, 3, 12, 12)
    assert explainer.supports(Folded(True), info_of(images)) is None
    for attributed in (against_baseline, against_background):
        maps, errors = attributed(Folded(True), images, torch.tensor([0, 1, 0]), torch.zeros(1, 3, 12, 12))
        assert errors.abs().max() < 1e-4 * maps.abs().sum()
    reason = explainer.supports(Folded(False), info_of(images))
    assert "not be complete" in reason


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: nn.functional.layer_norm(x, x.shape[1:]), "layer normalisation"),
        (lambda x: x.flatten(1).softmax(1), "a softmax"),
        (lambda x: x @ x, "a product of two activations"),
        (lambda x: x / (1 + x.mean(1, keepdim=True)), "a product of two activations"),
        (lambda x: x.exp(), "Exp"),
        (lambda x: x.cos().relu(), "Cos"),
    ],
)
def test_refuses(function: Callable[..., Any], reason: str) -> None:
    refused = DeepShap(DeepShapOptions()).supports(Pointwise(function), info_of(torch.rand(1, 3, 8, 8)))
    assert f"no rule for {reason}" in refused


def test_a_constant_model_has_no_contributions() -> None:
    model, images = Pointwise(lambda x: torch.ones(len(x), 1)), torch.rand(2, 1, 6, 6)
    assert DeepLift(DeepLiftOptions()).supports(model, info_of(images)) is None
    for attributed in (against_baseline, against_background):
        maps, errors = attributed(model, images, torch.tensor([0, 1]), torch.rand(2, 1, 6, 6))
        assert not maps.any()
        assert not errors.any()
