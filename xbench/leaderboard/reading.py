"""Read the file of a submission, or say what is wrong with its form."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from xbench.errors import UserError
from xbench.leaderboard.findings import Finding, quoted, refuse
from xbench.leaderboard.records import RUNS, Entry, Submission, content_digest
from xbench.leaderboard.thinning import from_record
from xbench.results.cells import cell_value
from xbench.results.rows import HEADER_UPGRADES, ROW_UPGRADES, Record, RunHeader, ScoreRow, upgraded

MOST_BYTES = 32 << 20
MOST_ROWS = 20_000
_LONGEST_ROW = 1 << 18
_DEEPEST = 20
_HUGE = 1e300

SUBMISSION_UPGRADES = dict.fromkeys((1, 2, 3), lambda header: header)
"""From schema n to n + 1: the header of a submission without its run, which has steps of its own."""

_TEXTS = ("submitter", "submitted", "note", "digest")
_HEADER_FIELDS = ("schema", *_TEXTS, "rows", "run")
_ROW_TYPES = get_type_hints(ScoreRow)
_RUN_TYPES = {name: get_origin(hint) or hint for name, hint in get_type_hints(RunHeader).items()}
_OF_THE_FILE = ("replicates", "sampling")


class _FaultError(Exception):
    """Carry a finding up: its field and its message."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def read_submission(path: Path) -> Submission:
    """Read one file.

    Raises:
        UserError: Its form is wrong; everything wrong is listed.
    """
    submission, findings = inspect(path)
    refuse(findings)
    assert submission is not None
    return submission


def read_board(board: Path) -> list[Submission]:
    """Read all submissions of a leaderboard, in the order of their names.

    Raises:
        UserError: There is none, or the form of one is wrong.
    """
    read = [inspect(path) for path in submission_files(board)]
    refuse(finding for _, findings in read for finding in findings)
    return [submission for submission, _ in read if submission is not None]


def submission_files(board: Path) -> list[Path]:
    """List the files of a leaderboard, by name.

    Raises:
        UserError: It is not a leaderboard.
    """
    if not (board / RUNS).is_dir():
        raise UserError(f"{board} is not a leaderboard: it has no folder {RUNS}", "xbench leaderboard add RUN makes it")
    return sorted(path for path in (board / RUNS).iterdir() if not path.name.startswith("."))


def inspect(path: Path) -> tuple[Submission | None, list[Finding]]:
    """Return the submission of a file, and what is wrong with its form. There may be no submission then."""
    try:
        records = _records(_text(path))
    except _FaultError as fault:
        return None, [Finding(str(path), fault.message, field=fault.field)]
    findings: list[Finding] = []
    header, *rows = _parsed_lines(path, records, findings)
    run = _checked(path, 1, findings, _read_header, header)
    entries = [
        _checked(path, number, findings, _read_entry, row) for number, row in enumerate(rows, 2) if row is not None
    ]
    if findings or header is None or run is None:
        return None, findings
    findings += [Finding(str(path), message, 1, field) for field, message in _misfits(header, rows)]
    if not rows:
        return None, findings
    texts = {name: header[name] for name in _TEXTS}
    return Submission(**texts, run=run, entries=tuple(entry for entry in entries if entry)), findings


