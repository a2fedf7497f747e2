"""Submissions -> fields: what may be ranked together, over seeds and submitters, with ranks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xbench.leaderboard.pooling import Differences, Pooled, Result, differences, pooled
from xbench.leaderboard.records import Entry, Submission, SuiteKey
from xbench.results.rows import ScoreRow
from xbench.statistics.resampling import holm

LEVEL = 0.05
"""Family-wise error of the ranks of a field."""


@dataclass(frozen=True, order=True)
class Setting:
    """What rows must share to be ranked together; the classifier's weights differ from seed to seed.

    Attributes:
        suite: With version and fingerprint.
        dataset: Name.
        dataset_fingerprint: Of the dataset.
        split: Scored.
        model: The classifier.
        subject: "shared" or "self".
        target: Target rule.
        metric: Name with options.
        card: Hash of the metric card.
        sign: Of the maps.
        higher_is_better: Direction of the metric.
    """

    suite: SuiteKey
    dataset: str
    dataset_fingerprint: str
    split: str
    model: str
    subject: str
    target: str
    metric: str
    card: str
    sign: str
    higher_is_better: bool


class Variant(NamedTuple):
    """An explainer as it was computed: rows of different ones are ranked together, and never averaged.

    Attributes:
        resolved: Its reference, with nothing left open.
        device: Type of the device.
        precision: Of the computation.
    """

    resolved: str
    device: str
    precision: str


@dataclass(frozen=True)
class Standing:
    """An explainer in its field.

    Attributes:
        explainer: Name, unique in the suite: the resolved reference; with the device and the precision behind it where
            the suite has it of several.
        variant: What its results have in common.
        control: It must lose.
        results: One a seed, by seed.
        submissions: Where each result comes from.
        pooled: Value, interval, spread over the seeds.
        rank: Best rank that the data allow.
        rank_high: Worst.
        rank_set: Explainers it can't be told from.
        same_as: An explainer with the same maps, whose ranks it shares; empty for none.
    """

    explainer: str
    variant: Variant
    control: bool
    results: tuple[Result, ...]
    submissions: tuple[Submission, ...]
    pooled: Pooled
    rank: int
    rank_high: int
    rank_set: tuple[str, ...]
    same_as: str

    @property
    def rows(self) -> tuple[ScoreRow, ...]:
        """One a seed, by seed."""
        return tuple(result.row for result in self.results)

    @property
    def ranks(self) -> str:
        """The ranks that the data allow: "1" or "2–4"; empty without a value."""
        if not self.rank:
            return ""
        return str(self.rank) if self.rank == self.rank_high else f"{self.rank}–{self.rank_high}"


@dataclass(frozen=True)
class Difference:
    """An explainer's pooled value less another's.

    Attributes:
        first: The one.
        second: The other.
        value: first less second.
        low: Of the 95 % interval, for this difference alone.
        high: Of the same.
        p: Two-sided, of "they are equal".
        p_holm: Corrected for all pairs of the field.
        paired: Same seeds, resamples and classifiers throughout.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    p_holm: float
    paired: bool


