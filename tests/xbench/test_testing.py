"""The conformance checks pass for good plugins and name the fault of bad ones; the fakes are what they say."""

import dataclasses
import functools
import random
import re
import subprocess
import sys

import numpy as np
import pluggy
import pytest
import torch
from torch import nn

from xbench import (
    Explainer,
    ExplainerSpec,
    Metric,
    MetricSpec,
    Model,
    Options,
    PluginError,
    Session,
    Split,
    UserError,
    class_scores,
    hookspecs,
)
from xbench.contracts.model import ModelOptions
from xbench.seeding import isolated
from xbench.testing import (
    Scenario,
    check,
    checks_for,
    dataset_checks,
    default_scenarios,
    explainer_checks,
    fakes,
    metric_checks,
    model_checks,
)
from xbench.testing.fakes import FakeDataset, FakeOptions, TinyModel, TinyOptions
from xbench.training import predict, train_classifier


def failures(checks, factory):
    """Name of each failing check -> its message; anything but an AssertionError is a fault of the checks."""
    failed = {}
    for name, one in checks:
        try:
            one(factory)
        except AssertionError as error:
            failed[name] = str(error)
    return failed


# --- explainers -----------------------------------------------------------------------------------------------------


class GoodExplainer(Explainer):
    """The plain gradient."""

    def attribute(self, model, images, targets):
        images = images.detach().requires_grad_()
        score = class_scores(model(images)).gather(1, targets[:, None]).sum()
        return torch.autograd.grad(score, images)[0].sum(1)


class GoodTrainedExplainer(GoodExplainer):
    """The gradient, scaled by what was learnt."""

    self_explaining = True

    def fit(self, model, train, validation, info, session):
        mean = train.batch(range(len(train))).images.mean()
        np.save(session.folder / "mean.npy", float(mean))

    def restore(self, folder, model, info, device):
        self._mean = float(np.load(folder / "mean.npy"))
        self._model = model

    def attribute(self, model, images, targets):
        return self._mean * super().attribute(model, images, targets)

    def classifier(self):
        return self._model

    def transfer(self, model, images, toward):
        return images * 0.5


@pytest.mark.parametrize("explainer", [GoodExplainer, GoodTrainedExplainer])
def test_good_explainers_pass(explainer):
    assert failures(explainer_checks(), lambda: explainer(Options())) == {}


def test_an_instance_will_do_for_an_untrained_explainer():
    assert failures(explainer_checks(), GoodExplainer(Options())) == {}


class WrongShape(GoodExplainer):
    def attribute(self, model, images, targets):
        return super().attribute(model, images, targets)[:, None]


class NotFinite(GoodExplainer):
    def attribute(self, model, images, targets):
        maps = super().attribute(model, images, targets)
        return maps / (maps - maps)


class BatchNormalised(GoodExplainer):
    def attribute(self, model, images, targets):
        maps = super().attribute(model, images, targets)
        return maps / maps.abs().max()


class LeavesHook(GoodExplainer):
    def attribute(self, model, images, targets):
        next(model.children()).register_forward_hook(lambda *_: None)
        return super().attribute(model, images, targets)


class ChangesWeights(GoodExplainer):
    def attribute(self, model, images, targets):
        maps = super().attribute(model, images, targets)
        next(model.parameters()).data.mul_(1.01)
        return maps


class SwitchesMode(GoodExplainer):
    def attribute(self, model, images, targets):
        maps = super().attribute(model, images, targets)
        model.train()
        return maps


class UnfreezesParameters(GoodExplainer):
    def attribute(self, model, images, targets):
        model.requires_grad_(True)
        return super().attribute(model, images, targets)


class LeavesGradients(GoodExplainer):
    def attribute(self, model, images, targets):
        model.requires_grad_(True)
        model(images).sum().backward()
        model.requires_grad_(False)
        return super().attribute(model, images, targets)


class ReplacesModules(GoodExplainer):
    def attribute(self, model, images, targets):
        model.head = nn.Sequential(model.head)
        return super().attribute(model, images, targets)


class DrawsFromTorch(GoodExplainer):
    def attribute(self, model, images, targets):
        return super().attribute(model, images + 0.1 * torch.randn(images.shape), targets)


