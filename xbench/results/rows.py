"""Keep the score rows (CSV) and the header (JSON) of a run; the observations are in `observations.py`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np

from xbench.errors import UserError
from xbench.results.cells import cell_value, csv_text
from xbench.results.numbers import rank_range
from xbench.runtime.files import write_text
from xbench.version import __version__

SCHEMA = 4
"""The schema number of every file this module writes; raised with each change of a file's meaning or columns."""

Status = Literal["ok", "failed", "skipped"]
Record = dict[str, Any]

ROW_UPGRADES: dict[int, Callable[[Record], Record]] = {
    1: lambda row: row | {"same_as": ""},
    2: lambda row: row | {"warning": ""},
    3: lambda row: row | {"resolved": row.get("explainer", "")},
}
"""From schema n to n + 1: a row of text cells, as read from the CSV file."""
HEADER_UPGRADES: dict[int, Callable[[Record], Record]] = {
    1: lambda header: header,
    2: lambda header: header | {"suite": {}},
    3: lambda header: header,
}
"""From schema n to n + 1: the JSON object of the header."""


@dataclass(frozen=True)
class ScoreRow:
    """One explainer's value of one metric. A cell that failed has NaN values and a reason.

    Attributes:
        dataset: Name of the dataset.
        split: The split scored.
        n: Number of samples scored.
        groups: Number of patients scored.
        model: The classifier.
        explainer: The explainer, as the run named it.
        resolved: The explainer's reference with nothing left open: what `vinet` stood for on this device,
            "vinet:preset=paper". The same as `explainer` where nothing was left open, where the explainer can't be
            made, and in rows of schema 3 and older, which did not say.
        subject: "shared": its maps are scored against the model; "self": against the explainer's own classifier.
        control: It must lose.
        sign: "original", or "absolute" values of the maps.
        target: Target rule: "predicted", "true" or a class index.
        metric: The metric.
        value: Value over all samples.
        ci_low: Lower end of the 95 % interval.
        ci_high: Upper end of the 95 % interval.
        higher_is_better: Direction of the metric.
        rank: Best possible rank among the explainers of this dataset, model, metric and sign; 0 where it has none.
        rank_high: Worst possible rank.
        rank_set: The explainers it can't be told apart from.
        same_as: An explainer that gives the same maps of this model: they are one method here and share their ranks.
        seed: Seed of the run.
        seconds_fit: Seconds spent on training the explainer.
        seconds_maps: Seconds spent on the maps of the split.
        seconds_metric: Seconds spent on the metric.
        card: Hash of the metric card; rows of different cards are never ranked together.
        fingerprint: Fingerprint of the observations.
        maps_fingerprint: Fingerprint of the maps.
        model_fingerprint: Fingerprint of the model's weights.
        dataset_fingerprint: Fingerprint of the dataset and the samples scored, the same on every machine
            (`DataJob.dataset_identity`).
        device: "cpu", "cuda", ...
        precision: One of `xbench.runtime.precision.PRECISIONS`.
        batch_size: Images per pass without gradients.
        status: "ok", "failed" or "skipped".
        reason: Why the status is not "ok".
        warning: Reason to doubt the value, such as an explainer that says its training failed.
        xbench_version: Version that wrote the row.
        schema: Schema number of the row.
    """

    dataset: str
    split: str
    n: int
    groups: int
    model: str
    explainer: str
    resolved: str
    subject: str
    control: bool
    sign: str
    target: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    higher_is_better: bool
    rank: int
    rank_high: int
    rank_set: tuple[str, ...]
    same_as: str
    seed: int
    seconds_fit: float
    seconds_maps: float
    seconds_metric: float
    card: str
    fingerprint: str
    maps_fingerprint: str
    model_fingerprint: str
    dataset_fingerprint: str
    device: str
    precision: str
    batch_size: int
    status: Status = "ok"
    reason: str = ""
    warning: str = ""
    xbench_version: str = __version__
    schema: int = SCHEMA

    @property
    def computed(self) -> tuple[str, str]:
        """Type of the device, and precision. Rows that differ in it are never averaged: "cuda:1" counts as "cuda"."""
        return self.device.partition(":")[0], self.precision

    @property
    def ranks(self) -> str:
        """The ranks that the data allow: "1" or "2–4"; empty without one."""
        return rank_range(self.rank, self.rank_high)


@dataclass(frozen=True)
class RunHeader:
    """Header of a run, with what is true of all its rows.

    Attributes:
        created: ISO 8601, with the time zone.
        command: Words of the command line.
        config: Everything the run was asked for, defaults included.
        environment: Versions, platform, cpu, device.
        models: One object each: "name", "dataset", "n", "metrics" (name -> [value, low, high]), "calibration" (the
            fields of `xbench.statistics.reliability.Calibration`), all of the scored split, and more.
        explainers: One object each: "name", "resolved" (as in `ScoreRow`), "control", and facts (parameters, epochs,
            seconds).
        cards: Hash of a metric card -> the card.
        datasets: One object each: the fields of `DatasetInfo`, and "class_counts" (split -> counts).
        warnings: Warnings for the user.
        suite: The suite that was run: "name", "version", "fingerprint"; empty without one.
        wall_seconds: Seconds that the whole run took.
        xbench_version: Version that wrote the header.
        schema: Schema number of the header.
    """

    created: str
    command: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)
    explainers: list[dict[str, Any]] = field(default_factory=list)
    cards: dict[str, Any] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    suite: dict[str, Any] = field(default_factory=dict)
    wall_seconds: float = math.nan
    xbench_version: str = __version__
    schema: int = SCHEMA


