"""The metric cards, which say what the numbers mean, and the results that they keep apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xbench.report.page.draft import Draft
from xbench.report.page.facts import flat
from xbench.report.page.panel import Panel, Section

if TYPE_CHECKING:
    from xbench.comparison import Run


class CardsPanel(Panel):
    """The metric cards of all rows on the page."""

    name = "cards"
    title = "What the numbers mean"
    link = "Metrics"

    def section(self, draft: Draft) -> Section:
        """Return the cards, and the results that they keep apart."""
        return Section({"cards": _cards(draft.comparison.runs), "apart": draft.comparison.apart})


def _cards(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the cards in the order of their metrics."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        metrics = {row.card: row.metric for row in run.rows}
        for digest, card in run.header.cards.items():
            if digest in metrics and isinstance(card, Mapping):
                found[digest] = {
                    "digest": digest,
                    "metric": metrics[digest],
                    "sign": str(card.get("sign", "")),
                    "facts": list(flat(card)),
                }
    return list(found.values())
