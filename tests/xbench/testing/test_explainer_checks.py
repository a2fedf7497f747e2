"""The checks of explainers pass for good ones and name the fault of bad ones."""

import random
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Batch, DatasetInfo, Explainer, ExplainerSpec, Options, PluginError, Session, Split, class_scores
from xbench.testing import Scenario, check, default_scenarios, explainer_checks, fakes
from xbench.testing.fakes import FakeDataset, FakeOptions, TinyModel, TinyOptions


class GoodExplainer(Explainer):
    """The plain gradient."""

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        images = images.detach().requires_grad_()
        score = class_scores(model(images)).gather(1, targets[:, None]).sum()
        return torch.autograd.grad(score, images)[0].sum(1)


class GoodTrainedExplainer(GoodExplainer):
    """The gradient, scaled by what was learnt."""

    self_explaining = True

    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        mean = train.batch(range(len(train))).images.mean()
        np.save(session.folder / "mean.npy", float(mean))

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        self._mean = float(np.load(folder / "mean.npy"))
        self._model = model

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._mean * super().attribute(model, images, targets)

    def classifier(self) -> nn.Module:
        return self._model

    def transfer(self, model: nn.Module, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        return images * 0.5


@pytest.mark.parametrize("explainer", [GoodExplainer, GoodTrainedExplainer])
def test_good_explainers_pass(failures: Callable[..., dict[str, str]], explainer: type[Explainer]) -> None:
    assert failures(explainer_checks(), lambda: explainer(Options())) == {}


def test_an_instance_will_do_for_an_untrained_explainer(failures: Callable[..., dict[str, str]]) -> None:
    assert failures(explainer_checks(), GoodExplainer(Options())) == {}


class WrongShape(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().attribute(model, images, targets)[:, None]


class NotFinite(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        maps = super().attribute(model, images, targets)
        return maps / (maps - maps)


class BatchNormalised(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        maps = super().attribute(model, images, targets)
        return maps / maps.abs().max()


class LeavesHook(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        next(model.children()).register_forward_hook(lambda *_: None)
        return super().attribute(model, images, targets)


class ChangesWeights(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        maps = super().attribute(model, images, targets)
        next(model.parameters()).data.mul_(1.01)
        return maps


class SwitchesMode(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        maps = super().attribute(model, images, targets)
        model.train()
        return maps


class UnfreezesParameters(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        model.requires_grad_(True)
        return super().attribute(model, images, targets)


class LeavesGradients(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        model.requires_grad_(True)
        model(images).sum().backward()
        model.requires_grad_(False)
        return super().attribute(model, images, targets)


class ReplacesModules(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        model.head = nn.Sequential(model.head)  # type: ignore[arg-type]
        return super().attribute(model, images, targets)


class DrawsFromTorch(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().attribute(model, images + 0.1 * torch.randn(images.shape), targets)


class DrawsFromNumpy(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        np.random.random()
        return super().attribute(model, images, targets)


class DrawsFromPython(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        random.random()
        return super().attribute(model, images, targets)


class KeepsState(GoodExplainer):
    calls = 0

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.calls * super().attribute(model, images, targets)


class UsesFirstTarget(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().attribute(model, images, targets[:1].expand_as(targets))


class NeedsManyLogits(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().attribute(lambda x: model(x)[:, [0, 1]], images, targets)  # type: ignore[arg-type]


class NeedsSquares(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().attribute(model, images, targets).transpose(1, 2)


class ChangesMasks(GoodExplainer):
    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        batch.masks.logical_not_()
        return self.attribute(model, batch.images, targets)


class ChangesTargets(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        maps = super().attribute(model, images, targets)
        targets.zero_()
        return maps


class KeepsGraphsAlive(GoodExplainer):
    """What an operation keeps of its own result holds the operation, and so itself."""

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept):
            model(images.detach().requires_grad_())
        return super().attribute(model, images, targets)


class KeepsTheLastCall(GoodExplainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self._last = super().attribute(model, images, targets)
        return self._last


class RefusesAll(GoodExplainer):
    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        return "needs a transformer"


class RefusesWithoutReason(GoodExplainer):
    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        return False  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("explainer", "name", "message"),
    [
        (WrongShape, "maps_plain", r"maps of shape \(5, 1, 32, 32\)"),
        (NotFinite, "maps_plain", "NaN or infinity"),
        (BatchNormalised, "independent_of_batch", "changes with the other images of the batch"),
        (LeavesHook, "leaves_model", "hooks are not as they were"),
        (ChangesWeights, "leaves_model", "weights and buffers are not as they were"),
        (SwitchesMode, "leaves_model", "modes are not as they were"),
        (UnfreezesParameters, "leaves_model", "requires_grad flags are not as they were"),
        (LeavesGradients, "leaves_model", "gradients are not as they were"),
        (ReplacesModules, "leaves_model", "modules are not as they were|weights and buffers"),
        (DrawsFromTorch, "independent_of_batch", "changes with the"),
        (DrawsFromTorch, "leaves_generators", "torch's global generator"),
        (DrawsFromNumpy, "leaves_generators", "numpy's global generator"),
        (DrawsFromPython, "leaves_generators", "Python's global generator"),
        (KeepsState, "deterministic", "two calls give different maps"),
        (UsesFirstTarget, "targets", "changes with the targets of the other images"),
        (NeedsManyLogits, "maps_one_logit", "raised IndexError"),
        (NeedsSquares, "maps_three_channels_odd_size", r"expected \(5, 33, 27\)"),
        (ChangesMasks, "leaves_inputs", "batch.masks was changed"),
        (ChangesTargets, "leaves_inputs", "targets were changed"),
        (KeepsGraphsAlive, "leaves_nothing_behind", r"calls leave tensors behind \(\d+ after 3 calls"),
        (RefusesAll, "supports_a_scenario", "needs a transformer"),
        (RefusesWithoutReason, "supports_a_scenario", "supports.. gave False"),
    ],
)
def test_faults_of_explainers_are_found(
    failures: Callable[..., dict[str, str]], explainer: type[Explainer], name: str, message: str
) -> None:
    failed = failures(explainer_checks(), lambda: explainer(Options()))
    assert name in failed
    assert re.search(message, failed[name])


def test_keeping_something_for_the_next_call_is_no_growth(failures: Callable[..., dict[str, str]]) -> None:
    assert failures(explainer_checks(), lambda: KeepsTheLastCall(Options())) == {}


@pytest.mark.parametrize(("low", "high", "fine"), [(-3e38, 3e38, True), (3e38, 3e38, True), (-np.inf, np.inf, False)])
def test_what_is_finite_is_judged_by_the_values_and_not_by_their_sum(low: float, high: float, fine: bool) -> None:
    class Extreme(GoodExplainer):
        def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            maps = torch.full_like(images[:, 0], low)
            maps[:, 0] = high
            return maps

    split = Split.from_arrays(np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1]), ["a", "b"], ["a", "b"])
    batch, model = split.batch(range(2)), nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with nullcontext() if fine else pytest.raises(PluginError, match="map of image a"):
        maps = Extreme(Options()).explain(model, batch, torch.zeros(2, dtype=torch.int64), "extreme")
        assert maps[0, 0, 0] == np.float32(high)


class ForgetsState(GoodTrainedExplainer):
    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        super().restore(folder, model, info, device)
        self._mean = id(self) % 1000 + 1.0


class FitDraws(GoodTrainedExplainer):
    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        np.save(session.folder / "mean.npy", np.random.default_rng().random())


class FitTrainsTheModel(GoodTrainedExplainer):
    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        super().fit(model, train, validation, info, session)
        next(model.parameters()).data.mul_(2)


@pytest.mark.parametrize(
    ("explainer", "message"),
    [
        (ForgetsState, "write all state in fit"),
        (FitDraws, "seed all draws"),
        (FitTrainsTheModel, "fit changed the model's weights"),
    ],
)
def test_faults_of_trained_explainers_are_found(
    failures: Callable[..., dict[str, str]], explainer: type[Explainer], message: str
) -> None:
    assert message in failures(explainer_checks(), lambda: explainer(Options()))["restores"]


def test_a_wrong_transfer_is_found(failures: Callable[..., dict[str, str]]) -> None:
    class Cropped(GoodTrainedExplainer):
        def transfer(self, model: nn.Module, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
            return images[..., 1:]

    assert "images of shape" in failures(explainer_checks(), lambda: Cropped(Options()))["transfers"]


def test_a_trained_explainer_is_trained_once_per_scenario(failures: Callable[..., dict[str, str]]) -> None:
    fits = []

    class Counting(GoodTrainedExplainer):
        def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
            fits.append(info.spatial)
            super().fit(model, train, validation, info, session)

    assert failures(explainer_checks(), lambda: Counting(Options())) == {}
    assert len(fits) == len(default_scenarios()) + 1  # once more to compare two trainings


def test_scenarios_of_ones_own(failures: Callable[..., dict[str, str]]) -> None:
    scenario = Scenario("linear", FakeDataset(FakeOptions(size=8)), TinyModel(TinyOptions(network="linear")))
    names = [name for name, _ in explainer_checks([scenario])]
    assert "maps_linear" in names
    assert failures(explainer_checks([scenario]), lambda: GoodExplainer(Options())) == {}


class Unexpected(GoodExplainer):
    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        raise KeyError("missing")


def test_check_reports_every_result_and_raises_none(monkeypatch: pytest.MonkeyPatch) -> None:
    good = ExplainerSpec("good", "the gradient", factory="xbench.testing.fakes:GoodExplainer")
    monkeypatch.setattr(fakes, "GoodExplainer", GoodExplainer, raising=False)
    results = check(good)
    assert [result.name for result in results] == [name for name, _ in explainer_checks()]
    assert all(result.passed and not result.message and result.seconds >= 0 for result in results)
    monkeypatch.setattr(fakes, "GoodExplainer", Unexpected)
    assert {result.message for result in check(good)} == {"KeyError: 'missing'"}
