"""Stability: closed forms of simple maps, captum's max-sensitivity, and what a manipulated image may and may not do."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from torch import nn

from xbench import Batch, Case, DatasetInfo, Metric, Session, Split, class_scores
from xbench.compute.passes import gradients
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import rng
from xbench.testing import default_scenarios, metric_checks
from xbench.testing.fakes import fake_case
from xbench.testing.networks import LinearNetwork
from xbench.testing.scenarios import Scenario
from xbench_metrics.checks.manipulation import Attack, top_pixels
from xbench_metrics.checks.options import AdversarialStabilityOptions, StabilityOptions
from xbench_metrics.checks.stability import AdversarialStability, InputStability


class Explained:
    """An explainer at work: any function of (model, batch, targets)."""

    def __init__(self, model: nn.Module, make: Callable[..., torch.Tensor]) -> None:
        self.model, self.make = model.eval(), make
        self.seen = []

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        self.seen.append(batch.images)
        return self.make(model or self.model, batch, targets)


def image(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
    return batch.images.sum(1)


def constant(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
    return torch.full_like(batch.images[:, 0], 0.25)


def gradient(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
    return gradients(model, batch.images, targets).abs().sum(1)


def random(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
    return uniform_field(batch.seeds, batch.images.shape[2:])


class Exact(nn.Module):
    """Class 1 for images of nothing but one half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 0.001 - (images - 0.5).abs().flatten(1).amax(1, keepdim=True)


class Constant(nn.Module):
    """Class 1, whatever the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_ones((len(images), 1))


class Steep(nn.Module):
    """Class 1 where the first pixel is above one half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, :1] - 0.5


def deciding(channels: int = 1, outputs: int = 2) -> nn.Sequential:
    """A network whose gradient depends on the image."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.LazyLinear(outputs)),
    )


def case_of(
    tmp_path: Path,
    make: Callable[..., torch.Tensor],
    module: nn.Module | None = None,
    n: int = 6,
    channels: int = 1,
    spatial: tuple[int, ...] = (12, 14),
    images: np.ndarray | None = None,
    batch_size: int = 4,
) -> Case:
    if images is None:
        images = rng(0, "images").uniform(0.2, 0.8, (n, channels, *spatial))
    n, channels, *spatial = images.shape  # type: ignore[assignment]
    ids = [f"sample-{index}" for index in range(n)]
    split = Split.from_arrays(images.astype(np.float32), np.arange(n) % 2, ids, ids)
    module = module or LinearNetwork(channels, tuple(spatial), 2)
    module(torch.zeros(1, channels, *spatial))  # lazy layers get their size
    explanation = Explained(module, make)
    nothing = np.zeros((n, *spatial), dtype=np.float32)
    info = DatasetInfo("toy", ("a", "b"), channels, tuple(spatial))
    case = fake_case(info, split, module, nothing, Session(tmp_path, batch_size=batch_size), explanation=explanation)
    maps = explanation.maps(split.batch(range(n)), torch.from_numpy(case.targets)).numpy()
    explanation.seen.clear()
    return dataclasses.replace(case, maps=maps)


def stability(case: Case, **options: Any) -> tuple[dict[str, np.ndarray], float]:
    metric = InputStability(StabilityOptions(**options))
    seen = metric.observe(case)
    return seen, metric.summarise(seen)


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [constant, random])
def test_a_map_that_does_not_look_at_the_image_is_stable(tmp_path: Path, make: Callable[..., Any]) -> None:
    case = case_of(tmp_path, make)
    kept = []
    for figure in ("relative", "lipschitz"):
        seen, value = stability(case, figure=figure)
        assert value == 0
        kept.append(seen["kept"])
    # Which noise keeps the prediction is a matter of the classifier alone.
    np.testing.assert_array_equal(*kept)  # type: ignore[arg-type]
    assert (kept[0] > 0).all()


def test_the_image_as_its_own_map_has_lipschitz_constant_one(tmp_path: Path) -> None:
    for factor in (1, 7):
        case = case_of(tmp_path, lambda *args, factor=factor: factor * image(*args), Constant())
        _, value = stability(case, figure="lipschitz", samples=4)
        assert value == pytest.approx(factor, rel=1e-6)


def test_the_change_of_a_linear_map_is_that_of_the_image(tmp_path: Path) -> None:
    case = case_of(tmp_path, image, Constant())
    seen, value = stability(case, samples=3, radius=0.1)
    noisy = [torch.cat([case.explanation.seen[chunk * 3 + index] for chunk in range(2)]) for index in range(3)]
    original = case.split.batch(range(6)).images
    changes = torch.stack([(images - original).flatten(1).norm(dim=1) for images in noisy])
    size = original.flatten(1).norm(dim=1)
    np.testing.assert_allclose(seen["relative"], changes.amax(0) / size, rtol=1e-5)
    np.testing.assert_allclose(seen["mean_relative"], changes.mean(0) / size, rtol=1e-5)
    np.testing.assert_array_equal(seen["kept"], 1)
    assert value == pytest.approx(seen["relative"].mean())
    spread = torch.stack(noisy) - original
    assert spread.abs().max() <= 0.1 + 1e-6
    assert spread.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.05)
    # Twice the noise, twice the change: nothing is clipped, and the draws are the same.
    np.testing.assert_allclose(stability(case, samples=3, radius=0.2)[0]["relative"], 2 * seen["relative"], rtol=1e-4)
    np.testing.assert_allclose(
        stability(case_of(tmp_path, image, Constant(), batch_size=5), samples=3, radius=0.1)[1], value
    )


def test_normal_noise(tmp_path: Path) -> None:
    case = case_of(tmp_path, image, Constant(), n=40)
    stability(case, noise="normal", samples=1, radius=0.05, limit=None)
    spread = torch.cat(case.explanation.seen) - case.split.batch(range(40)).images
    assert spread.std() == pytest.approx(0.05, rel=0.03)
    assert spread.mean().abs() < 0.005


@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_captum(tmp_path: Path, channels: int) -> None:
    """The same noisy images through captum's max-sensitivity, which does not ask whether the class stays."""
    case = case_of(tmp_path, gradient, deciding(channels), channels=channels, batch_size=8)
    seen, _ = stability(case, samples=5, radius=0.005)
    assert (seen["kept"] == 1).all()
    noise = iter(case.explanation.seen)
    expected = sensitivity_max(
        lambda images, target: (gradients(case.explanation.model, images[0], target).abs().sum(1),),
        case.split.batch(range(6)).images,
        perturb_func=lambda inputs, radius: (next(noise),),
        n_perturb_samples=5,
        max_examples_per_batch=6,
        target=torch.from_numpy(case.targets),
    )
    np.testing.assert_allclose(seen["relative"], expected, rtol=1e-5)


