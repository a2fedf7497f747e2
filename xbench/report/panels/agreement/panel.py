"""Rank correlations between the metrics of a dataset and model, and their figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xbench.report.agreement import agreement_chart
from xbench.report.page.draft import FIGURES, KINDS, Draft
from xbench.report.page.panel import Panel
from xbench.report.page.places import Place

if TYPE_CHECKING:
    from xbench.comparison import MetricAgreement
    from xbench.statistics.agreement import Correlation


class AgreementPanel(Panel):
    """A heat table and all pairs of metrics, for each sign of maps."""

    name = "agreement"
    title = "Do the metrics agree?"
    link = "Agreement"

    def of_place(self, draft: Draft, place: Place) -> list[dict[str, Any]]:
        """Return the correlations of all pairs of metrics, by sign."""
        found = []
        for agreement in place.agreements:
            paths = agreement_chart(draft.folder / FIGURES, agreement, KINDS) if draft.figures else []
            found.append(_data(agreement) | {"files": draft.files(paths)})
        return found


def _data(found: MetricAgreement) -> dict[str, Any]:
    return {
        "place": found.place,
        "sign": found.setting.sign,
        "metrics": found.metrics,
        "pairs": [
            {
                "a": found.metrics.index(pair.first),
                "b": found.metrics.index(pair.second),
                "n": pair.explainers,
                "rho": _correlation(pair.spearman),
                "tau": _correlation(pair.kendall),
            }
            for pair in found.pairs
        ],
    }


def _correlation(found: Correlation) -> list[float]:
    return [found.value, found.low, found.high, found.p]
