"""Metrics: how good is a map, measured on the model that it explains?

Each family lists its metrics in its own folder: `<family>/specs.py`. Metrics that are one module are in `specs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from xbench import MetricSpec, hookimpl
from xbench_metrics.checks.specs import SPECS as CHECKS
from xbench_metrics.concordance.specs import SPECS as CONCORDANCE
from xbench_metrics.fidelity.specs import SPECS as FIDELITY
from xbench_metrics.retraining.specs import SPECS as RETRAINING
from xbench_metrics.specs import SPECS as SINGLE


@hookimpl
def xbench_metrics() -> Iterable[MetricSpec]:
    """Return the metrics of all families."""
    for family in (FIDELITY, CONCORDANCE, CHECKS, RETRAINING, SINGLE):
        yield from family
