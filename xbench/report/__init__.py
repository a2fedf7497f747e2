"""Figures, tables and pages made from a run's results alone, without torch and without the plugins that made them.

The names below are imported on first use, so that matplotlib and rich are loaded only by those who draw.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "GalleryItem": "overlays",
    "Overlay": "overlays",
    "agreement_chart": "agreement",
    "beside_tables": "beside",
    "calibration_chart": "calibration",
    "class_views": "views",
    "counterfactual_strips": "counterfactuals",
    "gallery": "overlays",
    "perturbation_curves": "curves",
    "score_chart": "scores",
    "score_tables": "table",
    "training_curves": "curves",
}

__all__ = [
    "GalleryItem",
    "Overlay",
    "agreement_chart",
    "beside_tables",
    "calibration_chart",
    "class_views",
    "counterfactual_strips",
    "gallery",
    "perturbation_curves",
    "score_chart",
    "score_tables",
    "training_curves",
]

if TYPE_CHECKING:
    from xbench.report.agreement import agreement_chart as agreement_chart
    from xbench.report.beside import beside_tables as beside_tables
    from xbench.report.calibration import calibration_chart as calibration_chart
    from xbench.report.counterfactuals import counterfactual_strips as counterfactual_strips
    from xbench.report.curves import perturbation_curves as perturbation_curves
    from xbench.report.curves import training_curves as training_curves
    from xbench.report.overlays import GalleryItem as GalleryItem
    from xbench.report.overlays import Overlay as Overlay
    from xbench.report.overlays import gallery as gallery
    from xbench.report.scores import score_chart as score_chart
    from xbench.report.table import score_tables as score_tables
    from xbench.report.views import class_views as class_views


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'xbench.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"xbench.report.{_PUBLIC[name]}"), name)
