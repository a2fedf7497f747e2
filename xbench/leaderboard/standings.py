"""Group the rows of submissions that may be ranked together, over seeds and submitters, and rank each group."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xbench.leaderboard.pooling import Pooled, Result, differences, pooled
from xbench.leaderboard.records import Entry, Submission, SuiteKey
from xbench.results.rows import ScoreRow
from xbench.results.standings import Difference, Ranked, Setting, ranked
from xbench.statistics.ranking import PairTests, ranks
from xbench.statistics.resampling import floored


@dataclass(frozen=True, order=True)
class SuiteSetting(Setting):
    """Setting that rows of a leaderboard must share to be ranked together.

    The classifier's weights are no part of it, unlike in a comparison: they differ from seed to seed, and rows are
    pooled over seeds.

    Attributes:
        suite: The suite, with version and fingerprint.
        higher_is_better: Direction of the metric.
    """

    suite: SuiteKey
    higher_is_better: bool


class Variant(NamedTuple):
    """An explainer as it was computed: rows of different variants are ranked together, and never averaged.

    Attributes:
        resolved: Its reference, with nothing left open.
        device: Type of the device.
        precision: Precision of the computation.
    """

    resolved: str
    device: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Standing(Ranked):
    """Where an explainer stands in its group, over all its seeds.

    Its name is the resolved reference, unique in the suite. Device and precision follow it where the suite has the
    explainer of several.

    Attributes:
        variant: The fields that its results have in common.
        control: Whether it must lose.
        results: One result per seed, by seed.
        submissions: Where each result comes from.
        pooled: Value, interval and spread over the seeds.
    """

    variant: Variant
    control: bool
    results: tuple[Result, ...]
    submissions: tuple[Submission, ...]
    pooled: Pooled

    @property
    def rows(self) -> tuple[ScoreRow, ...]:
        """One row per seed, by seed."""
        return tuple(result.row for result in self.results)


@dataclass(frozen=True, kw_only=True)
class PairDifference(Difference):
    """Pooled value of the first explainer minus that of the second; Holm's family is all pairs of the group.

    Attributes:
        first: Name of the first explainer.
        second: Name of the second explainer.
        paired: Whether both have the same seeds, resamples and classifiers throughout.
    """

    first: str
    second: str
    paired: bool


@dataclass(frozen=True)
class RankedGroup:
    """The rows that are ranked together, with their ranks.

    A comparison has a record of its own (`xbench.comparison.RankedGroup`): its entries are single rows with all their
    replicates. A standing here pools rows of several seeds and submitters, of which only the first replicates are kept,
    in one byte each. So intervals and tests come from variances (`xbench.leaderboard.pooling`), not from counting
    replicates. The rule that makes ranks of the tests is the same.

    Attributes:
        setting: The setting that they share.
        card: The metric card, which says what the number means.
        standings: Best first; those without a value last.
    """

    setting: SuiteSetting
    card: Mapping[str, Any]
    standings: tuple[Standing, ...]

    @functools.cached_property
    def differences(self) -> tuple[PairDifference, ...]:
        """Every pair of explainers with a value and maps of their own, the better one first."""
        judged = [standing for standing in self.standings if not standing.same_as and _has_value(standing)]
        tests, paired, (low, high) = _tests(judged)
        return tuple(
            PairDifference(
                first=judged[first].explainer,
                second=judged[second].explainer,
                value=float(tests.gain[index]),
                low=float(low[index]),
                high=float(high[index]),
                p=float(tests.p[index]),
                p_holm=float(tests.p_holm[index]),
                paired=bool(paired[index]),
            )
            for index, (first, second) in enumerate(zip(tests.first.tolist(), tests.second.tolist(), strict=True))
        )


_HandedIn = tuple[Submission, Entry, Variant | None]
"""A result, where it comes from, and the explainer whose maps it has."""
_Cells = dict[Variant, dict[int, _HandedIn]]
"""Variant -> seed -> result."""


def ranked_groups(submissions: Iterable[Submission]) -> list[RankedGroup]:
    """Sort the rows of all submissions into groups and rank each group.

    If a cell was submitted twice for one seed, the later one counts. Cells that failed are skipped. What an explainer
    resolved to, the type of the device and the precision make a cell of its own.
    """
    cells: dict[SuiteSetting, _Cells] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    for submission in sorted(submissions, key=lambda submission: submission.order):
        cards |= submission.run.cards
        good = [entry for entry in submission.entries if entry.row.status == "ok"]
        variants = {entry.row.explainer: Variant(entry.row.resolved, *entry.row.computed) for entry in good}
        for entry in good:
            row = entry.row
            own, twin = variants[row.explainer], variants.get(row.same_as)
            if twin != own:  # else one explainer under two names, which counts under the first
                setting = SuiteSetting.of(row, suite=submission.suite)
                cells.setdefault(setting, {}).setdefault(own, {})[row.seed] = (submission, entry, twin)
    names = _names(cells)
    return [
        RankedGroup(setting, cards.get(setting.card, {}), _standings(cells[setting], names[setting.suite]))
        for setting in sorted(cells, key=lambda setting: (setting.suite, setting))
    ]


def _names(cells: Mapping[SuiteSetting, _Cells]) -> dict[SuiteKey, dict[Variant, str]]:
    """Return what each explainer is called, the same in all groups of a suite: a page puts them side by side."""
    variants: dict[SuiteKey, dict[str, dict[Variant, None]]] = {}
    for setting, members in cells.items():
        for variant in members:
            variants.setdefault(setting.suite, {}).setdefault(variant.resolved, {})[variant] = None
    return {
        suite: {
            variant: resolved if len(several) == 1 else f"{resolved} ({variant.device}, {variant.precision})"
            for resolved, several in of_suite.items()
            for variant in several
        }
        for suite, of_suite in variants.items()
    }


def _standings(cells: _Cells, names: Mapping[Variant, str]) -> tuple[Standing, ...]:
    unranked = [_unranked(variant, seeds, names) for variant, seeds in cells.items()]
    higher = unranked[0].rows[0].higher_is_better
    unranked.sort(key=lambda standing: (*_order(standing.pooled.value, higher), standing.explainer))
    originals = {standing.explainer for standing in unranked if not standing.same_as}
    # A twin of an explainer that was not handed in is ranked by itself.
    judged = [standing for standing in unranked if standing.same_as not in originals]
    by_name = _ranks(judged, higher)
    for standing in unranked:
        if standing.explainer not in by_name:
            by_name[standing.explainer] = by_name[standing.same_as].shared_with(standing.explainer)
    return tuple(dataclasses.replace(standing, **vars(by_name[standing.explainer])) for standing in unranked)


def _unranked(variant: Variant, seeds: Mapping[int, _HandedIn], names: Mapping[Variant, str]) -> Standing:
    handed_in = [seeds[seed] for seed in sorted(seeds)]
    results = tuple(Result(entry.row, _replicates(entry), entry.sampling) for _, entry, _ in handed_in)
    twins = {names.get(twin, "") if twin else "" for _, _, twin in handed_in}
    return Standing(
        explainer=names[variant],
        same_as=twins.pop() if len(twins) == 1 else "",  # the same maps by chance of one seed are no twin
        variant=variant,
        control=any(result.row.control for result in results),
        results=results,
        submissions=tuple(submission for submission, _, _ in handed_in),
        pooled=pooled(results),
    )


def _replicates(entry: Entry) -> Any:
    assert entry.replicates is not None  # of a row with a value; the check refuses others
    return entry.replicates


def _has_value(standing: Standing) -> bool:
    return not math.isnan(standing.pooled.value)


def _order(value: float, higher_is_better: bool) -> tuple[bool, float]:
    return math.isnan(value), 0.0 if math.isnan(value) else -value if higher_is_better else value


def _ranks(judged: Sequence[Standing], higher_is_better: bool) -> dict[str, Ranked]:
    """Return the ranks of explainers by name; what has no value has no rank."""
    scored = [standing for standing in judged if _has_value(standing)]
    names = [standing.explainer for standing in scored]
    tests, _, _ = _tests(scored)
    named = ranked(names, ranks(tests, np.ones(len(scored), dtype=bool), higher_is_better))
    unscored = {standing.explainer: Ranked(explainer=standing.explainer) for standing in judged}
    return unscored | dict(zip(names, named, strict=True))


def _tests(scored: Sequence[Standing]) -> tuple[PairTests, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Test every pair of explainers with a value, on pooled values.

    Returns:
        The P tests; bool (P,), whether each pair is paired; the ends (P,) and (P,) of the 95 % intervals.
    """
    every = differences([standing.results for standing in scored])
    pairs = np.triu_indices(len(scored), k=1)
    patients = min((row.groups for standing in scored for row in standing.rows), default=1)
    tests = PairTests(*pairs, every.value[pairs], floored(every.p[pairs], patients))
    return tests, every.paired[pairs], (every.low[pairs], every.high[pairs])