class DrawsFromNumpy(GoodExplainer):
    def attribute(self, model, images, targets):
        np.random.random()
        return super().attribute(model, images, targets)


class DrawsFromPython(GoodExplainer):
    def attribute(self, model, images, targets):
        random.random()
        return super().attribute(model, images, targets)


class KeepsState(GoodExplainer):
    calls = 0

    def attribute(self, model, images, targets):
        self.calls += 1
        return self.calls * super().attribute(model, images, targets)


class UsesFirstTarget(GoodExplainer):
    def attribute(self, model, images, targets):
        return super().attribute(model, images, targets[:1].expand_as(targets))


class NeedsManyLogits(GoodExplainer):
    def attribute(self, model, images, targets):
        return super().attribute(lambda x: model(x)[:, [0, 1]], images, targets)


class NeedsSquares(GoodExplainer):
    def attribute(self, model, images, targets):
        return super().attribute(model, images, targets).transpose(1, 2)


class ChangesMasks(GoodExplainer):
    def attribute_batch(self, model, batch, targets):
        batch.masks.logical_not_()
        return self.attribute(model, batch.images, targets)


class ChangesTargets(GoodExplainer):
    def attribute(self, model, images, targets):
        maps = super().attribute(model, images, targets)
        targets.zero_()
        return maps


class RefusesAll(GoodExplainer):
    def supports(self, model, info):
        return "needs a transformer"


class RefusesWithoutReason(GoodExplainer):
    def supports(self, model, info):
        return False


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
        (RefusesAll, "supports_a_scenario", "needs a transformer"),
        (RefusesWithoutReason, "supports_a_scenario", "supports.. gave False"),
    ],
)
def test_faults_of_explainers_are_found(explainer, name, message):
    failed = failures(explainer_checks(), lambda: explainer(Options()))
    assert name in failed
    assert re.search(message, failed[name])


class ForgetsState(GoodTrainedExplainer):
    def restore(self, folder, model, info, device):
        super().restore(folder, model, info, device)
        self._mean = id(self) % 1000 + 1.0


class FitDraws(GoodTrainedExplainer):
    def fit(self, model, train, validation, info, session):
        np.save(session.folder / "mean.npy", np.random.default_rng().random())


class FitTrainsTheModel(GoodTrainedExplainer):
    def fit(self, model, train, validation, info, session):
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
def test_faults_of_trained_explainers_are_found(explainer, message):
    assert message in failures(explainer_checks(), lambda: explainer(Options()))["restores"]


def test_a_wrong_transfer_is_found():
    class Cropped(GoodTrainedExplainer):
        def transfer(self, model, images, toward):
            return images[..., 1:]

    assert "images of shape" in failures(explainer_checks(), lambda: Cropped(Options()))["transfers"]


def test_a_trained_explainer_is_trained_once_per_scenario():
    fits = []

    class Counting(GoodTrainedExplainer):
        def fit(self, model, train, validation, info, session):
            fits.append(info.spatial)
            super().fit(model, train, validation, info, session)

    assert failures(explainer_checks(), lambda: Counting(Options())) == {}
    assert len(fits) == len(default_scenarios()) + 1  # once more to compare two trainings


def test_scenarios_of_ones_own():
    scenario = Scenario("linear", FakeDataset(FakeOptions(size=8)), TinyModel(TinyOptions(network="linear")))
    names = [name for name, _ in explainer_checks([scenario])]
    assert "maps_linear" in names
    assert failures(explainer_checks([scenario]), lambda: GoodExplainer(Options())) == {}


# --- metrics --------------------------------------------------------------------------------------------------------


class GoodMetric(Metric):
    """Mean value of the map inside the mask."""

    def observe(self, case):
        inside = []
        for start in range(0, len(case.split), case.session.batch_size):
            rows = np.arange(start, min(start + case.session.batch_size, len(case.split)))
            masks = case.split.batch(rows).masks.numpy()
            inside.append((case.maps[rows] * masks).sum((1, 2)) / masks.sum((1, 2)))
        return {"inside": np.concatenate(inside)}

    def summarise(self, observations):
        return float(observations["inside"].mean())

    def card(self, info):
        return {"aggregation": "mean over samples"}


