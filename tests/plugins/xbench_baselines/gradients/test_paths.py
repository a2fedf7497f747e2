"""Integrated gradients: closed forms, completeness, captum, and the mean over a black and a white baseline."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import nn

import xbench_baselines
from xbench.compute.passes import gradient_rows
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.gradients.options import IntegratedGradientsBWOptions, IntegratedGradientsOptions
from xbench_baselines.gradients.paths import IntegratedGradients, IntegratedGradientsBW

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
RULES = ("right", "gauss-legendre")


def noise(*shape: int, name: str = "images") -> torch.Tensor:
    return torch.from_numpy(rng(0, name).random(shape, dtype=np.float32))


def network(relu: str = "module", channels: int = 3, outputs: int = 3) -> ConvNetwork:
    torch.manual_seed(0)
    return ConvNetwork(channels, outputs, relu=relu, batch_norm=True).eval()


def scores(model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).gather(1, torch.as_tensor(targets)[:, None])[:, 0]


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the largest value, which must not be zero."""
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def integrated(**options: Any) -> IntegratedGradients:
    return IntegratedGradients(IntegratedGradientsOptions(**options))


def black_white(**options: Any) -> IntegratedGradientsBW:
    return IntegratedGradientsBW(IntegratedGradientsBWOptions(**options))


