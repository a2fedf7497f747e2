"""The record of the fidelity metric, importable without torch."""

from __future__ import annotations

from xbench import MetricSpec

SPECS = (
    MetricSpec(
        "fidelity",
        "area between the accuracy curves of removing the least and the most important pixels first",
        factory="xbench_metrics.fidelity.fidelity:Fidelity",
        options="xbench_metrics.fidelity.options:FidelityOptions",
        reference="Brocki et al., section 3.1",
    ),
)
