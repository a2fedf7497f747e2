"""The conformance checks of explainers."""

from __future__ import annotations

import dataclasses
import functools
import gc
import pickle
import random
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.contracts.explainer import Explainer, MapTransform
from xbench.contracts.samples import Batch
from xbench.contracts.session import Session
from xbench.errors import PluginError
from xbench.testing.scenarios import Scenario, default_scenarios, folder_of, fresh

if TYPE_CHECKING:
    import torch
    from torch import nn

_TOLERANCE = 1e-5
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_fitted: weakref.WeakKeyDictionary[Any, dict[Scenario, Path]] = weakref.WeakKeyDictionary()


def explainer_checks(
    scenarios: Sequence[Scenario] | None = None,
) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield the checks of an explainer: (name, check), where check takes an instance or a factory without arguments.

    Scenarios that the explainer's `supports` refuses are skipped, but it must accept at least one. Trained explainers
    are trained once per scenario, so let the factory use options for a short training.

    Args:
        scenarios: Datasets and models to explain; by default `default_scenarios()`.
    """
    scenarios = default_scenarios() if scenarios is None else scenarios
    yield "supports_a_scenario", functools.partial(_supports, scenarios)
    for scenario in scenarios:
        yield f"maps_{scenario.name}", functools.partial(_maps, scenario)
    leaves = (_leaves_model, _leaves_inputs, _leaves_generators, _leaves_nothing_behind)
    for check in (_deterministic, _independent_of_batch, _targets, *leaves):
        yield check.__name__.removeprefix("_"), functools.partial(_on_first, scenarios, check)
    yield "restores", functools.partial(_on_first, scenarios, _restores)
    yield "transfers", functools.partial(_on_first, scenarios, _transfers)


@dataclasses.dataclass
class _Trial:
    """A ready explainer with a model and a batch."""

    explainer: Explainer
    scenario: Scenario
    module: nn.Module
    batch: Batch
    targets: torch.Tensor

    def explain(self, batch: Batch, targets: torch.Tensor, module: nn.Module | None = None) -> torch.Tensor:
        """Return maps as the harness makes them."""
        try:
            if isinstance(self.explainer, MapTransform):
                return self.explainer.checked_transform(_inner_maps(batch), batch, "under test")
            return self.explainer.explain(module or self.module, batch, targets, "under test")
        except PluginError as error:
            raise AssertionError(str(error)) from error

    def attribute(self, batch: Batch, targets: torch.Tensor) -> None:
        """Call the author's method without the harness, which would clean up after it."""
        ready = self.explainer.ready(batch)
        if isinstance(self.explainer, MapTransform):
            self.explainer.transform_batch(_inner_maps(batch), ready)
        else:
            self.explainer.attribute_batch(self.module, ready, targets)


def _inner_maps(batch: Batch) -> torch.Tensor:
    from xbench.runtime.randomness import uniform_field

    return uniform_field(batch.seeds, batch.images.shape[2:]) - 0.5


def _trial(scenario: Scenario, subject: Any) -> _Trial | None:
    """Return a trial of the scenario, or None if the explainer refuses it."""
    import torch

    explainer, module = fresh(subject, Explainer), scenario.module()
    if explainer.supports(module, scenario.info) is not None:
        return None
    if explainer.trained:
        explainer.restore(_training(scenario, subject), module, scenario.info, "cpu")
    batch = scenario.split("test").batch(range(5))
    targets = torch.arange(len(batch)) % len(scenario.info.classes)
    return _Trial(explainer, scenario, module, batch, targets)


def _training(scenario: Scenario, subject: Any) -> Path:
    """Return the folder of an explainer trained in this scenario, which is kept as long as its factory."""
    folders = _fitted.setdefault(subject, {})
    if scenario not in folders:
        folder = folder_of(subject)
        train, validation = scenario.split("train"), scenario.split("validation")
        session = Session(folder, batch_size=8)
        fresh(subject, Explainer).fit(scenario.module(), train, validation, scenario.info, session)
        folders[scenario] = folder
    return folders[scenario]


def _on_first(scenarios: Sequence[Scenario], check: Callable[[_Trial, Any], None], subject: Any) -> None:
    for scenario in scenarios:
        trial = _trial(scenario, subject)
        if trial is not None:
            check(trial, subject)
            return
    _supports(scenarios, subject)


