"""The conformance checks of a plugin's items, run one by one or as pytest tests."""

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
"""Function of a factory of new plugin instances. It raises an AssertionError that names the fix."""


@dataclass(frozen=True)
class CheckResult:
    """One check of one plugin item.

    Attributes:
        name: Name of the check.
        passed: Whether the check passed.
        message: Fault to fix; empty if the check passed.
        seconds: Duration of the check in seconds.
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
    """Yield the checks of one item, each with its name and ready to call without arguments.

    Args:
        spec: The item's record.
        argument: Argument of the item, if it takes one ("resnet18" in `timm:resnet18`).
        scenarios: Scenarios for an explainer that needs its own kind of model; by default `default_scenarios()`.
        options: Options other than the defaults. Give trained plugins few epochs.

    Raises:
        PluginError: The item can't be imported.
        UserError: An option is wrong.
    """
    factory_of = spec.load()
    parsed = parse_options(spec.load_options(), options, f"{spec.kind} {spec.name}")

    def factory() -> Any:
        return factory_of(parsed) if isinstance(spec, DatasetSpec) else factory_of(parsed, argument)

    checks = explainer_checks(scenarios) if isinstance(spec, ExplainerSpec) else _CHECKS[type(spec)]()
    for name, single in checks:
        yield name, _bound(single, factory)


def check(
    spec: Spec, argument: str = "", scenarios: Sequence[Scenario] | None = None, **options: Any
) -> list[CheckResult]:
    """Run every check of an item and return the results. Failures are not raised. Arguments as for `checks_for`."""
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
    """Return a pytest decorator for one test per item and check. The test calls its argument `check` without arguments.

    Args:
        specs: The records that the plugin's hooks yield.
        options: Options of all items, by default none.
    """
    import pytest

    cases = [pytest.param(run, id=f"{spec.name}-{name}") for spec in specs for name, run in checks_for(spec, **options)]
    return pytest.mark.parametrize("check", cases)


def _bound(single: Check, factory: Callable[[], Any]) -> Callable[[], None]:
    return lambda: single(factory)
