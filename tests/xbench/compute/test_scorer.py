import copy
import dataclasses
import json
from collections import Counter
from typing import ClassVar

import pytest
import torch
from torch import nn

from xbench import PluginError, UserError
from xbench.compute import scorer as scoring
from xbench.compute.scorer import Scorer, ScoringRecipe, calibrate


def convnet(channels: int = 1, classes: int = 2) -> nn.Module:
    """Trained-looking: batch norms with statistics of their own."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 64, classes),
    )
    for norm in (module[1], module[4]):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
    return module


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(37, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def plain_logits(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return copy.deepcopy(module).eval()(images)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_the_logits_are_the_modules(classes: int, images: torch.Tensor) -> None:
    module = convnet(classes=classes)
    recipe = calibrate(module, images, "cpu", "32", 8)
    logits = Scorer(module, recipe, "cpu")(images)
    assert recipe.folded
    assert logits.shape == (37, classes)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, plain_logits(module, images), atol=1e-5, rtol=1e-5)
    assert recipe.max_difference < 1e-5


def test_the_logits_do_not_depend_on_how_many_images_there_are(images: torch.Tensor) -> None:
    module = convnet()
    scorer = Scorer(module, calibrate(module, images, "cpu", "32", 8), "cpu")
    together = scorer(images)
    for size in (1, 3, 8, 9):
        apart = torch.cat([scorer(images[start : start + size]) for start in range(0, len(images), size)])
        assert torch.allclose(apart, together, atol=1e-5)
    assert scorer(images[:0]).shape == (0, 2)


def test_the_original_is_untouched(images: torch.Tensor) -> None:
    module = convnet().train()
    module[0].weight.requires_grad_(False)
    module[3].eval()
    module.register_forward_hook(lambda *_: None)
    module[0].weight.grad = None
    before = copy.deepcopy(module.state_dict())
    modes = [layer.training for layer in module.modules()]
    hooks = [list(layer._forward_hooks) for layer in module.modules()]
    gradients = [parameter.requires_grad for parameter in module.parameters()]
    pointers = [parameter.data_ptr() for parameter in module.parameters()]
    strides = [parameter.stride() for parameter in module.parameters()]
    in_place = [layer.inplace for layer in module.modules() if isinstance(layer, nn.ReLU)]
    generator = torch.get_rng_state()

    recipe = calibrate(module, images, "cpu", "32", 8)
    Scorer(module, recipe, "cpu")(images)

    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [layer.training for layer in module.modules()] == modes
    assert [list(layer._forward_hooks) for layer in module.modules()] == hooks
    assert [parameter.requires_grad for parameter in module.parameters()] == gradients
    assert [parameter.data_ptr() for parameter in module.parameters()] == pointers
    assert [parameter.stride() for parameter in module.parameters()] == strides
    assert [layer.inplace for layer in module.modules() if isinstance(layer, nn.ReLU)] == in_place


def test_training_statistics_are_not_moved_by_a_module_left_in_training_mode(images: torch.Tensor) -> None:
    module = convnet().train()
    recipe = calibrate(module, images, "cpu", "32", 4)
    assert recipe.folded
    assert torch.allclose(Scorer(module, recipe, "cpu")(images), plain_logits(module, images), atol=1e-5)


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_wrong_copy_is_never_used(wrong: float, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = scoring.fold_batch_norms

    def corrupt(module: nn.Module) -> int:
        count = fold(module)
        with torch.no_grad():
            module[0].weight += wrong
        return count

    monkeypatch.setattr(scoring, "fold_batch_norms", corrupt)
    module = convnet()
    recipe = calibrate(module, images, "cpu", "32", 8)
    assert not recipe.folded
    assert torch.allclose(Scorer(module, recipe, "cpu")(images), plain_logits(module, images), atol=1e-6)


def test_a_copy_that_fails_is_passed_over(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def ruin(module: nn.Module) -> int:
        module[3] = nn.Conv2d(5, 5, 3)
        return 1

    def fail(module: nn.Module) -> None:
        raise RuntimeError("can't fold")

    for fold in (ruin, fail):
        monkeypatch.setattr(scoring, "fold_batch_norms", fold)
        assert not calibrate(convnet(), images, "cpu", "32", 8).folded


class Gate(nn.Module):
    """Another sign for bright batches: torch.fx can't trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convnet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) if x.mean() > 0.5 else -self.body(x)


def test_data_dependent_control_flow_survives(images: torch.Tensor) -> None:
    module = Gate()
    scorer = Scorer(module, calibrate(module, images, "cpu", "32", 64), "cpu")
    for batch in (images * 0.5, 0.5 + images * 0.5):
        assert torch.allclose(scorer(batch), plain_logits(module, batch), atol=1e-5)