def test_a_good_metric_passes():
    assert failures(metric_checks(), lambda: GoodMetric(Options())) == {}


class TooFewRows(GoodMetric):
    def observe(self, case):
        return {"inside": super().observe(case)["inside"][:-1]}


class ReservedName(GoodMetric):
    def observe(self, case):
        return {**super().observe(case), "label": case.targets}


class Words(GoodMetric):
    def observe(self, case):
        return {**super().observe(case), "note": np.array(["seen"] * len(case.split))}


class Chancy(GoodMetric):
    def observe(self, case):
        return {"inside": np.random.default_rng().random(len(case.split))}


class BatchMaximum(GoodMetric):
    def observe(self, case):
        size = case.session.batch_size
        seen = super().observe(case)["inside"]
        return {
            "inside": np.concatenate([seen[i : i + size] / seen[i : i + size].max() for i in range(0, len(seen), size)])
        }


class WritesIntoMaps(GoodMetric):
    def observe(self, case):
        case.maps[:] = 0
        return super().observe(case)


class DividesByZero(GoodMetric):
    def summarise(self, observations):
        classes = [observations["inside"][observations["label"] == index].mean() for index in (0, 1)]
        return float(np.mean(classes))


class Infinite(GoodMetric):
    def summarise(self, observations):
        return float("inf") if len(observations["inside"]) == 1 else 0.0


class NotAFloat(GoodMetric):
    def summarise(self, observations):
        return observations["inside"].mean(keepdims=True)


class SeesOrder(GoodMetric):
    def summarise(self, observations):
        return float(observations["inside"][0])


class ShortCurve(GoodMetric):
    def curves(self, observations):
        from xbench import Curves

        return Curves(np.arange(3), {"one": np.arange(2)}, "x", "y")


class NoCard(GoodMetric):
    def card(self, info):
        return {}


class CardOfArrays(GoodMetric):
    def card(self, info):
        return {"steps": np.arange(3)}


@pytest.mark.parametrize(
    ("metric", "name", "message"),
    [
        (TooFewRows, "observations_plain", "has 11 rows for 12 samples"),
        (ReservedName, "observations_plain", "choose other names"),
        (Words, "observations_plain", "give bool, int or float"),
        (Chancy, "deterministic", "changes from call to call"),
        (BatchMaximum, "independent_of_batch_size", "changes with the batch size"),
        (WritesIntoMaps, "observations_plain", "read-only"),
        (DividesByZero, "summarises_subsets", "give NaN where the metric is undefined"),
        (Infinite, "summarises_subsets", "gave infinity on one sample"),
        (NotAFloat, "observations_plain", "gave a ndarray"),
        (SeesOrder, "summary_ignores_order", "in another order"),
        (ShortCurve, "curves", "one height per x"),
        (NoCard, "card", "is empty"),
        (CardOfArrays, "card", "can't be written as JSON"),
    ],
)
def test_faults_of_metrics_are_found(metric, name, message):
    failed = failures(metric_checks(), lambda: metric(Options()))
    assert message in failed[name]


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"relu": "reused", "batch_norm": True}, {"relu": "functional"}, {"relu": "inplace"}, {"network": "linear"}],
)
def test_tiny_models_pass(options):
    assert failures(model_checks(), lambda: TinyModel(TinyOptions(**options))) == {}


class Bad(Model):
    """A fault of choice around a tiny model."""

    def __init__(self, fault):
        super().__init__(ModelOptions())
        self.fault = fault

    def build(self, info):
        return BadModule(TinyModel().build(info), self.fault)


