"""Why results of one metric are kept apart: which convention of its card, data, weights or samples differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.comparison.fields import Field

_ABSENT = "(nothing)"


@dataclass(frozen=True)
class Apart:
    """Two results of one metric that are not ranked together.

    Attributes:
        first: The metric, where, and in which runs.
        second: The same of the other.
        reasons: What differs: "removal: mean vs zero".
        runs: Of both.
    """

    first: str
    second: str
    reasons: tuple[str, ...]
    runs: frozenset[str]


def kept_apart(fields: Sequence[Field]) -> list[Apart]:
    """Of each metric, every two cards, and every two fields of one card and place; each said once for both signs.

    Fields of one card in different places are expected to be apart and not named. Different cards are named wherever
    they stand, since ranks under them may not be averaged either.
    """
    groups: dict[tuple[str, ...], list[Field]] = {}
    for field in fields:
        groups.setdefault((field.metric_name, field.setting.sign, field.setting.subject), []).append(field)
    found: dict[Apart, None] = {}
    for members in groups.values():
        by_card = _grouped(members, lambda field: (field.setting.card,))
        for one, other in itertools.combinations(by_card, 2):
            reasons = tuple(differing_conventions(one[0].card, other[0].card))
            cards = f"metric card: {one[0].setting.card} vs {other[0].setting.card}"
            found[_apart(one, other, reasons or (cards,))] = None
        for same in by_card if members[0].setting.subject == "shared" else []:  # else each has its own classifier
            for there in _grouped(same, lambda field: (field.setting.dataset, field.setting.model)):
                for first, second in itertools.combinations(there, 2):
                    found[_apart([first], [second], tuple(_other_samples(first, second)))] = None
    return list(found)


def _grouped(fields: Iterable[Field], key: Callable[[Field], tuple[str, ...]]) -> list[list[Field]]:
    groups: dict[tuple[str, ...], list[Field]] = {}
    for field in fields:
        groups.setdefault(key(field), []).append(field)
    return list(groups.values())


def _apart(one: Sequence[Field], other: Sequence[Field], reasons: tuple[str, ...]) -> Apart:
    runs = frozenset(run for field in [*one, *other] for run in field.runs)
    return Apart(_words(one), _words(other), reasons, runs)


def _words(fields: Sequence[Field]) -> str:
    places = "; ".join(dict.fromkeys(field.setting.place for field in fields))
    runs = ", ".join(dict.fromkeys(run for field in fields for run in field.runs))
    return f"{fields[0].setting.metric} on {places} ({runs})"


def differing_conventions(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Key by key, what two metric cards do not share; options are named `options.<name>`."""
    first, second = _flat(one), _flat(other)
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


def _other_samples(first: Field, second: Field) -> Iterator[str]:
    one, other = first.setting, second.setting
    if one.dataset_fingerprint != other.dataset_fingerprint:
        yield f"other data under the name {one.dataset}"
    rows = first.entries[0].row, second.entries[0].row
    if one.model_fingerprint != other.model_fingerprint:
        seeds = "" if rows[0].seed == rows[1].seed else f" (seed {rows[0].seed} vs {rows[1].seed})"
        yield f"other weights under the name {one.model}{seeds}"
    elif one.sampling != other.sampling:
        if not (one.sampling and other.sampling):
            yield "no replicates in one of them: not paired"
        else:
            counts = f"{rows[0].n} vs {rows[1].n} samples, seed {rows[0].seed} vs {rows[1].seed}"
            yield f"other samples or other resamples ({counts}): not paired"
    devices, precisions = zip(rows[0].computed, rows[1].computed, strict=True)
    for words, (mine, theirs) in (("computed on", devices), ("precision", precisions)):
        if mine != theirs:
            yield f"{words}: {mine} vs {theirs}"
    for name in ("split", "target"):
        if getattr(one, name) != getattr(other, name):
            yield f"{name}: {getattr(one, name)} vs {getattr(other, name)}"