class Squares(nn.Module):
    """One logit, the sum of x^2."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.square().flatten(1).sum(1, keepdim=True)


def smooth_network() -> nn.Sequential:
    """Two classes of images of 9 x 8 pixels, without kinks, so that quadratures converge fast."""
    torch.manual_seed(0)
    features = nn.Conv2d(1, 6, 3), nn.Softplus(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(6 * 5 * 4, 2))


# --- integrated gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("baseline", ["black", "white", "mean"])
def test_integrated_gradients_of_a_linear_model_are_exact(
    explain: Callable[..., torch.Tensor], rule: str, steps: int, baseline: str
) -> None:
    model, images = LinearNetwork(2, (5, 4), outputs=3), noise(3, 2, 5, 4)
    weight = model.linear.weight.detach()[[2, 0, 1]].view(3, 2, 5, 4)
    reference = {"black": 0.0, "white": 1.0, "mean": images.mean((2, 3), keepdim=True)}[baseline]
    maps = explain(integrated(rule=rule, steps=steps, baseline=baseline), model, images, [2, 0, 1])
    close(maps, (weight * (images - reference)).sum(1), 1e-6)


def test_quadratures_of_a_sum_of_squares(explain: Callable[..., torch.Tensor]) -> None:
    """Black baseline: the right Riemann sum gives (1 + 1/m) x^2, Gauss-Legendre x^2 exactly."""
    images = noise(2, 1, 6, 5)
    for steps in (1, 10, 25):
        close(explain(integrated(steps=steps), Squares(), images, [1, 1]), (1 + 1 / steps) * images[:, 0] ** 2, 1e-6)
        found = explain(integrated(steps=steps, rule="gauss-legendre"), Squares(), images, [1, 1])
        close(found, images[:, 0] ** 2, 1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("baseline", "value"), [("black", 0.0), ("white", 1.0), ("mean", 0.3)])
def test_an_image_that_is_its_baseline_has_no_attribution(
    explain: Callable[..., torch.Tensor], rule: str, baseline: str, value: float
) -> None:
    maps = explain(integrated(rule=rule, baseline=baseline), network(), torch.full((2, 3, 9, 9), value), [0, 1])
    assert maps.abs().max() < 1e-6


def test_integrated_gradients_are_complete(explain: Callable[..., torch.Tensor]) -> None:
    images, targets = noise(3, 1, 9, 8), [0, 1, 1]
    model = smooth_network()
    expected = scores(model, images, targets) - scores(model, torch.zeros_like(images), targets)
    close(explain(integrated(rule="gauss-legendre"), model, images, targets).sum((1, 2)), expected, 1e-5)
    coarse = explain(integrated(), model, images, targets).sum((1, 2)) - expected
    fine = explain(integrated(steps=250), model, images, targets).sum((1, 2)) - expected
    assert fine.abs().max() < 0.15 * coarse.abs().max()  # of first order
    white = scores(model, images, targets) - scores(model, torch.ones_like(images), targets)
    close(explain(integrated(baseline="white", steps=400), model, images, targets).sum((1, 2)), white, 5e-3)


@pytest.mark.parametrize(("rule", "theirs"), [("right", "riemann_right"), ("gauss-legendre", "gausslegendre")])
@pytest.mark.parametrize(("channels", "outputs"), [(1, 2), (3, 3)])
def test_integrated_gradients_agree_with_captum(
    explain: Callable[..., torch.Tensor], rule: str, theirs: str, channels: int, outputs: int
) -> None:
    model, images = network("functional", channels, outputs), noise(5, channels, 12, 10)
    targets = torch.arange(5) % outputs
    reference = CaptumIntegratedGradients(model)
    for baseline, value in (("black", 0.0), ("white", 1.0)):
        start = torch.full_like(images, value)
        expected = reference.attribute(images, baselines=start, target=targets, n_steps=25, method=theirs).sum(1)
        close(explain(integrated(rule=rule, baseline=baseline), model, images, targets), expected.float())


def test_integrated_gradients_do_not_depend_on_how_the_network_is_written(explain: Callable[..., torch.Tensor]) -> None:
    images, targets = noise(3, 3, 12, 10), [0, 1, 2]
    module = explain(integrated(), network("module"), images, targets)
    for relu in ("functional", "inplace", "reused"):
        close(explain(integrated(), network(relu), images, targets), module, 1e-6)


# --- black and white ------------------------------------------------------------------------------------------------


def test_black_and_white_is_the_mean_of_two(explain: Callable[..., torch.Tensor]) -> None:
    model, images, targets = network(), noise(3, 3, 12, 10), [0, 1, 2]
    for rule in RULES:
        both = [
            explain(integrated(rule=rule, baseline=colour), model, images, targets) for colour in ("black", "white")
        ]
        close(explain(black_white(rule=rule), model, images, targets), (both[0] + both[1]) / 2)


def test_black_and_white_of_a_linear_model(explain: Callable[..., torch.Tensor]) -> None:
    model, images = LinearNetwork(2, (5, 4), outputs=3), noise(3, 2, 5, 4)
    weight = model.linear.weight.detach()[[2, 0, 1]].view(3, 2, 5, 4)
    close(explain(black_white(), model, images, [2, 0, 1]), (weight * (images - 0.5)).sum(1), 1e-6)
    ends = images.flatten(1).amin(1) + images.flatten(1).amax(1)
    own = explain(black_white(baselines="min-max"), model, images, [2, 0, 1])
    close(own, (weight * (images - ends.view(3, 1, 1, 1) / 2)).sum(1), 1e-6)


def test_black_and_white_is_complete(explain: Callable[..., torch.Tensor]) -> None:
    images, targets = noise(3, 1, 9, 8), [0, 1, 1]
    model = smooth_network()
    ends = [scores(model, torch.full_like(images, value), targets) for value in (0.0, 1.0)]
    expected = scores(model, images, targets) - (ends[0] + ends[1]) / 2
    close(explain(black_white(rule="gauss-legendre"), model, images, targets).sum((1, 2)), expected, 1e-5)


# --- passes ---------------------------------------------------------------------------------------------------------


def test_rows_of_a_pass_follow_the_largest_operation_not_the_batch() -> None:
    narrow, wide = (ConvNetwork(1, 2, width=width).eval() for width in (8, 256))
    images = noise(3, 1, 64, 64)
    assert gradient_rows(wide, images) == 2**23 // (256 * 64 * 64 * 4)
    assert gradient_rows(narrow, images) == gradient_rows(narrow, images[:1]) == 64
    heavy = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2000), nn.ReLU(), nn.Linear(2000, 2))
    assert gradient_rows(heavy, images) == 64  # weights are there once, however many rows


# --- the contract ---------------------------------------------------------------------------------------------------


@parametrize_with_checks([SPECS[name] for name in ("integrated-gradients", "integrated-gradients-bw")], steps=5)
def test_conformance(check: Callable[..., None]) -> None:
    check()