def _supports(scenarios: Sequence[Scenario], subject: Any) -> None:
    reasons = []
    for scenario in scenarios:
        reason = fresh(subject, Explainer).supports(scenario.module(), scenario.info)
        assert reason is None or (isinstance(reason, str) and reason), (
            f"supports() gave {reason!r}: return None, or the reason why not in words"
        )
        reasons.append(reason)
    assert None in reasons, (
        f"supports() refuses every scenario ({'; '.join(map(str, reasons))}): "
        "pass explainer_checks(scenarios=...) with a model that it can explain"
    )


def _maps(scenario: Scenario, subject: Any) -> None:
    import torch

    trial = _trial(scenario, subject)
    if trial is None:
        return
    maps = trial.explain(trial.batch, trial.targets)
    expected = (len(trial.batch), *trial.batch.images.shape[2:])
    assert tuple(maps.shape) == expected, f"maps have shape {tuple(maps.shape)}: give {expected}"
    assert maps.is_floating_point(), f"maps are {maps.dtype}: give floating point"
    assert bool(torch.isfinite(maps).all()), "maps hold NaN or infinity: guard the divisions"


def _deterministic(trial: _Trial, subject: Any) -> None:
    del subject
    first = trial.explain(trial.batch, trial.targets)
    again = trial.explain(trial.batch, trial.targets)
    _assert_same(
        first, again, "two calls give different maps: draw from batch.seeds (xbench.runtime.seeding), keep no state"
    )


def _independent_of_batch(trial: _Trial, subject: Any) -> None:
    del subject
    whole = trial.explain(trial.batch, trial.targets)
    advice = "normalise and draw per image (batch.seeds), never over the batch"
    order = list(reversed(range(len(trial.batch))))
    turned = trial.explain(trial.scenario.split("test").batch(order), trial.targets[order])
    _assert_same(whole, turned.flip(0), f"a map changes with the order of the batch: {advice}")
    for index in range(2):
        alone = trial.explain(trial.scenario.split("test").batch([index]), trial.targets[index : index + 1])
        _assert_same(whole[index : index + 1], alone, f"a map changes with the other images of the batch: {advice}")


def _targets(trial: _Trial, subject: Any) -> None:
    import torch

    del subject
    mixed = trial.explain(trial.batch, trial.targets)
    for target in range(len(trial.scenario.info.classes)):
        maps = trial.explain(trial.batch, torch.full_like(trial.targets, target))
        where = trial.targets == target
        message = f"the map for class {target} changes with the targets of the other images: use targets per image"
        _assert_same(mixed[where], maps[where], message)


def _leaves_model(trial: _Trial, subject: Any) -> None:
    del subject
    before = _model_state(trial.module)
    for training in (False, True):
        trial.module.train(training)
        before["modes"] = _modes(trial.module)
        if training:
            trial.explain(trial.batch, trial.targets)
        else:
            trial.attribute(_private(trial.batch), trial.targets)
        after = _model_state(trial.module)
        for part, value in before.items():
            assert _equal(value, after[part]), (
                f"the model's {part} are not as they were: undo every change to the model, or work on a copy of it"
            )


def _leaves_inputs(trial: _Trial, subject: Any) -> None:
    del subject
    before, targets = _private(trial.batch), trial.targets.clone()
    trial.explain(trial.batch, trial.targets)
    for name in ("images", "labels", "masks", "has_mask", "seeds"):
        same = getattr(before, name).equal(getattr(trial.batch, name))
        assert same, f"batch.{name} was changed in place: work on a copy"
    assert targets.equal(trial.targets), "targets were changed in place: work on a copy"


def _leaves_generators(trial: _Trial, subject: Any) -> None:
    import torch

    del subject
    before = torch.get_rng_state(), pickle.dumps(np.random.get_state()), pickle.dumps(random.getstate())
    trial.attribute(_private(trial.batch), trial.targets)
    after = torch.get_rng_state(), pickle.dumps(np.random.get_state()), pickle.dumps(random.getstate())
    advice = "draw from batch.seeds, or from a generator of your own (xbench.runtime.seeding)"
    assert torch.equal(before[0], after[0]), f"torch's global generator was drawn from: {advice}"
    assert before[1] == after[1], f"numpy's global generator was drawn from: {advice}"
    assert before[2] == after[2], f"Python's global generator was drawn from: {advice}"