def test_noise_that_changes_the_class_does_not_count(tmp_path: Path) -> None:
    images = np.full((4, 1, 8, 8), 0.5)
    seen, value = stability(case_of(tmp_path, image, Exact(), images=images))
    np.testing.assert_array_equal(seen["kept"], 0)
    assert np.isnan(seen["relative"]).all()
    assert math.isnan(value)
    images = np.full((60, 1, 8, 8), 0.5)
    images[:, 0, 0, 0] += 0.001
    seen, value = stability(case_of(tmp_path, image, Steep(), images=images), samples=20, limit=None)
    assert seen["kept"].mean() == pytest.approx((0.02 + 0.001) / 0.04, abs=4 * 0.5 / math.sqrt(1200))
    assert math.isfinite(value)


def test_zero_maps(tmp_path: Path) -> None:
    case = case_of(tmp_path, lambda *args: 0 * image(*args), Constant())
    assert stability(case)[1] == 0
    case = case_of(
        tmp_path,
        lambda model, batch, targets: image(model, batch, targets) - 0.5,
        Constant(),
        images=np.full((2, 1, 8, 8), 0.5),
    )
    seen, value = stability(case)
    assert math.isnan(value)
    np.testing.assert_allclose(seen["lipschitz"], 1, rtol=1e-6)


def test_a_limit_leaves_the_others_out(tmp_path: Path) -> None:
    case = case_of(tmp_path, image, n=9)
    seen, _ = stability(case, limit=4, samples=2)
    assert (~np.isnan(seen["relative"])).sum() == (~np.isnan(seen["kept"])).sum() == 4
    whole, _ = stability(case, limit=None, samples=2)
    chosen = ~np.isnan(seen["relative"])
    np.testing.assert_allclose(seen["relative"][chosen], whole["relative"][chosen], rtol=1e-6)


# --- manipulation -----------------------------------------------------------------------------------------------------


def adversarial(case: Case, **options: Any) -> tuple[dict[str, np.ndarray], float]:
    metric = AdversarialStability(AdversarialStabilityOptions(**{"steps": 10, "top": 0.1, **options}))
    seen = metric.observe(dataclasses.replace(case, prepared=metric.prepare(case)))
    return seen, metric.summarise(seen)


def test_the_gradient_is_manipulated(tmp_path: Path) -> None:
    case = case_of(tmp_path, gradient, deciding())
    seen, value = adversarial(case)
    # Here the attack is made for this very map, so both intersections are the same.
    np.testing.assert_allclose(seen["intersection"], seen["gradient_intersection"])
    assert value == pytest.approx(1 - seen["intersection"].mean())
    assert (seen["intersection"] * 17 == np.round(seen["intersection"] * 17)).all()  # k = 10 % of 168
    assert value > 2 * displaced_by_noise(case)


def displaced_by_noise(case: Case) -> float:
    """1 - intersection under random signs of the largest size."""
    batch = case.split.batch(range(len(case.split)))
    signs = torch.from_numpy(rng(0, "signs").choice([-1.0, 1.0], batch.images.shape).astype(np.float32))
    targets = torch.from_numpy(case.targets)
    moved = dataclasses.replace(batch, images=(batch.images + 8 / 255 * signs).clamp(0, 1))
    tops = [top_pixels(gradient(case.explanation.model, b, targets), b.seeds, 0.1) for b in (batch, moved)]
    return float(1 - (tops[0] & tops[1]).sum(1).double().div(17).mean())