class BadModule(nn.Module):
    def __init__(self, inner, fault):
        super().__init__()
        self.inner, self.fault = inner, fault
        self.register_buffer("count", torch.zeros(()))
        if fault == "unseeded":
            self.noise = nn.Parameter(torch.rand(3, generator=torch.Generator().manual_seed(random.getrandbits(60))))

    def forward(self, images):
        if self.fault == "detached":
            return self.inner(images.detach()) + 0 * next(self.inner.parameters()).sum()
        if self.fault == "batch":
            images = images - images.mean(0)
        logits = self.inner(images)
        if self.fault == "dropout":
            logits = nn.functional.dropout(logits)
        if self.fault == "counts":
            self.count += 1
        if self.fault == "infinite":
            logits = logits / 0
        return logits[:, :, None] if self.fault == "shape" else logits


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        ("shape", "logits_plain", "logits of shape (4, 2, 1)"),
        ("infinite", "logits_plain", "NaN or infinity"),
        ("detached", "gradient_reaches_input", "gradient at the images is zero"),
        ("dropout", "deterministic", "different logits"),
        ("counts", "deterministic", "changed count"),
        ("batch", "independent_of_batch", "the other images of the batch"),
        ("unseeded", "reproducible", "noise differs between two builds"),
    ],
)
def test_faults_of_models_are_found(fault, name, message):
    failed = failures(model_checks(), functools.partial(Bad, fault))
    assert message in failed[name]
    assert failures(model_checks(), functools.partial(Bad, "none")) == {}


def test_one_logit_for_three_classes_is_found():
    failed = failures(model_checks(), lambda: TinyModel(TinyOptions(one_logit=True)))
    assert list(failed) == ["logits_three_channels_odd_size"]


def test_a_model_may_refuse_images_but_not_all():
    class Picky(TinyModel):
        def build(self, info):
            if info.channels > self.most:
                raise UserError("too many channels")
            return super().build(info)

    class OneChannel(Picky):
        most = 1

    class NoChannel(Picky):
        most = 0

    assert failures(model_checks(), OneChannel) == {}
    assert "refuses every scenario" in failures(model_checks(), NoChannel)["builds_a_scenario"]


# --- datasets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"masks": False}, {"channels": 3, "classes": 3, "width": 17, "removal": True}])
def test_fake_datasets_pass(options):
    assert failures(dataset_checks(), lambda: FakeDataset(FakeOptions(**options))) == {}


