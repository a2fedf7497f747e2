"""Run the conformance checks of whatever a plugin brings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.contracts.options import parse_options
from xbench.contracts.specs import DatasetSpec, ExplainerSpec, MetricSpec, ModelSpec, Spec
from xbench.errors import XbenchError
from xbench.testing.dataset_checks import dataset_checks
from xbench.testing.explainer_checks import explainer_checks
from xbench.testing.metric_checks import metric_checks
from xbench.testing.model_checks import model_checks
from xbench.testing.scenarios import Scenario

Check = Callable[[Callable[[], Any]], None]
"""Takes a factory of fresh plugin instances, called without arguments; raises AssertionError, naming the fix."""


@dataclass(frozen=True)
class CheckResult:
    """One check of one plugin item.

    Attributes:
        name: Of the check.
        passed: Whether it holds.
        message: What to fix; empty where it holds.
        seconds: How long it took.
    """

    name: str
    passed: bool
    message: str
    seconds: float


_CHECKS: dict[type[Spec], Callable[[], Iterable[tuple[str, Check]]]] = {
    DatasetSpec: dataset_checks,
    ModelSpec: model_checks,
    MetricSpec: metric_checks,
}


def checks_for(
    spec: Spec, argument: str = "", scenarios: Sequence[Scenario] | None = None, **options: Any
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of one item, each ready to call without arguments.

    Args:
        spec: What the plugin hands over.
        argument: For items that take one ("resnet18" of `timm:resnet18`).
        scenarios: For an explainer that needs a model of its own kind; `default_scenarios()` where none are given.
        options: Other than the defaults: give trained plugins few epochs.

    Raises:
        PluginError: The item can't be imported.
        UserError: An option is wrong.
    """
    factory_of = spec.load()
    parsed = parse_options(spec.load_options(), options, f"{spec.kind} {spec.name}")

    def factory() -> Any:
        return factory_of(parsed) if isinstance(spec, DatasetSpec) else factory_of(parsed, argument)

    checks = explainer_checks(scenarios) if isinstance(spec, ExplainerSpec) else _CHECKS[type(spec)]()
    for name, one in checks:
        yield name, _bound(one, factory)


def check(
    spec: Spec, argument: str = "", scenarios: Sequence[Scenario] | None = None, **options: Any
) -> list[CheckResult]:
    """Run every check of an item; what fails is in the results, not raised (arguments as for `checks_for`)."""
    results = []
    for name, run in checks_for(spec, argument, scenarios, **options):
        start = time.perf_counter()
        message = ""
        try:
            run()
        except (AssertionError, XbenchError) as error:
            message = str(error)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        results.append(CheckResult(name, not message, message, time.perf_counter() - start))
    return results


def parametrize_with_checks(specs: Iterable[Spec], **options: Any) -> Any:
    """A pytest decorator: one test per item and check, under the argument `check`, to be called without arguments.

    Args:
        specs: What the plugin's hooks yield.
        options: Of all of them; none for the defaults.
    """
    import pytest

    cases = [pytest.param(run, id=f"{spec.name}-{name}") for spec in specs for name, run in checks_for(spec, **options)]
    return pytest.mark.parametrize("check", cases)


def _bound(one: Check, factory: Callable[[], Any]) -> Callable[[], None]:
    return lambda: one(factory)
