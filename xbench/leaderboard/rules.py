"""Check every header and every row by itself: forms, ranges, names."""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xbench.leaderboard.findings import quoted
from xbench.leaderboard.records import CUSTOM, SUITE_NAME, SUITE_VERSION, Entry, Submission, suite_of
from xbench.results.naming import bare_name
from xbench.results.rows import RunHeader, ScoreRow
from xbench.runtime.precision import PRECISIONS

Fault = tuple[str, str]
"""The field and the message of a fault."""

_CARD = re.compile(r"[0-9a-f]{16}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,39}")
_DEVICE = re.compile(r"[a-z]+(:[0-9]+)?")
_PRINTS = ("fingerprint", "maps_fingerprint", "model_fingerprint", "dataset_fingerprint")
_ALLOWED = {
    "subject": ("shared", "self"),
    "sign": ("original", "absolute"),
    "split": ("train", "validation", "test"),
    "precision": PRECISIONS,
}
_TARGET = re.compile(r"predicted|true|[0-9]{1,6}")
_LABELS = ("dataset", "model", "explainer", "resolved", "metric")
# How a table tells devices and precisions apart.
_STANDING = re.compile(rf"\s*\(\s*[a-z]+\s*,\s*(?:{'|'.join(PRECISIONS)})\s*\)\s*$", re.IGNORECASE)
_LONGEST_LABEL, _LONGEST_TEXT, _LONGEST_NOTE, _LONGEST_NAME = 300, 20_000, 500, 80
_MOST_SAMPLES = 10**8
_INSIDE = 0.85  # of 256 replicates 0.95 lie in a 95 % interval, give or take 0.014
_ROUNDING = 1e-9

_MARKUP = re.compile(r"[<>`|\x7f]")
_PATH = re.compile(r"\\|(?:^|[/:=,])(?:\.\.?(?:/|$)|~|/)")