def _leaves_nothing_behind(trial: _Trial, subject: Any) -> None:
    """Check that memory does not grow with the number of explained images.

    Tensors that one call keeps for the next do not count as growth.
    """
    del subject
    trial.explain(trial.batch, trial.targets)
    gc.freeze()  # objects from before are not searched
    try:
        kept = []
        for calls in (1, 3):
            for _ in range(calls):
                trial.explain(trial.batch, trial.targets)
            gc.collect()
            kept.append(_tensors())
    finally:
        gc.unfreeze()
    (once, _), (often, size) = kept
    assert often <= once, (
        f"calls leave tensors behind ({often - once} after 3 calls, {size / 2**20:.1f} MB in all): a hook or a context "
        "that keeps an operation's own result keeps it alive for ever; keep result.detach()"
    )


def _tensors() -> tuple[int, int]:
    """Return the number of tensors that the garbage collector knows, and their bytes."""
    import torch

    sizes = [known.nbytes for known in gc.get_objects() if issubclass(type(known), torch.Tensor)]
    return len(sizes), sum(sizes)


def _restores(trial: _Trial, subject: Any) -> None:
    if not trial.explainer.trained:
        return
    assert not isinstance(subject, Explainer), "give the checks of a trained explainer a factory, not an instance"
    module = trial.scenario.module()
    before = _model_state(module)
    with tempfile.TemporaryDirectory(prefix="xbench-checks-") as folder:
        explainer = fresh(subject, Explainer)
        session = Session(Path(folder), batch_size=8)
        train, validation = trial.scenario.split("train"), trial.scenario.split("validation")
        explainer.fit(module, train, validation, trial.scenario.info, session)
        again = fresh(subject, Explainer)
        again.restore(Path(folder), module, trial.scenario.info, "cpu")
    for part in ("weights and buffers", "gradients", "hooks", "modules"):
        assert _equal(before[part], _model_state(module)[part]), f"fit changed the model's {part}: train a copy"
    maps = trial.explain(trial.batch, trial.targets)
    restored = dataclasses.replace(trial, explainer=again).explain(trial.batch, trial.targets)
    message = "a second training with the same seed, restored, gives other maps: write all state in fit, seed all draws"
    _assert_same(maps, restored, message)
    if trial.explainer.self_explaining:
        rows = len(again.classifier()(trial.batch.images))
        assert rows == len(trial.batch), f"classifier() gives {rows} rows of logits for {len(trial.batch)} images"


def _transfers(trial: _Trial, subject: Any) -> None:
    import torch

    del subject
    if not trial.explainer.transfers:
        return
    changed = trial.explainer.transfer(trial.module, trial.batch.images.clone(), trial.targets)
    assert changed.shape == trial.batch.images.shape, (
        f"transfer() gave images of shape {tuple(changed.shape)}: give {tuple(trial.batch.images.shape)}"
    )
    assert bool(torch.isfinite(changed).all()), "transfer() gave NaN or infinity"


def _private(batch: Batch) -> Batch:
    tensors = ("images", "labels", "masks", "has_mask", "seeds")
    return dataclasses.replace(batch, **{name: getattr(batch, name).clone() for name in tensors})


def _modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def _model_state(module: nn.Module) -> dict[str, Any]:
    """Return the state that an explainer must leave unchanged, by the names used in messages."""
    return {
        "weights and buffers": {name: value.detach().clone() for name, value in module.state_dict().items()},
        "modules": [(name, id(part)) for name, part in module.named_modules()],
        "modes": _modes(module),
        "hooks": [list(getattr(part, table)) for part in module.modules() for table in _HOOKS],
        "requires_grad flags": [parameter.requires_grad for parameter in module.parameters()],
        "gradients": [parameter.grad is None for parameter in module.parameters()],
    }


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(value.equal(after[key]) for key, value in before.items())
    return bool(before == after)


def _assert_same(first: torch.Tensor, second: torch.Tensor, message: str) -> None:
    """Assert equality up to 1e-5 of the first's largest value, which covers the rounding of a batched convolution."""
    if first.numel():
        scale = max(float(first.abs().max()), 1e-30)
        difference = float((first - second).abs().max()) / scale
        assert difference <= _TOLERANCE, f"{message} (relative difference {difference:.1e})"
