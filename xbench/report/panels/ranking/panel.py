"""Every metric's ranking on a dataset and model: values, intervals, ranks, and what may be downloaded of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xbench.report.page.draft import FIGURES, KINDS, Draft, Files
from xbench.report.page.facts import seconds
from xbench.report.page.panel import Panel, Section
from xbench.report.page.places import Place
from xbench.report.panels.ranking.tables import csv_table, latex_overview, latex_ranking
from xbench.report.scores import score_chart
from xbench.results.naming import file_name

if TYPE_CHECKING:
    from xbench.comparison import Ranking, Run, Standing


class RankingPanel(Panel):
    """Rankings of one metric or of all; CSV and LaTeX tables, and the score charts."""

    name = "ranking"
    title = "Ranking"

    def of_place(self, draft: Draft, place: Place) -> dict[str, Any]:
        """Return the rankings of all metrics and signs, and the cells without a value."""
        charts = _charts(draft, place)
        rankings = []
        for ranking in place.rankings:
            files = _tables(draft, place, ranking) | charts.get(ranking.group.setting.metric, {})
            rankings.append(ranking_data(ranking) | {"files": files})
        return {"rankings": rankings, "missing": _missing(place, draft.comparison.runs)}

    def section(self, draft: Draft) -> Section:
        """Write the tables of more than one ranking and offer them; the script knows those of all metrics."""
        draft.offer("All scores", draft.text("tables/scores.csv", csv_table(draft.comparison.rankings)), "CSV")
        return Section(data=[_overviews(draft, place) for place in draft.places])


def _overviews(draft: Draft, place: Place) -> dict[str, Any]:
    """Write one table of explainers by metrics for each sign."""
    paths = {}
    for sign in place.signs:
        stem = draft.stem(place.dataset, place.model, "all-metrics", sign)
        paths[sign] = draft.text(f"tables/{stem}.tex", latex_overview(place, sign))
        draft.offer(f"{place.dataset}, {place.model}, {sign} maps, all metrics", paths[sign], "LaTeX")
    return {"dataset": place.dataset, "model": place.model, "tex": paths}


def _tables(draft: Draft, place: Place, ranking: Ranking) -> Files:
    setting = ranking.group.setting
    stem = draft.stem(place.dataset, place.model, setting.metric, setting.sign)
    return {
        "csv": draft.text(f"tables/{stem}.csv", csv_table([ranking])),
        "tex": draft.text(f"tables/{stem}.tex", latex_ranking(ranking)),
    }


def _charts(draft: Draft, place: Place) -> dict[str, Files]:
    """Draw one chart per metric, with both signs in it."""
    found: dict[str, Files] = {}
    for metric in place.metrics if draft.figures else ():
        draft.note(f"{metric}, {place.title}")
        rows = [
            standing.entry.row
            for ranking in place.rankings
            if ranking.group.setting.metric == metric
            for standing in ranking.standings
        ]
        stem = draft.folder / FIGURES / file_name("scores", place.dataset, place.model, metric)
        found[metric] = draft.files(score_chart(stem, f"{metric} on {place.title}", rows, KINDS))
    return found


def _missing(place: Place, runs: Sequence[Run]) -> list[dict[str, str]]:
    return [
        {"metric": row.metric, "sign": row.sign, "e": row.explainer, "status": row.status, "why": row.reason}
        for run in runs
        for row in run.rows
        if (row.dataset, row.model) == (place.dataset, place.model) and row.status != "ok"
    ]


def ranking_data(ranking: Ranking) -> dict[str, Any]:
    """Return one table: what its rows share, and the rows, best first."""
    setting, first = ranking.group.setting, ranking.standings[0].entry.row
    labels = [standing.entry.label for standing in ranking.standings]
    return {
        "metric": setting.metric,
        "sign": setting.sign,
        "subject": setting.subject,
        "target": setting.target,
        "split": setting.split,
        "card": setting.card,
        "higher": ranking.group.higher_is_better,
        "n": first.n,
        "groups": first.groups,
        "reference": ranking.reference,
        "rows": [_row(standing, labels) for standing in ranking.standings],
    }


def _row(standing: Standing, labels: Sequence[str]) -> dict[str, Any]:
    row, found = standing.entry.row, standing.difference
    data: dict[str, Any] = {
        "e": standing.entry.label,
        "v": row.value,
        "lo": row.ci_low,
        "hi": row.ci_high,
        "r": [standing.rank, standing.rank_high],
        "s": [labels.index(name) for name in standing.rank_set if name in labels and name != standing.entry.label],
        "n": row.n,
        "t": seconds(row.seconds_fit) + seconds(row.seconds_maps) + seconds(row.seconds_metric),
    }
    if found is not None:
        data["d"] = [found.value, found.low, found.high, found.p_holm]
    optional = {"c": row.control, "same": standing.same_as, "w": row.warning, "own": row.subject == "self"}
    return data | {name: value for name, value in optional.items() if value}