@pytest.mark.parametrize("outputs", [1, 2])
def test_what_a_manipulated_image_keeps(tmp_path: Path, outputs: int) -> None:
    model = deciding(channels=2, outputs=outputs)
    images = rng(0, "images").random((6, 2, 12, 14))
    case = case_of(tmp_path, gradient, model, images=images)
    model.train()
    attack = Attack(model, epsilon=0.05, step_size=0.02, steps=6, top=0.1, beta=30)
    batch, targets = case.split.batch(range(6)), torch.from_numpy(case.targets)
    moved, share = attack(batch, targets)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert ((moved >= 0) & (moved <= 1)).all()
    assert (moved - batch.images).abs().max() <= 0.05 + 1e-6
    classes = [class_scores(model(one)).argmax(1) for one in (moved, batch.images)]
    assert torch.equal(*classes)
    assert (share < 1).all()
    alone, its_share = attack(case.split.batch([4]), targets[4:5])
    torch.testing.assert_close(alone, moved[4:5], atol=1e-6, rtol=0)
    assert its_share.item() == share[4].item()


@pytest.mark.parametrize("make", [constant, random])
def test_a_map_that_does_not_look_at_the_image_can_not_be_manipulated(tmp_path: Path, make: Callable[..., Any]) -> None:
    seen, value = adversarial(case_of(tmp_path, make, deciding()))
    assert value == 0
    assert (seen["gradient_intersection"] < 1).all()
    assert (seen["change"] > 0).all()


@pytest.mark.parametrize("module", [None, Constant()])
def test_where_the_gradient_is_the_same_everywhere_nothing_is_found(tmp_path: Path, module: nn.Module | None) -> None:
    seen, value = adversarial(case_of(tmp_path, image, module))
    assert value == 0
    np.testing.assert_array_equal(seen["change"], 0)


def test_volumes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 6, 3), nn.ReLU(), nn.Conv3d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    case = case_of(tmp_path, gradient, model, images=rng(0, "volumes").random((3, 1, 6, 7, 8)))
    seen, value = adversarial(case)
    np.testing.assert_allclose(seen["intersection"], seen["gradient_intersection"])
    assert value > 0
    assert stability(case, samples=2)[1] > 0


def test_no_change_allowed(tmp_path: Path) -> None:
    seen, value = adversarial(case_of(tmp_path, gradient, deciding()), epsilon=0)
    assert value == 0
    np.testing.assert_array_equal(seen["change"], 0)


def test_the_attack_asks_for_no_maps_and_serves_every_explainer(tmp_path: Path) -> None:
    model, metric = deciding(), AdversarialStability(AdversarialStabilityOptions(steps=2, top=0.1, limit=4))
    cases = [case_of(tmp_path, make, model) for make in (gradient, constant, image)]
    prepared = metric.prepare(dataclasses.replace(cases[0], maps=np.empty(0, np.float32), explanation=None))
    assert prepared["attacked"].shape == (4, 1, 12, 14)
    others = [metric.prepare(case) for case in cases[1:]]
    for name, values in prepared.items():
        assert all(np.array_equal(values, other[name]) for other in others)
    chosen = []
    for case in cases:
        seen = metric.observe(dataclasses.replace(case, prepared=prepared))
        chosen.append(~np.isnan(seen["intersection"]))
        np.testing.assert_array_equal(seen["gradient_intersection"][chosen[-1]], prepared["gradient_intersection"])
    assert all(np.array_equal(rows, chosen[0]) for rows in chosen)
    assert chosen[0].sum() == 4


# --- conformance ------------------------------------------------------------------------------------------------------


def bound(metric: Any, options: Any, scenario: Scenario) -> Callable[[], Metric]:
    """A factory of a metric whose cases bring an explainer at work, and its maps."""
    module = scenario.module()

    class Bound(metric):
        def observe(self, case: Case) -> dict[str, np.ndarray]:
            explanation: Any = Explained(module, gradient)
            batches = case.split.batches(case.session.batch_size)
            targets = torch.from_numpy(case.targets).split(case.session.batch_size)
            maps = torch.cat([explanation.maps(*pair) for pair in zip(batches, targets, strict=True)])
            return super().observe(dataclasses.replace(case, explanation=explanation, maps=maps.numpy()))

    return lambda: Bound(options)


def conformance() -> Iterator[Any]:
    kinds = (
        ("stability", InputStability, StabilityOptions(samples=2)),
        ("adversarial_stability", AdversarialStability, AdversarialStabilityOptions(steps=2, limit=4)),
    )
    for scenario in default_scenarios():
        for label, metric, options in kinds:
            for name, check in metric_checks([scenario]):
                yield pytest.param(check, bound(metric, options, scenario), id=f"{label}-{scenario.name}-{name}")


@pytest.mark.parametrize(("check", "factory"), list(conformance()))
def test_conforms(check: Callable[..., None], factory: Callable[..., Any]) -> None:
    check(factory)