def _text(path: Path) -> str:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a file"
            raise _FaultError("", f"it is {kind}; a submission is a plain file")
        if status.st_size > MOST_BYTES:
            raise _FaultError("", f"{status.st_size / 2**20:.0f} MiB are more than the {MOST_BYTES >> 20} MiB allowed")
        content = path.read_bytes()
    except OSError as error:
        raise _FaultError("", f"can't be read: {error.strerror}") from None
    if content.startswith(b"\xef\xbb\xbf"):
        raise _FaultError("", "it begins with a byte-order mark; write plain UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise _FaultError("", f"not UTF-8: byte {error.start} (line {number}) is wrong") from None


def _records(text: str) -> list[str]:
    if not text.endswith("\n"):
        raise _FaultError("", "the last line has no end: the file is empty or cut off")
    lines = text[:-1].split("\n")
    if len(lines) - 1 > MOST_ROWS:
        raise _FaultError("", f"{len(lines) - 1} rows are more than the {MOST_ROWS} allowed")
    return lines


# --- lines -----------------------------------------------------------------------------------------------------------


def _parsed_lines(path: Path, lines: list[str], findings: list[Finding]) -> list[Record | None]:
    parsed: list[Record | None] = []
    for number, text in enumerate(lines, 1):
        if number > 1 and len(text) > _LONGEST_ROW:
            findings.append(Finding(str(path), f"a row of {len(text)} characters; {_LONGEST_ROW} are allowed", number))
            parsed.append(None)
        else:
            parsed.append(_checked(path, number, findings, _object, text))
    return parsed


def _checked(path: Path, number: int, findings: list[Finding], read: Any, value: Any) -> Any:
    """Return `read(value)`; if it is refused, add a finding and return None."""
    if value is None:
        return None
    try:
        return read(value)
    except _FaultError as fault:
        findings.append(Finding(str(path), fault.message, number, fault.field))
    return None


def _object(text: str) -> Record:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        depth = _depth(value)
    except json.JSONDecodeError as error:
        raise _FaultError("", f"not JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise _FaultError("", "its objects are nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise _FaultError("", f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _FaultError("", f"a {type(value).__name__}, not an object")
    if depth > _DEEPEST:
        raise _FaultError("", f"its objects are nested more than {_DEEPEST} deep")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _FaultError(twice if twice.isidentifier() else "", f"key {quoted(twice)} is there twice")
    return record


def _no_constant(text: str) -> float:
    raise _FaultError("", f"{text} is no JSON; write null where there is no value")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _FaultError("", f"{quoted(text)} is no finite number")
    return value


def _depth(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, below), default=0)


# --- header and rows -------------------------------------------------------------------------------------------------


def _read_header(record: Record) -> RunHeader:
    record = _upgraded(record, SUBMISSION_UPGRADES)
    _check_keys(record, _HEADER_FIELDS)
    for name in _TEXTS:
        _check_type(record[name], str, name)
    _check_type(record["rows"], int, "rows")
    _check_type(record["run"], dict, "run")
    run = _upgraded(record["run"], HEADER_UPGRADES, "run")
    _check_keys(run, _RUN_TYPES, "run")
    for name, kind in _RUN_TYPES.items():
        _check_type(run[name], kind, f"run.{name}")
    for name, kind in {"command": str, "warnings": str, "models": dict, "explainers": dict, "datasets": dict}.items():
        for index, item in enumerate(run[name]):
            _check_type(item, kind, f"run.{name}[{index}]")
    seconds = run["wall_seconds"]
    return RunHeader(**run | {"wall_seconds": math.nan if seconds is None else float(seconds)})


def _upgraded(record: Record, steps: Mapping[int, Any], parent: str = "") -> Record:
    """Upgrade a record to the present schema; `parent` is the field that holds it, empty for a whole line."""
    number = record.get("schema")
    if isinstance(number, bool) or not isinstance(number, int):
        raise _FaultError(_path(parent, "schema"), f"{quoted(number)} is not a whole number")
    if not isinstance(record.get("xbench_version", ""), str):
        raise _FaultError(_path(parent, "xbench_version"), f"{quoted(record['xbench_version'])} is not text")
    try:
        return upgraded(record, steps, "")
    except UserError as error:
        raise _FaultError(_path(parent, "schema"), str(error)) from None


def _read_entry(record: Record) -> Entry:
    own = {name: record[name] for name in _OF_THE_FILE if name in record}
    _check_keys(own, _OF_THE_FILE)
    given = {name: value for name, value in record.items() if name not in own}
    row = _upgraded(given, ROW_UPGRADES)
    _check_keys(row, _ROW_TYPES)
    for name in given:
        _check_type(row[name], _ROW_TYPES[name], name)
    # A step that adds a column writes the text that a CSV file would hold.
    row |= {name: cell_value(row[name], _ROW_TYPES[name], name) for name in row.keys() - given.keys()}
    for name, kind in _ROW_TYPES.items():
        if kind is float:
            row[name] = math.nan if row[name] is None else float(row[name])
    _check_type(own["sampling"], str, "sampling")
    try:
        replicates = None if own["replicates"] is None else from_record(own["replicates"])
    except ValueError as error:
        raise _FaultError("replicates", str(error)) from None
    return Entry(ScoreRow(**row | {"rank_set": tuple(row["rank_set"])}), replicates, own["sampling"])


def _path(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


def _check_keys(record: Mapping[str, Any], wanted: Any, parent: str = "") -> None:
    for name in wanted:
        if name not in record:
            raise _FaultError(_path(parent, name), "is missing")
    for name in record:
        if name not in wanted:
            raise _FaultError(parent, f"{quoted(name)} is unknown")


def _check_type(value: Any, kind: Any, field: str) -> None:
    words = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE
        fits, wanted = value is None or number, "a number"
    elif kind is int:
        number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _HUGE
        fits, wanted = number, words[int]
    elif get_origin(kind) is tuple:
        fits, wanted = isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of names"
    elif get_args(kind):
        fits, wanted = value in get_args(kind), f"one of {', '.join(get_args(kind))}"
    else:
        fits, wanted = isinstance(value, kind), words[kind]
    if not fits:
        raise _FaultError(field, f"{quoted(value)} is not {wanted}")


def _misfits(header: Record, rows: list[Any]) -> Iterator[tuple[str, str]]:
    if not rows:
        yield "rows", "there is no row"
    if header["rows"] != len(rows):
        yield "rows", f"{header['rows']} rows are promised and {len(rows)} are there"
    elif header["digest"] != content_digest(header["run"], rows):
        yield "digest", "does not fit the run and its rows: something was changed after it was handed in"
