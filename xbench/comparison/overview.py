"""One or several runs -> all that can be said of their differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from xbench.comparison.blocks import PLACE, AcrossBlocks, across_blocks
from xbench.comparison.cards import Apart, kept_apart
from xbench.comparison.fields import Entry, Field, Run, Setting, fields
from xbench.comparison.ranking import Ranking, ranking
from xbench.contracts.options import suggestion
from xbench.errors import UserError
from xbench.statistics.agreement import Agreement, agreement

_FEW = 30  # patients


@dataclass(frozen=True)
class Comparison:
    """What `xbench compare` says.

    Attributes:
        runs: Compared.
        rankings: One per field.
        apart: Results of one metric that may not be ranked together, with what differs.
        blocks: Tests over several datasets or models.
        agreements: Between metrics, per dataset, model and sign.
        warnings: What the user must know.
    """

    runs: tuple[Run, ...]
    rankings: tuple[Ranking, ...]
    apart: tuple[Apart, ...]
    blocks: tuple[AcrossBlocks, ...]
    agreements: tuple[Agreement, ...]
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
    found = fields(runs, metrics, [*explainers, against] if explainers and against else explainers)
    if not found:
        raise UserError("nothing to compare: no cell of these runs has a value", "see their scores.csv for the reasons")
    apart, blocks, elsewhere = kept_apart(found), across_blocks(found, controls), _computed_otherwise(found)
    contexts = _contexts(found)
    links = [set(field.runs) for field in found]
    links += [set(one.runs) for one in apart] + [set(one.runs) for one in blocks] + list(elsewhere.values())
    links += [{name for field in members for name in field.runs} for members in contexts.values()]
    _check_links(runs, found, links)
    return Comparison(
        runs=tuple(runs),
        rankings=tuple(ranking(field, against) for field in found),
        apart=tuple(apart),
        blocks=tuple(blocks),
        agreements=tuple(
            one for shared, members in contexts.items() if (one := _agreement(shared, members, controls)) is not None
        ),
        warnings=tuple(dict.fromkeys([*_warnings(runs, found), *elsewhere])),
    )


def _check_names(runs: Sequence[Run], metrics: Sequence[str], explainers: Sequence[str], against: str) -> None:
    rows = [row for run in runs for row in run.rows]
    known_metrics = {row.metric for row in rows} | {row.metric.partition(":")[0] for row in rows}
    known_explainers = {name for row in rows for name in (row.explainer, row.resolved)}
    where = "this run" if len(runs) == 1 else "any of these runs"
    for kind, names, known in (
        ("metric", metrics, known_metrics),
        ("explainer", [*explainers, *filter(None, [against])], known_explainers),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"{kind} {name!r} is not in {where}", suggestion(name, known))


def _check_links(runs: Sequence[Run], found: Sequence[Field], links: Sequence[set[str]]) -> None:
    """Every run must have something to do with another one."""
    if len(runs) == 1:
        return
    for run in runs:
        if not any(run.name in link and len(link) > 1 for link in links):
            has = {f"{field.setting.metric} on {field.setting.place}" for field in found if run.name in field.runs}
            raise UserError(
                f"run {run.name} has nothing in common with the others: it has {'; '.join(sorted(has)) or 'no value'}",
                "compare runs that share a dataset and model, or a metric and at least two explainers",
            )


def _warnings(runs: Iterable[Run], found: Iterable[Field]) -> Iterable[str]:
    for run in runs:
        if not run.replicates:
            yield (
                f"{run.name} holds no bootstrap replicates, so its differences can't be tested: "
                "run the same line again (all is cached) with this version"
            )
    for field in found:
        fewest = min(entry.row.groups for entry in field.entries)
        if fewest < _FEW:
            yield (
                f"{field.setting.metric} on {field.setting.place}: {fewest} patients; "
                f"percentile intervals of fewer than {_FEW} are too narrow"
            )


def _computed_otherwise(found: Iterable[Field]) -> dict[str, set[str]]:
    """What to say of each metric card whose places were computed on several devices or in several precisions.

    Returns:
        Words -> the runs that they are about.
    """
    cards: dict[Setting, list[Field]] = {}
    for field in found:
        cards.setdefault(field.setting.without(*PLACE), []).append(field)
    said: dict[str, set[str]] = {}
    for setting, members in cards.items():
        computed = dict.fromkeys(entry.row.computed for field in members for entry in field.entries)
        if len(computed) > 1 and len({field.setting.place for field in members}) > 1:
            kinds = ", ".join(f"{device} at precision {precision}" for device, precision in computed)
            words = f"{setting.metric}, {setting.sign} maps: ranks of {kinds} are not averaged over datasets or models"
            said.setdefault(words, set()).update(name for field in members for name in field.runs)
    return said


def _contexts(found: Sequence[Field]) -> dict[Setting, list[Field]]:
    """Fields that differ in metric and card alone: the same maps of the same samples."""
    contexts: dict[Setting, list[Field]] = {}
    for field in found:
        contexts.setdefault(field.setting.without("metric", "card"), []).append(field)
    return contexts


def _agreement(shared: Setting, members: Sequence[Field], controls: bool) -> Agreement | None:
    names = [field.setting.metric for field in members]
    labels = [
        name if names.count(name) == 1 else f"{name} #{field.setting.card[:6]}"
        for name, field in zip(names, members, strict=True)
    ]
    columns = [_taking_part(field, controls) for field in members]
    explainers = list(dict.fromkeys(name for column in columns for name in column))
    if len(members) < 2 or len(explainers) < 2:
        return None
    values, replicates = {}, {}
    for label, field, column in zip(labels, members, columns, strict=True):
        values[label] = np.array([field.oriented(column[name]) if name in column else math.nan for name in explainers])
        series = [entry.replicates for entry in column.values()]
        known = [one for one in series if one is not None]
        if known and len(known) == len(series):
            sign = 1 if field.higher_is_better else -1
            nothing = np.full_like(known[0], math.nan)
            whole = {name: entry.replicates for name, entry in column.items()}
            replicates[label] = sign * np.stack([whole.get(name, nothing) for name in explainers])
    return agreement(f"{shared.place}, {shared.sign} maps", explainers, values, replicates)


def _taking_part(field: Field, controls: bool) -> dict[str, Entry]:
    """By label: each method once, controls only if asked for."""
    return {
        entry.label: entry for entry in field.entries if (controls or not entry.row.control) and not field.twin(entry)
    }
