"""RISE: its masks, its expectation on linear models, what a constant model gives."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xbench_baselines
from xbench import ExplainerSpec
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import LinearNetwork
from xbench_baselines.perturbation.options import RiseOptions
from xbench_baselines.perturbation.rise import RandomMasks, Rise

CPU = torch.device("cpu")


def noise(*shape: int) -> np.ndarray:
    return rng(0, "images").random(shape, dtype=np.float32)


def close(made: torch.Tensor, expected: np.ndarray | torch.Tensor, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    scale = max(float(expected.abs().max()), 1e-30)
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("spatial", "cells"), [((20, 20), 7), ((33, 18), 5), ((6, 5), 7), ((9, 8, 10), 3)])
def test_rise_masks_are_enlarged_grids_cut_out_at_a_shift(spatial: tuple[int, ...], cells: int) -> None:
    masks = RandomMasks(spatial, cells, 0.4, CPU)
    grids, shifts = masks.draws(5, 25)
    sides = [math.ceil(size / cells) for size in spatial]
    mode = "bilinear" if len(spatial) == 2 else "trilinear"
    enlarged = F.interpolate(
        grids[:, None], [(cells + 1) * side for side in sides], mode=mode, align_corners=False
    ).squeeze(1)
    for mask, large, shift in zip(masks(5, 25), enlarged, shifts, strict=True):
        assert all(0 <= step < side for step, side in zip(shift, sides, strict=True))
        cut = tuple(slice(step, step + size) for step, size in zip(shift, spatial, strict=True))
        close(mask, large[cut], 1e-6)


def test_rise_masks_are_random_and_always_the_same() -> None:
    masks = RandomMasks((14, 14), 7, 0.3, CPU)
    grids, shifts = masks.draws(0, 4000)
    assert grids.mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / grids.numel()))
    assert np.bincount(shifts.flatten()) / shifts.numel() == pytest.approx([0.5, 0.5], abs=0.025)
    between = np.corrcoef(grids[:, 0, 0], grids[:, 0, 1])[0, 1]
    assert abs(between) < 4 / math.sqrt(len(grids))
    assert torch.equal(masks(100, 164), RandomMasks((14, 14), 7, 0.3, CPU)(90, 170)[10:74])


def mean_kernel(size: int, cells: int) -> torch.Tensor:
    """Mean over the shifts of sum over cells of B(p, cell) B(q, cell), B the linear interpolation: (size, size)."""
    side = math.ceil(size / cells)
    units = F.interpolate(torch.eye(cells)[:, None], (cells + 1) * side, mode="linear", align_corners=False)[:, 0]
    cuts = torch.stack([units[:, shift : shift + size] for shift in range(side)]).double()
    return torch.einsum("scp,scq->pq", cuts, cuts) / side


@pytest.mark.parametrize(("outputs", "targets"), [(1, [0, 1]), (3, [2, 1])])
@pytest.mark.parametrize("centred", [True, False])
def test_rise_of_a_linear_model_nears_its_expectation(
    explain: Callable[..., torch.Tensor],
    weights_of: Callable[..., torch.Tensor],
    outputs: int,
    targets: list[int],
    centred: bool,
) -> None:
    torch.manual_seed(0)
    model, images = LinearNetwork(2, (12, 10), outputs), noise(2, 2, 12, 10)
    options = RiseOptions(masks=20000, cells=3, probability=0.4, centred=centred)
    maps = explain(Rise(options), model, images, targets)
    products = (weights_of(model, targets, (2, 12, 10)) * torch.from_numpy(images)).sum(1).double()
    # Cov(m(p), m(q)) = probability (1 - probability) sum over cells B(p) B(q); axes are independent.
    expected = 0.6 * torch.einsum("pq,nqr,rs->nps", mean_kernel(12, 3), products, mean_kernel(10, 3))
    if not centred:
        bias = model.linear.bias.detach()
        bias = (torch.cat([-bias, bias]) if outputs == 1 else bias)[targets]
        expected += (0.4 * products.sum((1, 2)) + bias)[:, None, None]
    close(maps, expected, 0.03)


def test_rise_of_a_constant_model_is_zero(explain: Callable[..., torch.Tensor]) -> None:
    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 1), 5.0)

    maps = explain(Rise(RiseOptions(masks=100)), Constant(), noise(2, 1, 16, 16), [0, 1])
    assert maps.abs().max() < 1e-12
    uneven = explain(Rise(RiseOptions(masks=100, centred=False)), Constant(), noise(2, 1, 16, 16), [1, 1])
    assert uneven.std() > 0.1  # which is why the mean is subtracted


def test_rise_of_one_logit_has_a_sign_per_class(
    explain: Callable[..., torch.Tensor], positional_network: Callable[..., nn.Module]
) -> None:
    image = noise(1, 1, 16, 16).repeat(2, 0)
    first, second = explain(Rise(RiseOptions(masks=100)), positional_network(1, 1), image, [0, 1])
    close(first, -second)


def specs(*names: str) -> list[ExplainerSpec]:
    return [spec for spec in xbench_baselines.xbench_explainers() if spec.name in names]


@parametrize_with_checks(specs("rise"), masks=120)
def test_conformance_of_rise(check: Callable[..., None]) -> None:
    check()
