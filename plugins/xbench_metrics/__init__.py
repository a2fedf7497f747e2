"""Metrics: what a map is worth, measured on the model it explains."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import MetricSpec, hookimpl


@hookimpl
def xbench_metrics() -> Iterable[MetricSpec]:
    """The metrics of this plugin."""
    yield MetricSpec(
        "fidelity",
        "area between the accuracy curves of removing the least and the most important pixels first",
        factory="xbench_metrics.fidelity:Fidelity",
        options="xbench_metrics.options:FidelityOptions",
        reference="Brocki et al., section 3.1",
    )
