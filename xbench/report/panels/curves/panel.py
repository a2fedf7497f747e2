"""The curves of each explainer on a dataset and model, and their figures."""

from __future__ import annotations

from typing import Any

from xbench.report.curves import curve_styles, perturbation_curves
from xbench.report.page.draft import FIGURES, KINDS, Draft, Files
from xbench.report.page.panel import Panel
from xbench.report.page.places import Place
from xbench.results.curves import CurveTable
from xbench.results.naming import file_name


class CurvesPanel(Panel):
    """Curves of all metrics that have any."""

    name = "curves"
    title = "Curves"

    def of_place(self, draft: Draft, place: Place) -> list[dict[str, Any]]:
        """Return the curves of all metrics and signs, each with the look that it has in the figure too."""
        return [curve_data(table) | {"files": _figure(draft, place, table)} for table in place.curves]


def curve_data(table: CurveTable) -> dict[str, Any]:
    """Return the curves of one metric and sign; `look` is 0 to 3, as `curve_styles` says."""
    return {
        "metric": table.metric,
        "sign": table.sign,
        "x": table.x_label,
        "y": table.y_label,
        "series": [
            {"e": one.label, "c": one.control, "x": one.x, "y": dict(one.curves), "look": curve_styles(one)}
            for one in table.series
        ],
    }


def _figure(draft: Draft, place: Place, table: CurveTable) -> Files:
    if not draft.figures:
        return {}
    stem = draft.folder / FIGURES / file_name("curves", place.dataset, place.model, table.metric, table.sign)
    title = f"{table.metric} on {place.title}" + ("" if table.sign == "original" else ", absolute values")
    return draft.files(perturbation_curves(stem, title, table.series, table.x_label, table.y_label, KINDS))
