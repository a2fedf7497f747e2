"""Compare everything in one or several runs that may be compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xbench.comparison.blocks import PLACE, AcrossBlocks, across_blocks
from xbench.comparison.cards import Apart, kept_apart
from xbench.comparison.groups import Entry, RankedGroup, Run, RunSetting, ranked_groups
from xbench.comparison.ranking import Ranking, ranking
from xbench.contracts.options import suggestion
from xbench.errors import UserError
from xbench.results.naming import bare_name
from xbench.statistics.agreement import Agreement, agreement

_FEW = 30  # patients


@dataclass(frozen=True)
class MetricAgreement(Agreement):
    """Agreement of the metrics of one place.

    Attributes:
        setting: Setting that the metrics share (dataset, model, sign and the rest), with metric and card emptied.
    """

    setting: RunSetting


@dataclass(frozen=True)
class Comparison:
    """Result of `xbench compare`.

    Attributes:
        runs: The runs compared.
        rankings: Rankings, one per group of rows that are ranked together.
        apart: Results of one metric that may not be ranked together, with what differs.
        blocks: Tests over several datasets or models.
        agreements: Agreements between metrics, per dataset, model and sign.
        warnings: Warnings for the user.
    """

    runs: tuple[Run, ...]
    rankings: tuple[Ranking, ...]
    apart: tuple[Apart, ...]
    blocks: tuple[AcrossBlocks, ...]
    agreements: tuple[MetricAgreement, ...]
    warnings: tuple[str, ...]


def compare(
    runs: Sequence[Run],
    metrics: Sequence[str] = (),
    explainers: Sequence[str] = (),
    against: str = "",
    controls: bool = False,
) -> Comparison:
    """Compare everything in the runs that may be compared.

    Args:
        runs: As `xbench.comparison.read_runs` gives them.
        metrics: Only these, by name with or without options; empty for all.
        explainers: Only these (and `against`); empty for all.
        against: Explainer that the others are compared with; empty for the best of each ranking.
        controls: Whether the controls take part in tests over datasets and in the agreement of metrics.

    Raises:
        UserError: A name is not in the runs, nothing was scored, or the runs have nothing in common.
    """
    _check_names(runs, metrics, explainers, against)
    groups = ranked_groups(runs, metrics, [*explainers, against] if explainers and against else explainers)
    if not groups:
        raise UserError("nothing to compare: no cell of these runs has a value", "see their scores.csv for the reasons")
    apart, blocks, elsewhere = kept_apart(groups), across_blocks(groups, controls), _computed_otherwise(groups)
    contexts = _contexts(groups)
    linked = [set(group.runs) for group in groups]
    linked += [set(pair.runs) for pair in apart]
    linked += [set(block.runs) for block in blocks]
    linked += [*elsewhere.values(), *map(_runs_of, contexts.values())]
    _check_links(runs, groups, linked)
    agreements = (_agreement(shared, members, controls) for shared, members in contexts.items())
    return Comparison(
        runs=tuple(runs),
        rankings=tuple(ranking(group, against) for group in groups),
        apart=tuple(apart),
        blocks=tuple(blocks),
        agreements=tuple(agreement for agreement in agreements if agreement is not None),
        warnings=tuple(dict.fromkeys([*_warnings(runs, groups), *elsewhere])),
    )


def _check_names(runs: Sequence[Run], metrics: Sequence[str], explainers: Sequence[str], against: str) -> None:
    rows = [row for run in runs for row in run.rows]
    known_metrics = {row.metric for row in rows} | {bare_name(row.metric) for row in rows}
    known_explainers = {row.explainer for row in rows} | {row.resolved for row in rows}
    where = "this run" if len(runs) == 1 else "any of these runs"
    for kind, names, known in (
        ("metric", metrics, known_metrics),
        ("explainer", [*explainers, *filter(None, [against])], known_explainers),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"{kind} {name!r} is not in {where}", suggestion(name, known))


def _check_links(runs: Sequence[Run], groups: Sequence[RankedGroup], links: Sequence[set[str]]) -> None:
    """Raise unless every run has something to do with another one."""
    if len(runs) == 1:
        return
    for run in runs:
        if not any(run.name in link and len(link) > 1 for link in links):
            has = {f"{group.setting.metric} on {group.setting.place}" for group in groups if run.name in group.runs}
            raise UserError(
                f"run {run.name} has nothing in common with the others: it has {'; '.join(sorted(has)) or 'no value'}",
                "compare runs that share a dataset and model, or a metric and at least two explainers",
            )


def _warnings(runs: Iterable[Run], groups: Iterable[RankedGroup]) -> Iterable[str]:
    for run in runs:
        if not run.replicates:
            yield (
                f"{run.name} holds no bootstrap replicates, so its differences can't be tested: "
                "run the same line again (all is cached) with this version"
            )
    for group in groups:
        fewest = min(entry.row.groups for entry in group.entries)
        if fewest < _FEW:
            yield (
                f"{group.setting.metric} on {group.setting.place}: {fewest} patients; "
                f"percentile intervals of fewer than {_FEW} are too narrow"
            )


def _computed_otherwise(groups: Iterable[RankedGroup]) -> dict[str, set[str]]:
    """Warn of each metric card that was computed on several devices or in several precisions.

    Returns:
        Words -> the runs that they are about.
    """
    cards: dict[RunSetting, list[RankedGroup]] = {}
    for group in groups:
        cards.setdefault(group.setting.without(*PLACE), []).append(group)
    said: dict[str, set[str]] = {}
    for setting, members in cards.items():
        computed = dict.fromkeys(entry.row.computed for entry in itertools.chain(*(group.entries for group in members)))
        places = {group.setting.place for group in members}
        if len(computed) > 1 and len(places) > 1:
            kinds = ", ".join(f"{device} at precision {precision}" for device, precision in computed)
            words = f"{setting.metric}, {setting.sign} maps: ranks of {kinds} are not averaged over datasets or models"
            said.setdefault(words, set()).update(_runs_of(members))
    return said


def _runs_of(groups: Iterable[RankedGroup]) -> set[str]:
    """Return the names of all runs that brought a row to one of the groups."""
    return set().union(*(group.runs for group in groups))


def _contexts(groups: Sequence[RankedGroup]) -> dict[RunSetting, list[RankedGroup]]:
    """Collect the groups that differ in metric and card alone: the same maps of the same samples."""
    contexts: dict[RunSetting, list[RankedGroup]] = {}
    for group in groups:
        contexts.setdefault(group.setting.without("metric", "card"), []).append(group)
    return contexts


def _agreement(shared: RunSetting, members: Sequence[RankedGroup], controls: bool) -> MetricAgreement | None:
    names = [group.setting.metric for group in members]
    labels = [
        name if names.count(name) == 1 else f"{name} #{group.setting.card[:6]}"
        for name, group in zip(names, members, strict=True)
    ]
    columns = [_taking_part(group, controls) for group in members]
    explainers = list(dict.fromkeys(itertools.chain(*columns)))
    if len(members) < 2 or len(explainers) < 2:
        return None
    values, replicates = {}, {}
    for label, group, column in zip(labels, members, columns, strict=True):
        values[label] = np.array([group.oriented(column[name]) if name in column else math.nan for name in explainers])
        stacked = _stacked_replicates(column, explainers)
        if stacked is not None:
            replicates[label] = stacked if group.higher_is_better else -stacked
    result = agreement(f"{shared.place}, {shared.sign} maps", explainers, values, replicates)
    return MetricAgreement(**vars(result), setting=shared)


def _stacked_replicates(column: Mapping[str, Entry], explainers: Sequence[str]) -> np.ndarray | None:
    """Return the replicates (E, B) of a metric, NaN for explainers that it lacks; None if an entry has none."""
    series = {name: entry.replicates for name, entry in column.items() if entry.replicates is not None}
    if not series or len(series) < len(column):
        return None
    undefined = np.full_like(next(iter(series.values())), math.nan)
    return np.stack([series.get(name, undefined) for name in explainers])


def _taking_part(group: RankedGroup, controls: bool) -> dict[str, Entry]:
    """Return entries by label: each method once, controls only if asked for."""
    return {
        entry.label: entry for entry in group.entries if (controls or not entry.row.control) and not group.twin(entry)
    }