class Faulty(FakeDataset):
    """A fault of choice in a good dataset."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    @property
    def info(self):
        info = super().info
        changed = {
            "spacing": {"spacing": (1.0,)},
            "removal": {"removal": (0.0, 2.0)},
            "licence": {"licence": ""},
            "no masks": {"has_masks": False},
        }
        return dataclasses.replace(info, **changed.get(self.fault, {}))

    def _draw(self, split, index):
        image, mask = super()._draw(split, index)
        return (image * 255 if self.fault == "range" else image), mask

    def prepare(self, folder, session):
        super().prepare(folder, session)
        if self.fault == "bytes":
            (folder / "stamp").write_bytes(random.randbytes(8))

    def load(self, split, folder):
        loaded = super().load(split, folder)
        images, masks = np.load(folder / f"{split}-images.npy"), np.load(folder / f"{split}-masks.npy")
        if self.fault == "dtype":
            images = images.astype(np.float64)
        if self.fault == "mask dtype":
            masks = masks.astype(np.uint8)
        if self.fault == "size":
            images = images[..., 1:]
        groups = loaded.groups
        if self.fault == "patients":
            groups = [name.removeprefix(f"{split}-") for name in groups]
        ids = [name.removeprefix(f"{split}-") for name in loaded.ids] if self.fault == "ids" else loaded.ids
        labels = loaded.labels + 1 if self.fault == "labels" else loaded.labels
        has_mask = np.zeros(len(images), dtype=bool) if self.fault == "has_mask" else None
        made = Split.from_arrays(images, labels, ids, groups, masks, has_mask)
        return Jittery(made) if self.fault == "jitter" else made


class Jittery:
    """A map-style dataset that augments at random where it should only read."""

    def __init__(self, split):
        self._split = split

    def __len__(self):
        return len(self._split)

    def __getitem__(self, index):
        from xbench import Sample

        batch = self._split.batch([index])
        image = (batch.images[0] * random.uniform(0.9, 1)).clamp(0, 1)
        return Sample(image, int(batch.labels[0]), batch.ids[0], batch.groups[0], batch.masks[0])


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        ("spacing", "info", "info.spacing is (1.0,)"),
        ("removal", "info", "intensities lie in [0, 1]"),
        ("licence", "info", "info.licence is empty"),
        ("no masks", "samples_test", "has_masks is False"),
        ("size", "samples_train", "info says"),
        ("range", "samples_train", "scale to [0, 1]"),
        ("dtype", "samples_train", "give float32"),
        ("mask dtype", "samples_train", "give bool"),
        ("has_mask", "samples_train", "pixels set in its mask"),
        ("labels", "samples_train", "no sample of class disk"),
        ("ids", "ids_unique", "sample ids occur twice"),
        ("patients", "patients_disjoint", "in both train and validation"),
        ("jitter", "batches_agree", "images of a sample differ"),
        ("bytes", "prepares_the_same_bytes", "other bytes into stamp"),
    ],
)
def test_faults_of_datasets_are_found(fault, name, message):
    assert message in failures(dataset_checks(), functools.partial(Faulty, fault))[name]


# --- the runner, the fakes ------------------------------------------------------------------------------------------


class Unexpected(GoodExplainer):
    def supports(self, model, info):
        raise KeyError("missing")


def test_check_reports_every_result_and_raises_none(monkeypatch):
    good = ExplainerSpec("good", "the gradient", factory="xbench.testing.fakes:GoodExplainer")
    monkeypatch.setattr(fakes, "GoodExplainer", GoodExplainer, raising=False)
    results = check(good)
    assert [result.name for result in results] == [name for name, _ in explainer_checks()]
    assert all(result.passed and not result.message and result.seconds >= 0 for result in results)
    monkeypatch.setattr(fakes, "GoodExplainer", Unexpected)
    assert {result.message for result in check(good)} == {"KeyError: 'missing'"}


@pytest.mark.parametrize("spec", [*fakes.xbench_datasets(), *fakes.xbench_models()], ids=lambda spec: spec.name)
def test_fakes_pass_as_plugins(spec):
    assert [result for result in check(spec) if not result.passed] == []


def test_options_reach_the_plugin_and_wrong_ones_are_refused():
    (spec,) = fakes.xbench_datasets()
    assert len(list(checks_for(spec, size=16))) == len(list(dataset_checks()))
    with pytest.raises(UserError, match="dataset fake has no option 'sise'"):
        list(checks_for(spec, sise=16))
    with pytest.raises(PluginError, match="can't import"):
        list(checks_for(MetricSpec("lost", "not there", factory="xbench.nowhere:Lost")))


def test_importing_the_checks_imports_no_torch():
    code = "import sys, xbench.testing.fakes; sys.exit(bool({'torch', 'pytest'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_fakes_register_as_a_plugin():
    manager = pluggy.PluginManager("xbench")
    manager.add_hookspecs(hookspecs)
    manager.register(fakes)
    manager.check_pending()
    assert [spec.name for found in manager.hook.xbench_datasets() for spec in found] == ["fake"]


def test_the_masks_of_the_fake_dataset_hold_the_evidence(tmp_path):
    dataset = FakeDataset(FakeOptions(classes=3, train=12))
    dataset.prepare(tmp_path, Session(tmp_path))
    batch = dataset.open("train", tmp_path).batch(range(12))
    inside = [len(image[0][mask].unique()) for image, mask in zip(batch.images, batch.masks, strict=True)]
    assert set(inside) == {1}  # one intensity inside, whatever the class: only the shape tells
    areas = batch.masks.flatten(1).double().mean(1)
    assert 0 < areas.min() <= areas.max() < 0.2
    assert set(batch.labels.tolist()) == {0, 1, 2}


def test_the_tiny_model_learns_the_fake_dataset(tmp_path):
    dataset = FakeDataset(FakeOptions(train=96, validation=48, test=48))
    session = Session(tmp_path)
    dataset.prepare(tmp_path, session)
    model = TinyModel()
    with isolated(0):
        module = model.build(dataset.info)
    train_classifier(
        module, dataset.open("train", tmp_path), dataset.open("validation", tmp_path), model.options, session
    )
    logits, labels = predict(module, dataset.open("test", tmp_path), session)
    assert (logits.argmax(1) == labels).double().mean() >= 0.9
