"""Sort a comparison by the datasets and models that the page shows, with their rankings, curves and agreements."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xbench.results.curves import CurveSeries, CurveTable

if TYPE_CHECKING:
    # Reports lie below comparisons: the command line hands a comparison over.
    from xbench.comparison import Comparison, MetricAgreement, Ranking

SIGNS = ("original", "absolute")
"""Signs of maps, in the order in which they are shown."""


@dataclass(frozen=True)
class Place:
    """One dataset and model.

    Attributes:
        dataset: Name of the dataset.
        model: The classifier.
        rankings: Rankings of all metrics and signs.
        agreements: Agreements of metrics, one per sign (and target, and split).
        curves: Curves of all metrics and signs.
    """

    dataset: str
    model: str
    rankings: list[Ranking] = field(default_factory=list)
    agreements: list[MetricAgreement] = field(default_factory=list)
    curves: list[CurveTable] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The dataset and the model in words."""
        return f"{self.dataset} / {self.model}"

    @property
    def signs(self) -> list[str]:
        """The signs of its rankings, "original" first."""
        found = {ranking.group.setting.sign for ranking in self.rankings}
        return [sign for sign in SIGNS if sign in found] + sorted(found - set(SIGNS))

    @property
    def metrics(self) -> list[str]:
        """The metrics of its rankings, in their order."""
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
    """Join the curves of two runs. The same curves count once. Others of one name are followed by their run's name."""
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
