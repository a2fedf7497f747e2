"""Say why results of one metric are kept apart: which convention, data, weights or samples differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.comparison.groups import RankedGroup

_ABSENT = "(nothing)"


@dataclass(frozen=True)
class Apart:
    """Two results of one metric that are not ranked together.

    Attributes:
        first: Metric, place and runs of one result, in words.
        second: Metric, place and runs of the other.
        reasons: Differences, such as "removal: mean vs zero".
        runs: The runs of both.
    """

    first: str
    second: str
    reasons: tuple[str, ...]
    runs: frozenset[str]


def kept_apart(groups: Sequence[RankedGroup]) -> list[Apart]:
    """List, for each metric, every two cards, and every two groups of one card and place; once for both signs.

    Groups of one card in different places are expected to be apart and are not listed. Different cards are listed
    wherever they stand, since ranks under them may not be averaged either.
    """
    metrics = _grouped(groups, lambda group: (group.metric_name, group.setting.sign, group.setting.subject))
    pairs: dict[Apart, None] = {}
    for members in metrics:
        by_card = _grouped(members, lambda group: (group.setting.card,))
        for first_card, second_card in itertools.combinations(by_card, 2):
            reasons = tuple(differing_conventions(first_card[0].card, second_card[0].card))
            cards = f"metric card: {first_card[0].setting.card} vs {second_card[0].setting.card}"
            pairs[_apart(first_card, second_card, reasons or (cards,))] = None
        if members[0].setting.subject != "shared":  # each has its own classifier there
            continue
        for same_card in by_card:
            for same_place in _grouped(same_card, lambda group: (group.setting.dataset, group.setting.model)):
                for first, second in itertools.combinations(same_place, 2):
                    pairs[_apart([first], [second], tuple(_other_samples(first, second)))] = None
    return list(pairs)


def _grouped(groups: Iterable[RankedGroup], key: Callable[[RankedGroup], tuple[str, ...]]) -> list[list[RankedGroup]]:
    members: dict[tuple[str, ...], list[RankedGroup]] = {}
    for group in groups:
        members.setdefault(key(group), []).append(group)
    return list(members.values())


def _apart(first: Sequence[RankedGroup], second: Sequence[RankedGroup], reasons: tuple[str, ...]) -> Apart:
    runs = frozenset(run for group in [*first, *second] for run in group.runs)
    return Apart(_words(first), _words(second), reasons, runs)


def _words(groups: Sequence[RankedGroup]) -> str:
    places = "; ".join(dict.fromkeys(group.setting.place for group in groups))
    runs = ", ".join(dict.fromkeys(run for group in groups for run in group.runs))
    return f"{groups[0].setting.metric} on {places} ({runs})"


def differing_conventions(first_card: Mapping[str, Any], second_card: Mapping[str, Any]) -> Iterator[str]:
    """Yield, key by key, what two metric cards do not share; options are named `options.<name>`."""
    first, second = _flat(first_card), _flat(second_card)
    for key in [*first, *(key for key in second if key not in first)]:
        if first.get(key, _ABSENT) != second.get(key, _ABSENT):
            yield f"{key}: {_plain(first.get(key, _ABSENT))} vs {_plain(second.get(key, _ABSENT))}"


def _flat(card: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in card.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return flat


def _plain(value: Any) -> str:
    return {None: "none", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def _other_samples(first: RankedGroup, second: RankedGroup) -> Iterator[str]:
    mine, theirs = first.setting, second.setting
    if mine.dataset_fingerprint != theirs.dataset_fingerprint:
        yield f"other data under the name {mine.dataset}"
    rows = first.entries[0].row, second.entries[0].row
    if mine.model_fingerprint != theirs.model_fingerprint:
        seeds = "" if rows[0].seed == rows[1].seed else f" (seed {rows[0].seed} vs {rows[1].seed})"
        yield f"other weights under the name {mine.model}{seeds}"
    elif mine.sampling != theirs.sampling:
        if not (mine.sampling and theirs.sampling):
            yield "no replicates in one of them: not paired"
        else:
            counts = f"{rows[0].n} vs {rows[1].n} samples, seed {rows[0].seed} vs {rows[1].seed}"
            yield f"other samples or other resamples ({counts}): not paired"
    for words, *values in zip(("computed on", "precision"), rows[0].computed, rows[1].computed, strict=True):
        if values[0] != values[1]:
            yield f"{words}: {values[0]} vs {values[1]}"
    for name in ("split", "target"):
        if getattr(mine, name) != getattr(theirs, name):
            yield f"{name}: {getattr(mine, name)} vs {getattr(theirs, name)}"