class Functional(nn.Module):
    """No layer at all; images of any number of axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.flatten(1).mean(1), x.flatten(1).amax(1)], dim=1)


@pytest.mark.parametrize("spatial", [(32,), (8, 8), (4, 8, 8)])
def test_a_module_without_layers_and_other_numbers_of_axes(spatial: tuple[int, ...]) -> None:
    images = torch.rand(5, 1, *spatial)
    module = Functional()
    recipe = calibrate(module, images, "cpu", "32", 2)
    assert not recipe.folded
    assert recipe.max_difference == 0
    assert torch.equal(Scorer(module, recipe, "cpu")(images), module(images))


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + torch.rand_like(x)).flatten(1)[:, :2]


def test_a_module_that_draws_noise_is_compared_under_the_same_draws(images: torch.Tensor) -> None:
    state = torch.get_rng_state()
    assert calibrate(Noisy(), images, "cpu", "32", 8).max_difference == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_hooks_that_are_part_of_the_function_run_in_the_copy(images: torch.Tensor) -> None:
    module = convnet()
    module[1].register_forward_hook(lambda layer, args, output: 3 * output)
    scorer = Scorer(module, calibrate(module, images, "cpu", "32", 8), "cpu")
    assert torch.allclose(scorer(images), plain_logits(module, images), atol=1e-5)


def test_lower_precision_is_used_and_its_difference_reported(images: torch.Tensor) -> None:
    module = convnet()
    exact, rough = (calibrate(module, images, "cpu", precision, 8) for precision in ("32", "bf16"))
    assert rough.folded  # equality is judged in float32, whatever the precision of the run
    assert exact.max_difference < 1e-5 < rough.max_difference
    logits = Scorer(module, rough, "cpu")(images)
    assert logits.dtype == torch.float32
    reference = plain_logits(module, images)
    assert 1e-5 < (logits - reference).abs().max() < 0.05 * reference.abs().max()


class Slow(nn.Module):
    """Time per image falls until batches of 16 and is flat then, on a clock that only its batches move."""

    clock = 0.0
    calls: ClassVar[Counter[int]] = Counter()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Slow.calls[len(x)] += 1
        Slow.clock += len(x) * (0.001 if len(x) >= 16 else 0.002)
        return x.flatten(1)[:, :2]


def test_the_smallest_of_the_fastest_batches_is_chosen(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: Slow.clock)
    Slow.calls.clear()
    recipe = calibrate(Slow(), images, "cpu", "32")
    assert recipe.batch_size == 16
    assert recipe.milliseconds == pytest.approx(1)
    assert Slow.calls[256] > 1
    assert Slow.calls[16] > Slow.calls[4]  # a batch far behind is not timed again


def test_calibration_ends_in_time_on_a_slow_model(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "clock", 0.0)
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: 100 * Slow.clock)
    Slow.calls.clear()
    calibrate(Slow(), images, "cpu", "32")
    assert max(Slow.calls) <= 16


def test_a_batch_size_of_the_users_is_kept(images: torch.Tensor) -> None:
    recipe = calibrate(convnet(), images, "cpu", "32", 13)
    assert recipe.batch_size == 13
    assert recipe.milliseconds > 0


class Crowded(nn.Module):
    """Runs out of memory with more than `room` images."""

    def __init__(self, room: int, error: Exception | None = None) -> None:
        super().__init__()
        self.room = room
        self.error = error or torch.OutOfMemoryError("too many images")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise self.error
        return x.flatten(1)[:, :2]


def test_batches_are_halved_when_memory_runs_out(images: torch.Tensor) -> None:
    recipe = ScoringRecipe(32, folded=False, channels_last=False, precision="32", max_difference=0.0, milliseconds=1.0)
    scorer = Scorer(Crowded(room=5), recipe, "cpu")
    assert torch.equal(scorer(images), images.flatten(1)[:, :2])
    assert scorer.batch_size == 4


def test_memory_too_small_for_one_image_is_an_error(images: torch.Tensor) -> None:
    recipe = ScoringRecipe(4, folded=False, channels_last=False, precision="32", max_difference=0.0, milliseconds=1.0)
    with pytest.raises(torch.OutOfMemoryError):
        Scorer(Crowded(room=0), recipe, "cpu")(images)


def test_calibration_stays_below_the_batch_that_does_not_fit(images: torch.Tensor) -> None:
    assert calibrate(Crowded(room=8), images, "cpu", "32").batch_size <= 8


FULL = (
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
    MemoryError("Unable to allocate"),
)


@pytest.mark.parametrize("error", FULL, ids=["cublas", "mps", "numpy"])
def test_calibration_knows_every_kind_of_full_memory(images: torch.Tensor, error: Exception) -> None:
    assert 4 <= calibrate(Crowded(8, error), images, "cpu", "32").batch_size <= 8
    with pytest.raises(type(error), match=str(error)[:10]):  # not a fault of the model's plugin
        calibrate(Crowded(0, error), images, "cpu", "32")


def test_a_batch_size_that_was_asked_for_is_halved_until_it_fits(images: torch.Tensor) -> None:
    assert calibrate(Crowded(room=9), images, "cpu", "32", batch_size=32).batch_size == 8


def test_a_recipe_survives_json() -> None:
    recipe = ScoringRecipe(
        32, folded=True, channels_last=False, precision="bf16", max_difference=1e-7, milliseconds=0.3
    )
    assert ScoringRecipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_an_unknown_precision_is_the_users_error(images: torch.Tensor) -> None:
    with pytest.raises(UserError, match="64"):
        calibrate(convnet(), images, "cpu", "64", 8)


def test_a_module_that_fails_by_itself_is_named_as_such(images: torch.Tensor) -> None:
    with pytest.raises(PluginError, match="can't be run"):
        calibrate(convnet(channels=3), images, "cpu", "32", 8)


def test_a_module_that_changes_its_images_is_refused(images: torch.Tensor) -> None:
    class Centred(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images.sub_(0.5))

    before = images.clone()
    with pytest.raises(PluginError, match="in place"):
        calibrate(Centred(convnet()), images, "cpu", "32", 8)
    assert images.equal(before)