_TYPES = get_type_hints(ScoreRow)
_HEADER_TYPES = {name: get_origin(hint) or hint for name, hint in get_type_hints(RunHeader).items()}
_NUMBER = (float, int, type(None))


def write_scores(rows: Iterable[ScoreRow], path: Path) -> None:
    """Write rows as CSV, whole or not at all: floats to the last bit, NaN as an empty cell, formulas defused.

    Text that a spreadsheet would execute (or that starts with an apostrophe) gets a leading apostrophe, which
    `read_scores` takes away again.

    Raises:
        UserError: A name in a rank set holds the separator "|".
    """
    write_text(path, csv_text(_TYPES, map(vars, rows)))


def read_scores(path: Path) -> list[ScoreRow]:
    """Read rows of this schema or an older one.

    Raises:
        UserError: The file can't be read, is of a newer schema, or has a wrong row (file, line and column are named).
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    names = list(reader.fieldnames or [])
    if not names:
        raise UserError(f"{path} is empty", "a table of scores starts with a line of column names")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path}, line 1: column {twice[0]} is there twice")
    rows = []
    try:
        for record in reader:
            rows.append(_row(record, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a CSV table: {error}") from error
    if not rows:
        _check_names(names, _TYPES, f"{path}, line 1: column")
    return rows


def _row(record: dict[Any, Any], where: str) -> ScoreRow:
    if None in record:
        raise UserError(f"{where}: {len(record[None])} more cells than columns")
    cut = [name for name, text in record.items() if text is None]
    if cut:
        raise UserError(f"{where}, column {cut[0]}: no cell", "the line is cut off")
    if "schema" not in record:
        raise UserError(f"{where}: column schema is missing", "is this a table of scores?")
    number = cell_value(record["schema"], int, f"{where}, column schema")
    record = upgraded(record | {"schema": number}, ROW_UPGRADES, where)
    _check_names(record, _TYPES, f"{where}: column")
    return ScoreRow(
        **{name: cell_value(str(record[name]), kind, f"{where}, column {name}") for name, kind in _TYPES.items()}
    )


def _check_names(names: Iterable[str], wanted: Iterable[str], where: str) -> None:
    present, expected = list(names), list(wanted)
    for name in expected:
        if name not in present:
            raise UserError(f"{where} {name!r} is missing")
    for name in present:
        if name not in expected:
            raise UserError(f"{where} {name!r} is unknown")


def write_header(header: RunHeader, path: Path) -> None:
    """Write the header as JSON, whole or not at all. NaN and infinity become null: JSON has no word for them."""
    text = json.dumps(_plain(dataclasses.asdict(header)), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_header(path: Path) -> RunHeader:
    """Read a header of this schema or an older one. A null inside it stays None; a null of `wall_seconds` is NaN again.

    Raises:
        UserError: The file can't be read, is of a newer schema, or has a missing, unknown or mistyped field.
    """
    try:
        record = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise UserError(f"{path}: no whole number under 'schema'", "is this the header of a run?")
    record = upgraded(record, HEADER_UPGRADES, str(path))
    _check_names(record, _HEADER_TYPES, f"{path}: field")
    for name, kind in _HEADER_TYPES.items():
        if not isinstance(record[name], _NUMBER if kind is float else kind):
            raise UserError(f"{path}: field {name!r} is of type {type(record[name]).__name__}, not {kind.__name__}")
    seconds = record["wall_seconds"]
    return RunHeader(**record | {"wall_seconds": math.nan if seconds is None else float(seconds)})


def _plain(value: Any) -> Any:
    """Return `value` in JSON's terms."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def upgraded(record: Record, steps: Mapping[int, Callable[[Record], Record]], where: str) -> Record:
    """Return the record in the present schema, upgraded one step after the other.

    Args:
        record: Record with its own schema number under "schema", and the version that wrote it under "xbench_version".
        steps: Steps from schema n to n + 1.
        where: The file, for messages; empty where the caller names it.

    Raises:
        UserError: The record is newer than this xbench, or older than any that it knows.
    """
    number = record["schema"]
    named = f"{where}: " if where else ""
    if number > SCHEMA:
        writer = record.get("xbench_version") or "of a later version"
        raise UserError(
            f"{named}schema {number} is newer than schema {SCHEMA}, the last that xbench {__version__} reads",
            f"it was written by xbench {writer}: install that version or a later one",
        )
    for step in range(number, SCHEMA):
        if step not in steps:
            raise UserError(f"{named}schema {step} is unknown", f"xbench {__version__} reads up to {SCHEMA}")
        record = steps[step](record) | {"schema": step + 1}
    return record


def read_text(path: Path) -> str:
    """Read the text of a UTF-8 file, with its line ends, without a byte-order mark.

    Raises:
        UserError: It can't be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} is wrong") from error