@dataclass(frozen=True)
class Field:
    """The rows that are ranked together.

    Attributes:
        setting: What they share.
        card: What the number means: the metric card itself.
        standings: Best first; those without a value last.
    """

    setting: Setting
    card: Mapping[str, Any]
    standings: tuple[Standing, ...]

    @functools.cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Every pair of explainers with a value and maps of their own, the better one first."""
        judged = [each for each in self.standings if not each.same_as and not math.isnan(each.pooled.value)]
        found = differences([each.results for each in judged])
        first, second = np.triu_indices(len(judged), k=1)
        p = _floored(found.p[first, second], judged)
        return tuple(
            Difference(
                judged[i].explainer,
                judged[j].explainer,
                float(found.value[i, j]),
                float(found.low[i, j]),
                float(found.high[i, j]),
                float(one),
                float(corrected),
                bool(found.paired[i, j]),
            )
            for i, j, one, corrected in zip(first.tolist(), second.tolist(), p, holm(p), strict=True)
        )


_HandedIn = tuple[Submission, Entry, Variant | None]
"""A result, where it comes from, and of which explainer it has the maps."""
_Cells = dict[Variant, dict[int, _HandedIn]]
"""By seed."""


def fields(submissions: Iterable[Submission]) -> list[Field]:
    """Sort the rows of all submissions into fields and rank each.

    A cell counts once a seed: of several results the one handed in last. Cells that failed are left out. What an
    explainer resolved to, the type of the device and the precision make a cell of its own.
    """
    cells: dict[Setting, _Cells] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    for submission in sorted(submissions, key=lambda each: each.order):
        cards |= submission.run.cards
        good = [entry for entry in submission.entries if entry.row.status == "ok"]
        variants = {entry.row.explainer: Variant(entry.row.resolved, *entry.row.computed) for entry in good}
        for entry in good:
            row = entry.row
            own, twin = variants[row.explainer], variants.get(row.same_as)
            if twin != own:  # else one explainer under two names, which counts under the first
                seeds = cells.setdefault(_setting(row, submission.suite), {}).setdefault(own, {})
                seeds[row.seed] = (submission, entry, twin)
    names = _names(cells)
    return [
        Field(setting, cards.get(setting.card, {}), _standings(cells[setting], names[setting.suite]))
        for setting in sorted(cells)
    ]


def _names(cells: Mapping[Setting, _Cells]) -> dict[SuiteKey, dict[Variant, str]]:
    """What each explainer is called, the same in all fields of a suite: a page puts them side by side."""
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


def _setting(row: ScoreRow, suite: SuiteKey) -> Setting:
    names = [name for name in Setting.__dataclass_fields__ if name != "suite"]
    return Setting(suite, **{name: getattr(row, name) for name in names})


def _standings(cells: _Cells, names: Mapping[Variant, str]) -> tuple[Standing, ...]:
    bare = [_standing(variant, seeds, names) for variant, seeds in cells.items()]
    higher = bare[0].rows[0].higher_is_better
    bare.sort(key=lambda each: (*_order(each.pooled.value, higher), each.explainer))
    originals = {each.explainer for each in bare if not each.same_as}
    judged = [each for each in bare if each.same_as not in originals]  # one that was not handed in can't lend ranks
    ranked = {each.explainer: each for each in _ranked(judged, higher)}
    return tuple(
        ranked[each.explainer] if each.explainer in ranked else _as_twin(each, ranked[each.same_as]) for each in bare
    )


def _standing(variant: Variant, seeds: Mapping[int, _HandedIn], names: Mapping[Variant, str]) -> Standing:
    found = [seeds[seed] for seed in sorted(seeds)]
    results = tuple(Result(entry.row, _replicates(entry), entry.sampling) for _, entry, _ in found)
    like = {names.get(twin, "") if twin else "" for _, _, twin in found}
    return Standing(
        explainer=names[variant],
        variant=variant,
        control=any(result.row.control for result in results),
        results=results,
        submissions=tuple(submission for submission, _, _ in found),
        pooled=pooled(results),
        rank=0,
        rank_high=0,
        rank_set=(),
        same_as=like.pop() if len(like) == 1 else "",  # the same maps by chance of one seed are no twin
    )


def _replicates(entry: Entry) -> Any:
    assert entry.replicates is not None  # of a row with a value; the check refuses others
    return entry.replicates


def _order(value: float, higher_is_better: bool) -> tuple[bool, float]:
    return math.isnan(value), 0.0 if math.isnan(value) else -value if higher_is_better else value


def _ranked(judged: Sequence[Standing], higher_is_better: bool) -> list[Standing]:
    """With ranks: an explainer's best is one more than the number that beat it, its worst leaves behind those it beats.

    What has no value has no rank.

    Args:
        judged: Best first, undefined values last.
        higher_is_better: Direction.
    """
    scored = [each for each in judged if not math.isnan(each.pooled.value)]
    ahead = _ahead(scored, differences([each.results for each in scored]), higher_is_better)
    ranked = []
    for index, each in enumerate(scored):
        tied = ~ahead[index] & ~ahead[:, index]
        names = tuple(other.explainer for place, other in enumerate(scored) if tied[place] and place != index)
        low, high = 1 + int(ahead[:, index].sum()), len(scored) - int(ahead[index].sum())
        ranked.append(_with_ranks(each, low, high, names))
    return ranked + [_with_ranks(each, 0, 0, ()) for each in judged[len(scored) :]]


def _ahead(scored: Sequence[Standing], found: Differences, higher_is_better: bool) -> np.ndarray:
    """Bool (E, E): [i, j]: i beats j."""
    first, second = np.triu_indices(len(scored), k=1)
    told = np.zeros(found.p.shape, dtype=bool)
    told[first, second] = holm(_floored(found.p[first, second], scored)) < LEVEL  # NaN: never told apart
    better = found.value > 0 if higher_is_better else found.value < 0
    return (told | told.T) & better


def _floored(p: np.ndarray, judged: Sequence[Standing]) -> np.ndarray:
    """No test of G patients that all agree gives a p below 2^(1 - G)."""
    patients = min((row.groups for each in judged for row in each.rows), default=1)
    floored: np.ndarray = np.maximum(p, 2.0 ** (1 - patients))
    return floored


def _with_ranks(each: Standing, low: int, high: int, tied: tuple[str, ...], same_as: str = "") -> Standing:
    return dataclasses.replace(each, rank=low, rank_high=high, rank_set=tied, same_as=same_as)


def _as_twin(each: Standing, original: Standing) -> Standing:
    return _with_ranks(each, original.rank, original.rank_high, original.rank_set, original.explainer)
