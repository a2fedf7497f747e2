"""Seconds, passes and memory of each explainer on a dataset and model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xbench.report.page.draft import Draft
from xbench.report.page.facts import seconds
from xbench.report.page.panel import Panel
from xbench.report.page.places import Place

if TYPE_CHECKING:
    from xbench.comparison import Run


class CostPanel(Panel):
    """A table of each explainer's cost."""

    name = "cost"
    title = "Cost"

    def of_place(self, draft: Draft, place: Place) -> list[dict[str, Any]]:
        """Return the cost of each explainer."""
        return cost(place, draft.comparison.runs)


def cost(place: Place, runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return seconds, and images passed through the classifier for the maps of all samples, by explainer."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        facts = {one.get("name"): one.get("map_facts") or {} for one in run.header.explainers}
        for row in run.rows:
            if (row.dataset, row.model, row.status) != (place.dataset, place.model, "ok"):
                continue
            entry = found.setdefault(row.explainer, {"e": row.explainer, "c": row.control, "metrics": {}})
            entry["fit"], entry["maps"] = seconds(row.seconds_fit), seconds(row.seconds_maps)
            entry["metrics"][row.metric, row.sign] = seconds(row.seconds_metric)
            passes = facts.get(row.explainer, {})
            entry["forward"], entry["backward"] = passes.get("forward_passes"), passes.get("backward_passes")
            entry["bytes"] = passes.get("peak_bytes")
    return [entry | {"metrics": sum(entry["metrics"].values())} for entry in found.values()]
