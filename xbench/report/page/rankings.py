"""A comparison -> what the page shows of each dataset and model: rankings, curves, agreement, cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xbench.results.curves import CurveSeries, CurveTable

if TYPE_CHECKING:
    # Reports lie below comparisons: the command line hands a comparison over.
    from xbench.comparison import Comparison, MetricAgreement, Ranking, Run, Standing
    from xbench.statistics.agreement import Correlation

_SIGNS = ("original", "absolute")


@dataclass(frozen=True)
class Place:
    """One dataset and model.

    Attributes:
        dataset: Name.
        model: The classifier.
        rankings: Of all metrics and signs.
        agreements: One per sign (and target, and split).
        curves: Of all metrics and signs.
    """

    dataset: str
    model: str
    rankings: list[Ranking] = field(default_factory=list)
    agreements: list[MetricAgreement] = field(default_factory=list)
    curves: list[CurveTable] = field(default_factory=list)

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.dataset} / {self.model}"

    @property
    def signs(self) -> list[str]:
        """Of its rankings: "original" first."""
        found = {ranking.group.setting.sign for ranking in self.rankings}
        return [sign for sign in _SIGNS if sign in found] + sorted(found - set(_SIGNS))

    @property
    def metrics(self) -> list[str]:
        """Of its rankings, in their order."""
        return list(dict.fromkeys(ranking.group.setting.metric for ranking in self.rankings))


def places(comparison: Comparison, curves: Iterable[tuple[str, CurveTable]]) -> list[Place]:
    """Sort what was compared, and each run's curves (its name, the table), by dataset and model."""
    found: dict[tuple[str, str], Place] = {}
    for ranking in comparison.rankings:
        setting = ranking.group.setting
        key = (setting.dataset, setting.model)
        found.setdefault(key, Place(*key)).rankings.append(ranking)
    for agreement in comparison.agreements:
        shared = agreement.setting
        found[shared.dataset, shared.model].agreements.append(agreement)
    tables: dict[tuple[str, ...], CurveTable] = {}
    for run, table in curves:
        where = (table.dataset, table.model, table.metric, table.sign)
        tables[where] = _joined(tables[where], table, run) if where in tables else table
    for table in tables.values():
        if (table.dataset, table.model) in found:
            found[table.dataset, table.model].curves.append(table)
    return list(found.values())


def _joined(one: CurveTable, other: CurveTable, run: str) -> CurveTable:
    """The curves of two runs: the same once, others of one name with their run behind it."""
    series = list(one.series)
    for new in other.series:
        same = next((old for old in series if old.label == new.label), None)
        if same is None:
            series.append(new)
        elif not _equal(same, new):
            series.append(dataclasses.replace(new, label=f"{new.label} [{run}]"))
    return dataclasses.replace(one, series=series)


def _equal(one: CurveSeries, other: CurveSeries) -> bool:
    return list(one.curves) == list(other.curves) and all(
        values.tolist() == other.curves[name].tolist() for name, values in one.curves.items()
    )


def place_data(place: Place, runs: Sequence[Run], files: dict[int, dict[str, str]]) -> dict[str, Any]:
    """What the page loads for a place.

    Args:
        place: The place.
        runs: Where its rows come from.
        files: By the position of a ranking: kind ("csv", "tex", "svg", "pdf") -> path of what can be downloaded.
    """
    return {
        "rankings": [ranking_data(one) | {"files": files.get(at, {})} for at, one in enumerate(place.rankings)],
        "missing": [
            {"metric": row.metric, "sign": row.sign, "e": row.explainer, "status": row.status, "why": row.reason}
            for run in runs
            for row in run.rows
            if (row.dataset, row.model) == (place.dataset, place.model) and row.status != "ok"
        ],
        "curves": [_curves(table) for table in place.curves],
        "agreements": [_agreement(one) for one in place.agreements],
        "cost": cost(place, runs),
    }


def ranking_data(ranking: Ranking) -> dict[str, Any]:
    """One table: what its rows share, and the rows, best first."""
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
        "t": _seconds(row.seconds_fit) + _seconds(row.seconds_maps) + _seconds(row.seconds_metric),
    }
    if found is not None:
        data["d"] = [found.value, found.low, found.high, found.p_holm]
    optional = {"c": row.control, "same": standing.same_as, "w": row.warning, "own": row.subject == "self"}
    return data | {name: value for name, value in optional.items() if value}


def _seconds(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def best(ranking: Ranking) -> set[str]:
    """Labels of the best explainer that is no control, and of the explainers that it can't be told from."""
    users = [one for one in ranking.standings if not one.entry.row.control and not math.isnan(one.entry.row.value)]
    if not users:
        return set()
    names = {users[0].entry.label, *users[0].rank_set}
    return {one.entry.label for one in users if one.entry.label in names or one.same_as in names}


def _curves(table: CurveTable) -> dict[str, Any]:
    return {
        "metric": table.metric,
        "sign": table.sign,
        "x": table.x_label,
        "y": table.y_label,
        "series": [{"e": one.label, "c": one.control, "x": one.x, "y": dict(one.curves)} for one in table.series],
    }


def _agreement(found: MetricAgreement) -> dict[str, Any]:
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


def cost(place: Place, runs: Iterable[Run]) -> list[dict[str, Any]]:
    """What each explainer cost here: seconds, and images passed through the classifier for the maps of all samples."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        facts = {one.get("name"): one.get("map_facts") or {} for one in run.header.explainers}
        for row in run.rows:
            if (row.dataset, row.model, row.status) != (place.dataset, place.model, "ok"):
                continue
            entry = found.setdefault(row.explainer, {"e": row.explainer, "c": row.control, "metrics": {}})
            entry["fit"], entry["maps"] = _seconds(row.seconds_fit), _seconds(row.seconds_maps)
            entry["metrics"][row.metric, row.sign] = _seconds(row.seconds_metric)
            passes = facts.get(row.explainer, {})
            entry["forward"], entry["backward"] = passes.get("forward_passes"), passes.get("backward_passes")
            entry["bytes"] = passes.get("peak_bytes")
    return [entry | {"metrics": sum(entry["metrics"].values())} for entry in found.values()]
