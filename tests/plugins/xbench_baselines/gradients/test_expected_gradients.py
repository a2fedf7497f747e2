"""Expected gradients, GradientSHAP and their pool: closed forms, completeness, the draws."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import nn

import xbench_baselines
from xbench import DatasetInfo, Explainer, Session, Split
from xbench.runtime.seeding import rng, sample_seeds
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.background import Background
from xbench_baselines.gradients.options import (
    ExpectedGradientsOptions,
    GradientShapOptions,
    IntegratedGradientsBWOptions,
    IntegratedGradientsOptions,
)
from xbench_baselines.gradients.paths import (
    ExpectedGradients,
    GradientShap,
    IntegratedGradients,
    IntegratedGradientsBW,
    _draws,
)

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
INFO = DatasetInfo("toy", ("a", "b"), 1, (6, 5))


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


def with_pool(folder: Path, pool: torch.Tensor, kind: type[Explainer] = ExpectedGradients, **options: Any) -> Explainer:
    """An explainer fitted on a training split that is `pool`."""
    chosen = (GradientShapOptions if kind is GradientShap else ExpectedGradientsOptions)(**options)
    ids = [f"train-{index}" for index in range(len(pool))]
    split = Split.from_arrays(pool.numpy(), np.arange(len(pool)) % 2, ids, ids)
    kind(chosen).fit(nn.Identity(), split, split, INFO, Session(folder, batch_size=4))
    explainer = kind(chosen)
    explainer.restore(folder, nn.Identity(), INFO, "cpu")
    return explainer


class Squares(nn.Module):
    """One logit, the sum of x^2."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.square().flatten(1).sum(1, keepdim=True)


def smooth_network() -> nn.Sequential:
    """Two classes of images of 9 x 8 pixels, without kinks, so that quadratures converge fast."""
    torch.manual_seed(0)
    features = nn.Conv2d(1, 6, 3), nn.Softplus(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(6 * 5 * 4, 2))


# --- expected gradients and GradientSHAP ----------------------------------------------------------------------------


def test_expected_gradients_of_a_linear_model_with_every_reference_once(
    explain: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    """As many samples as the pool has images: each is drawn once, so that the mean is exact."""
    model, images, pool = LinearNetwork(2, (6, 5), outputs=3), noise(4, 2, 6, 5), noise(30, 2, 6, 5, name="pool")
    weight = model.linear.weight.detach()[[2, 0, 1, 1]].view(4, 2, 6, 5)
    expected = (weight * (images - pool.mean(0))).sum(1)
    for samples in (30, 90):
        explainer = with_pool(tmp_path, pool, samples=samples)
        close(explain(explainer, model, images, [2, 0, 1, 1]), expected, 1e-5)
    some = explain(with_pool(tmp_path, pool, samples=20), model, images, [2, 0, 1, 1])
    assert (some - expected).abs().max() > 1e-3 * expected.abs().max()


def test_references_are_drawn_without_replacement_while_possible() -> None:
    draws = _draws(torch.from_numpy(sample_seeds(0, ["a", "b"])), 25, 10)
    assert draws.shape == (2, 25)
    for row in draws:
        assert sorted(row[:10].tolist()) == sorted(row[10:20].tolist()) == list(range(10))
        assert len(set(row[20:].tolist())) == 5
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0, :10], draws[0, 10:20])