def name_fault(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Say why a name can't stand in a table, on a page or in a terminal; empty if it can."""
    if not text or len(text) > longest:
        return f"{len(text)} characters; 1 to {longest} are allowed"
    if _control(text) or not text.isprintable():
        return f"{quoted(text)} holds a character that does not print"
    if _MARKUP.search(text):
        return f"{quoted(text)} holds markup (one of < > ` |)"
    if _PATH.search(text):
        return f"{quoted(text)} holds a part of a path (.., ~, \\ or a leading /)"
    if not text[0].isalnum():
        return f"{quoted(text)} does not begin with a letter or digit; a spreadsheet might execute it"
    return ""


def text_fault(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Say why a free text can't be shown; empty if it can."""
    if len(text) > longest:
        return f"{len(text)} characters; {longest} are allowed"
    if _control(text):
        return f"{quoted(text)} holds a control character"
    return ""


def _control(text: str) -> bool:
    """Return whether the text has characters that a terminal or page obeys: control, format, odd line ends."""
    if text.isascii() and text.isprintable():
        return False
    return any(
        letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text
    )


def header_faults(submission: Submission) -> Iterator[Fault]:
    """Yield the faults of the first line."""
    run = submission.run
    if fault := name_fault(submission.submitter, _LONGEST_NAME):
        yield "submitter", fault
    if fault := text_fault(submission.note, _LONGEST_NOTE):
        yield "note", fault
    for field, text in (("submitted", submission.submitted), ("run.created", run.created)):
        if fault := _date_fault(text):
            yield field, fault
    yield from _suite_faults(run)
    if run.command[:1] != ["xbench"]:
        yield "run.command", f"{quoted(run.command[:1])} is not ['xbench']"
    if not _VERSION.fullmatch(run.xbench_version):
        yield "run.xbench_version", f"{quoted(run.xbench_version)} is not a version"
    for field in ("command", "config", "environment", "models", "explainers", "cards", "datasets", "warnings", "suite"):
        yield from _text_faults(getattr(run, field), f"run.{field}")
    for field in ("models", "explainers", "datasets"):
        for index, item in enumerate(getattr(run, field)):
            name = item.get("name")
            fault = name_fault(name) if isinstance(name, str) else f"{quoted(name)} is not text"
            if fault:
                yield f"run.{field}[{index}].name", fault
    for index, model in enumerate(run.models):
        yield from _figure_faults(model, f"run.models[{index}].metrics")


def _date_fault(text: str) -> str:
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        return f"{quoted(text)} is not a date (ISO 8601)"
    if when.tzinfo is None:
        return f"{quoted(text)} has no time zone"
    if when > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1):
        return f"{quoted(text)} has not come yet"
    return ""


def _suite_faults(run: RunHeader) -> Iterator[Fault]:
    name, version, fingerprint = suite_of(run)
    if not SUITE_NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        yield "run.suite.name", f"{quoted(name)} is not a suite's name: lower-case words joined by - _ or ."
    if not SUITE_VERSION.fullmatch(version) or len(version) > 20:
        yield "run.suite.version", f"{quoted(version)} is not a version: 1, or 1.2"
    if not _FINGERPRINT.fullmatch(fingerprint):
        yield "run.suite.fingerprint", f"{quoted(fingerprint)} is not 64 hexadecimal digits"
    own = suite_of(RunHeader(run.created, config=run.config))
    if name.startswith(CUSTOM) and (name, version, fingerprint) != own:
        yield "run.suite.fingerprint", f"a run of this configuration without a suite is {own.name}, not {name}"


def _text_faults(value: Any, where: str) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if fault := text_fault(key, _LONGEST_LABEL):
                yield where, f"key: {fault}"
            else:
                yield from _text_faults(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _text_faults(item, f"{where}[{index}]")
    elif isinstance(value, str) and (fault := text_fault(value)):
        yield where, fault


def _figure_faults(model: Mapping[str, Any], where: str) -> Iterator[Fault]:
    figures = model.get("metrics")
    if not isinstance(figures, Mapping):
        yield where, f"{quoted(figures)} is not an object"
        return
    for name, figure in figures.items():
        if not isinstance(figure, list) or len(figure) != 3 or not all(_is_share(value) for value in figure):
            yield f"{where}.{name}", f"{quoted(figure)} is not value, low, high of -1 to 1"


def _is_share(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1)


def row_faults(entry: Entry) -> Iterator[Fault]:
    """Yield the faults of a row by itself."""
    row = entry.row
    yield from _word_faults(row)
    for name in ("n", "groups", "rank", "rank_high", "seed", "batch_size"):
        if not 0 <= getattr(row, name) <= (2**63 if name == "seed" else _MOST_SAMPLES):
            yield name, f"{getattr(row, name)} is out of range"
    for name in ("seconds_fit", "seconds_maps", "seconds_metric"):
        if not getattr(row, name) >= 0:
            yield name, f"{getattr(row, name)} is no duration"
    if row.groups > row.n:
        yield "groups", f"{row.groups} patients of {row.n} samples"
    if row.rank > row.rank_high:
        yield "rank_high", f"worst rank {row.rank_high} is better than best rank {row.rank}"
    if row.status == "ok":
        yield from _value_faults(entry)
    else:
        yield from _nothing_faults(entry)


def _word_faults(row: ScoreRow) -> Iterator[Fault]:
    yield from _name_faults(row)
    for name in ("reason", "warning"):
        if fault := text_fault(getattr(row, name)):
            yield name, fault
    for name, allowed in _ALLOWED.items():
        if getattr(row, name) not in allowed:
            yield name, f"{quoted(getattr(row, name))} is not one of {', '.join(allowed)}"
    for name, pattern in (("target", _TARGET), ("device", _DEVICE), ("xbench_version", _VERSION)):
        if not pattern.fullmatch(getattr(row, name)):
            yield name, f"{quoted(getattr(row, name))} is no {name.replace('_', ' ')}"
    yield from _print_faults(row)


def _name_faults(row: ScoreRow) -> Iterator[Fault]:
    for name in _LABELS:
        if fault := name_fault(getattr(row, name)):
            yield name, fault
    for name in ("explainer", "resolved"):
        if _STANDING.search(getattr(row, name)):
            yield name, f"{quoted(getattr(row, name))} ends as names do that tell devices apart"
    if bare_name(row.resolved) != bare_name(row.explainer):
        yield "resolved", f"{quoted(row.resolved)} is not {quoted(row.explainer)} with its options"
    for name in ("rank_set", "same_as"):
        given = row.rank_set if name == "rank_set" else tuple(filter(None, [row.same_as]))
        for fault in filter(None, map(name_fault, given)):
            yield name, fault


def _print_faults(row: ScoreRow) -> Iterator[Fault]:
    if row.status == "ok" or row.card:  # what could not be made at all has none
        for name in ("card", *_PRINTS):
            digits, pattern = (16, _CARD) if name == "card" else (64, _FINGERPRINT)
            if not pattern.fullmatch(getattr(row, name)):
                yield name, f"{quoted(getattr(row, name))} is not {digits} hexadecimal digits"


def _value_faults(entry: Entry) -> Iterator[Fault]:
    row, series = entry.row, entry.replicates
    if not row.n:
        yield "n", "a value of 0 samples"
    if row.reason:
        yield "reason", "a cell that went well has no reason"
    if series is None:
        yield "replicates", "are missing: no difference to this row could be tested"
        return
    if not re.fullmatch(_CARD, entry.sampling):
        yield "sampling", f"{quoted(entry.sampling)} is not 16 hexadecimal digits"
    if math.isnan(row.ci_low) != math.isnan(row.ci_high):
        yield "ci_low", "an interval has two ends or none"
    if math.isnan(row.value) or math.isnan(row.ci_low):
        if not math.isnan(row.value):
            yield "ci_low", f"value {row.value!r} has no interval"
        return
    slack = _ROUNDING * max(abs(row.ci_low), abs(row.ci_high), abs(row.value))
    if row.ci_low > row.ci_high:
        yield "ci_low", f"{row.ci_low!r} is above ci_high {row.ci_high!r}"
    elif not row.ci_low - slack <= row.value <= row.ci_high + slack:
        yield "value", f"{row.value!r} lies outside its interval [{row.ci_low!r}, {row.ci_high!r}]"
    elif fault := _replicate_fault(row, series.values, series.step + slack):
        yield "replicates", fault


def _replicate_fault(row: ScoreRow, replicates: np.ndarray, slack: float) -> str:
    """Say why replicates do not fit the row's interval, which means that they are another row's; empty if they do."""
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return "none is defined, but the row has an interval"
    inside = float(((defined >= row.ci_low - slack) & (defined <= row.ci_high + slack)).mean())
    if inside < _INSIDE:
        return (
            f"{inside:.0%} of them lie in the interval [{row.ci_low!r}, {row.ci_high!r}]; of 95 % it would be about 95"
        )
    beyond = float(defined.max() - defined.min()) / 2 + slack
    if row.ci_low < defined.min() - beyond or row.ci_high > defined.max() + beyond:
        return f"the interval [{row.ci_low!r}, {row.ci_high!r}] is much wider than they are spread"
    return ""


def _nothing_faults(entry: Entry) -> Iterator[Fault]:
    row = entry.row
    if not row.reason:
        yield "reason", f"a {row.status} cell says why"
    for name in ("value", "ci_low", "ci_high"):
        if not math.isnan(getattr(row, name)):
            yield name, f"a {row.status} cell has no {name}"
    for name in ("rank", "rank_high"):
        if getattr(row, name):
            yield name, f"a {row.status} cell has no {name}"
    if row.rank_set:
        yield "rank_set", f"a {row.status} cell has none"
    if entry.replicates is not None:
        yield "replicates", f"a {row.status} cell has none"
