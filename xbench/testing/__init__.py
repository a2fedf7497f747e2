"""Conformance checks for plugin authors, and tiny fakes to test with.

In a plugin's tests:

    import xbench.testing
    from my_package import xbench_explainers

    @xbench.testing.parametrize_with_checks(xbench_explainers())
    def test_conformance(check):
        check()

Importing this package imports no torch.
"""

from xbench.testing.checks import CheckResult, check, checks_for, parametrize_with_checks
from xbench.testing.dataset_checks import dataset_checks
from xbench.testing.explainer_checks import explainer_checks
from xbench.testing.metric_checks import metric_checks
from xbench.testing.model_checks import model_checks
from xbench.testing.scenarios import Scenario, default_scenarios

__all__ = [
    "CheckResult",
    "Scenario",
    "check",
    "checks_for",
    "dataset_checks",
    "default_scenarios",
    "explainer_checks",
    "metric_checks",
    "model_checks",
    "parametrize_with_checks",
]