def test_expected_gradients_are_complete_in_expectation(explain: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    images, pool, targets = noise(3, 1, 9, 8), noise(40, 1, 9, 8, name="pool"), [0, 1, 1]
    model = smooth_network()
    chosen = torch.as_tensor(targets)
    reference = torch.stack([scores(model, pool, chosen[k].expand(40)).mean() for k in range(3)])
    expected = scores(model, images, targets) - reference
    sums = []
    for repeat in range(20):
        ids = [f"{repeat}-{k}" for k in range(3)]
        sums.append(explain(with_pool(tmp_path, pool), model, images, targets, ids).sum((1, 2)))
    mean, error = torch.stack(sums).mean(0), torch.stack(sums).std(0) / 20**0.5
    assert ((mean - expected).abs() < 5 * error).all()
    assert (error < 0.05 * expected.abs().max()).all()


def test_expected_gradients_of_a_sum_of_squares(explain: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    """A black pool: 2 a x^2 with a ~ U(0, 1), of mean x^2 and standard deviation x^2 / sqrt(3)."""
    images, samples = noise(5, 1, 6, 5), 3000
    explainer = with_pool(tmp_path, torch.zeros(3, 1, 6, 5), samples=samples)
    ratio = explain(explainer, Squares(), images, [1] * 5) / images[:, 0] ** 2
    assert ((ratio - 1).abs() < 5 / (3 * samples) ** 0.5).all()
    assert ratio[:, 0, 0].std() > 0.1 / (3 * samples) ** 0.5  # every image has its own draws


def test_gradient_shap_without_noise_is_expected_gradients_in_expectation(
    explain: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    model, images, pool = LinearNetwork(1, (6, 5), outputs=1), noise(2, 1, 6, 5), noise(20, 1, 6, 5, name="pool")
    expected = model.linear.weight.detach().view(6, 5) * (images - pool.mean(0))[:, 0]
    close(explain(with_pool(tmp_path, pool, GradientShap, samples=20, sigma=0), model, images, [1, 1]), expected)


def test_gradient_shap_adds_noise_to_the_end_of_the_path(explain: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    """A linear model: w (x + e - x'), so that the map's error is w times the mean of n draws of e."""
    model, images, pool = LinearNetwork(1, (30, 30), outputs=1), noise(1, 1, 30, 30), noise(20, 1, 30, 30, name="pool")
    weight = model.linear.weight.detach().view(30, 30)
    explainer = with_pool(tmp_path, pool, GradientShap, samples=80, sigma=0.2)
    added = explain(explainer, model, images, [1])[0] / weight - (images - pool.mean(0))[0, 0]
    deviation = 0.2 * float(images.max() - images.min())
    assert float(added.std()) == pytest.approx(deviation / 80**0.5, rel=5 / 1800**0.5)


def test_gradient_shap_takes_the_gradient_on_the_noisy_path(
    explain: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    """Sum of squares, black pool: E of 2 a (x + e)^2 = x^2 + s^2."""
    images = torch.tensor([[[[0.0, 0.5], [1.0, 0.25]]]])
    explainer = with_pool(tmp_path, torch.zeros(1, 1, 2, 2), GradientShap, samples=6000, sigma=0.5)
    maps = explain(explainer, Squares(), images, [1])[0]
    torch.testing.assert_close(maps, images[0, 0] ** 2 + 0.25, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("kind", [ExpectedGradients, GradientShap])
def test_sampled_maps_follow_the_image_not_the_batch(
    explain: Callable[..., torch.Tensor], tmp_path: Path, kind: type[Explainer]
) -> None:
    model, images = network(channels=1, outputs=2), noise(3, 1, 12, 10)
    explainer = with_pool(tmp_path, noise(8, 1, 12, 10, name="pool"), kind, samples=11)
    whole = explain(explainer, model, images, [1, 0, 1], ["a", "b", "c"])
    close(explain(explainer, model, images[2:], [1], ["c"]), whole[2:])
    again = explain(explainer, model, images[2:], [1], ["d"])
    assert (again - whole[2:]).abs().max() > 1e-3 * whole.abs().max()


# --- signs ----------------------------------------------------------------------------------------------------------


def test_the_targeted_inversion_of_signs_is_explaining_the_class(
    explain: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    """One neuron z: the map for class 0 is the negative of that for class 1, which is the map of z."""
    model, images = network(channels=1, outputs=1), noise(2, 1, 12, 10)
    pool = noise(8, 1, 12, 10, name="pool")
    explainers = [
        integrated(),
        black_white(),
        with_pool(tmp_path, pool, samples=9),
        with_pool(tmp_path, pool, GradientShap, samples=9),
    ]
    for explainer in explainers:
        of_one = explain(explainer, model, images, [1, 1])
        assert of_one.any()
        assert torch.equal(explain(explainer, model, images, [0, 0]), -of_one)
    of_z = CaptumIntegratedGradients(model).attribute(images, target=0, n_steps=25, method="riemann_right").sum(1)
    close(explain(integrated(), model, images, [1, 1]), of_z.float())


# --- the pool -------------------------------------------------------------------------------------------------------


def split_of(count: int) -> Split:
    """Every image is full of its own number."""
    ids = [str(index) for index in range(count)]
    images = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 2, 3, 4), dtype=np.float32)
    return Split.from_arrays(images, np.zeros(count), ids, ids)


def test_the_pool_is_drawn_by_the_seed_without_replacement(tmp_path: Path) -> None:
    train = split_of(50)
    session = Session(tmp_path, seed=3, batch_size=7)
    drawn = Background.draw(train, 20, session)
    assert drawn.shape == (20, 2, 3, 4)
    assert drawn.dtype == torch.float32
    assert torch.equal(Background.load(tmp_path, "cpu"), drawn)
    numbers = drawn[:, 0, 0, 0].tolist()
    assert len(set(numbers)) == 20
    assert torch.equal(drawn, drawn[:, :1, :1, :1].expand_as(drawn))
    assert torch.equal(Background.draw(train, 20, Session(tmp_path, seed=3, batch_size=64)), drawn)
    assert not torch.equal(Background.draw(train, 20, Session(tmp_path, seed=4)), drawn)


def test_a_pool_of_a_small_split_is_the_split(tmp_path: Path) -> None:
    drawn = Background.draw(split_of(5), 1000, Session(tmp_path))
    assert sorted(drawn[:, 0, 0, 0].tolist()) == [0, 1, 2, 3, 4]


def test_every_image_is_as_likely_in_the_pool(tmp_path: Path) -> None:
    counts = np.zeros(8)
    for seed in range(400):
        counts[Background.draw(split_of(8), 2, Session(tmp_path, seed=seed))[:, 0, 0, 0].long().numpy()] += 1
    assert abs(counts - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


# --- the contract ---------------------------------------------------------------------------------------------------


@parametrize_with_checks([SPECS[name] for name in ("expected-gradients", "gradient-shap")], samples=20, pool=15)
def test_conformance_of_sampled_paths(check: Callable[..., None]) -> None:
    check()
