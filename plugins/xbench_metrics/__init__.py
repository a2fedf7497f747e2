"""Metrics: what a map is worth, measured on the model it explains.

Each family lists its metrics in its own folder: `<family>/specs.py`. Metrics that are one module are in `specs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from xbench import MetricSpec, hookimpl
from xbench_metrics import specs as single
from xbench_metrics.checks import specs as checks
from xbench_metrics.concordance import specs as concordance
from xbench_metrics.fidelity import specs as fidelity
from xbench_metrics.retraining import specs as retraining


@hookimpl
def xbench_metrics() -> Iterable[MetricSpec]:
    """Return the metrics of all families."""
    for family in (fidelity, concordance, checks, retraining, single):
        yield from family.SPECS
