"""The conformance checks of models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xbench.contracts.model import Model, class_scores
from xbench.errors import UserError
from xbench.runtime.randomness import isolated
from xbench.testing.scenarios import Scenario, default_scenarios, fresh

if TYPE_CHECKING:
    import torch
    from torch import nn

_TOLERANCE = 1e-4


def model_checks(scenarios: Sequence[Scenario] | None = None) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield the checks of a model: (name, check), where check takes an instance or a factory without arguments.

    Scenarios whose images `build` refuses with a UserError are skipped, but it must accept at least one.

    Args:
        scenarios: Scenarios for the images; by default `default_scenarios()`. Their own models are not used.
    """
    scenarios = default_scenarios() if scenarios is None else scenarios
    yield "builds_a_scenario", functools.partial(_builds, scenarios)
    for scenario in scenarios:
        yield f"logits_{scenario.name}", functools.partial(_logits, scenario)
    for check in (_gradient_reaches_input, _deterministic, _independent_of_batch, _reproducible):
        yield check.__name__.removeprefix("_"), functools.partial(_on_first, scenarios, check)


def _built(scenario: Scenario, subject: Any) -> nn.Module | None:
    """Return the module in eval mode, or None if the model refuses the scenario's images."""
    from torch import nn

    model = fresh(subject, Model)
    try:
        with isolated(0, "build"):
            module = model.build(scenario.info)
    except UserError:
        return None
    assert isinstance(module, nn.Module), f"build() gave a {type(module).__name__}: give a torch.nn.Module"
    return module.eval()


def _images(scenario: Scenario) -> torch.Tensor:
    return scenario.split("test").batch(range(4)).images


def _on_first(scenarios: Sequence[Scenario], check: Callable[[Scenario, nn.Module, Any], None], subject: Any) -> None:
    for scenario in scenarios:
        module = _built(scenario, subject)
        if module is not None:
            check(scenario, module, subject)
            return
    _builds(scenarios, subject)


def _builds(scenarios: Sequence[Scenario], subject: Any) -> None:
    built = any(_built(scenario, subject) is not None for scenario in scenarios)
    assert built, "build() refuses every scenario: pass model_checks(scenarios=...) with images that it can classify"


def _logits(scenario: Scenario, subject: Any) -> None:
    import torch

    module = _built(scenario, subject)
    if module is None:
        return
    with torch.inference_mode():
        logits = module(_images(scenario))
    classes = len(scenario.info.classes)
    assert isinstance(logits, torch.Tensor), f"the module gives a {type(logits).__name__}: give logits (N, K), a tensor"
    allowed = [(4, classes)] + ([(4, 1)] if classes == 2 else [])
    assert tuple(logits.shape) in allowed, (
        f"the module gives logits of shape {tuple(logits.shape)} for 4 images of {classes} classes: "
        f"give {' or '.join(map(str, allowed))}"
    )
    assert bool(torch.isfinite(logits).all()), "the module gives NaN or infinity for images in [0, 1]"


def _gradient_reaches_input(scenario: Scenario, module: nn.Module, subject: Any) -> None:
    import torch

    del subject
    images = _images(scenario).clone().requires_grad_()
    scores = class_scores(module(images.clone()))  # not a leaf, because another check finds in-place changes
    advice = "no detach, no_grad, rounding or numpy between images and logits: gradient explainers need the path"
    assert scores.requires_grad, f"the logits do not depend on the images for autograd: {advice}"
    gradient = torch.autograd.grad(scores[:, 0].sum(), images, allow_unused=True, materialize_grads=True)[0]
    assert bool((gradient != 0).any()), f"the gradient at the images is zero: {advice}"


def _deterministic(scenario: Scenario, module: nn.Module, subject: Any) -> None:
    import torch

    del subject
    state = {name: value.clone() for name, value in module.state_dict().items()}
    images = _images(scenario)
    given = images.clone()
    with torch.inference_mode():
        first, second = module(given), module(images.clone())
    assert torch.equal(given, images), "a pass changes the images in place: write x = x - mean instead of x -= mean"
    assert torch.equal(first, second), "two passes in eval mode give different logits: switch off dropout and noise"
    after = module.state_dict()
    changed = [name for name, value in state.items() if not torch.equal(value, after[name])]
    assert not changed, f"a pass in eval mode changed {', '.join(changed)}: it must change nothing"


def _independent_of_batch(scenario: Scenario, module: nn.Module, subject: Any) -> None:
    import torch

    del subject
    images = _images(scenario)
    with torch.inference_mode():
        together, alone = module(images), torch.cat([module(image[None]) for image in images])
    difference = float((together - alone).abs().max() / together.abs().max().clamp(min=1e-30))
    assert difference <= _TOLERANCE, (
        f"an image's logits change with the other images of the batch (relative difference {difference:.1e}): "
        "normalise per image or by running statistics"
    )


def _reproducible(scenario: Scenario, module: nn.Module, subject: Any) -> None:
    import torch

    again = _built(scenario, subject)
    assert again is not None
    after = again.state_dict()
    assert after.keys() == module.state_dict().keys(), "two builds with the same seed have other weights by name"
    for name, value in module.state_dict().items():
        assert torch.equal(value, after[name]), (
            f"{name} differs between two builds with the same seed: initialise from torch's global generator only"
        )
