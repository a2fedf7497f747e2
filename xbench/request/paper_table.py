"""Printed tables: a CSV file of a paper's numbers, and the labels of xbench that each number belongs to."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from xbench.contracts.options import Field, Options, OptionsType, parse_options, suggestion
from xbench.errors import UserError
from xbench.request.config import TableConfig

if TYPE_CHECKING:
    from xbench.results.paper import PaperRow


class Target(Options):
    """The cell of xbench beside a number of the paper. An empty word is taken from the enclosing entry."""

    explainer: str = Field("", description="reference; empty: xbench has no explainer for the paper's method")
    metric: str = Field("", description="reference; default: the table's only metric")
    quantity: str = Field("", description="instead of a metric: what the paper measured and xbench does not, in words")
    sign: Literal["", "original", "absolute"] = Field("", description="sign of xbench's maps; default: original")
    model: str = Field("", description="reference; default: the table's only model")


class PaperColumn(Target):
    """A column of the paper's table that holds numbers."""

    value: str = Field(description="header of the numbers")
    low: str = Field("", description="header of the lower ends of the 95 % intervals")
    high: str = Field("", description="header of the upper ends of the 95 % intervals")
    scale: float = Field(1.0, description="factor that converts the numbers to xbench's unit")


class Paper(Target):
    """One printed table: a CSV file of its numbers, and the labels of xbench that each number belongs to."""

    table: str = Field(description="name of the suite's table")
    citation: str = Field(description="the paper and its table")
    file: str = Field(description="CSV file, relative to the folder of the suite")
    name: str = Field(description="header of the names of the paper's rows")
    rows: dict[str, Target] = Field(description="name of each row -> the explainer, or a table of options")
    column: tuple[PaperColumn, ...] = Field(min_length=1, description="the columns that hold numbers")

    @field_validator("rows", mode="before")
    @classmethod
    def _explainers(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: {"explainer": row} if isinstance(row, str) else row for name, row in value.items()}


def read_paper(words: dict[str, Any], where: str) -> Paper:
    """Return a `[[paper]]` of a suite.

    Raises:
        UserError: A key is unknown, missing or wrong.
    """
    columns, rows = words.get("column"), words.get("rows")
    for column in columns if isinstance(columns, list) else []:
        check_keys(column, PaperColumn, f"{where}, column")
    for name, row in rows.items() if isinstance(rows, dict) else []:
        check_keys(row, Target, f"{where}, row {name!r}")
    return read_words(Paper, words, where)


def read_words(options: type[OptionsType], words: Mapping[str, Any], where: str) -> OptionsType:
    """Return the options in a table of a TOML file.

    Raises:
        UserError: A key is unknown, missing or wrong.
    """
    check_keys(words, options, where)
    for name, field in options.model_fields.items():
        if field.is_required() and name not in words:
            raise UserError(f"{where} lacks {name!r}", field.description or "")
    return parse_options(options, words, where)


def check_keys(words: Any, options: type[Options], where: str) -> None:
    """Refuse keys that `options` does not have. Words that are not a table are left to the validation of `options`.

    Raises:
        UserError: A key is unknown. The error names it and similar keys.
    """
    for key in words if isinstance(words, Mapping) else ():
        if key not in options.model_fields:
            raise UserError(f"{where} has no key {key!r}", suggestion(key, options.model_fields))


def printed_rows(paper: Paper, table: TableConfig, folder: Path) -> Iterator[PaperRow]:
    """Yield the numbers of one printed table, in xbench's unit.

    Args:
        paper: The suite's entry for the printed table.
        table: The suite's table that it belongs to.
        folder: Folder of the suite.

    Raises:
        UserError: The file can't be read or lacks a column, the rows of the file and of the suite differ, a cell is not
            a number, or a number belongs to no metric or model of the table.
    """
    from xbench.results.paper import PaperRow

    path = folder / paper.file
    records = _records(path, {paper.name, *_headers(paper)})
    _check_rows(paper, [record[paper.name] for record in records], path)
    for record in records:
        name = record[paper.name]
        for column in paper.column:
            if record[column.value].strip():
                target = _target(table, (paper, column, paper.rows[name]), f"{path}, row {name!r}")
                value, low, high = (
                    _number(record, header, column.scale, path) for header in (column.value, column.low, column.high)
                )
                yield PaperRow(paper.table, paper.citation, name, *target, value, low, high)


def _check_rows(paper: Paper, names: list[str], path: Path) -> None:
    for name in names:
        if name not in paper.rows:
            hint = f'{json.dumps(name)} = "an explainer", or "" if xbench has none'
            raise UserError(f"{path}: the suite does not say what row {name!r} is", hint)
    for name in paper.rows:
        if name not in names:
            raise UserError(f"{path} has no row {name!r}", suggestion(name, names))


def _headers(paper: Paper) -> Iterator[str]:
    for column in paper.column:
        yield from filter(None, (column.value, column.low, column.high))


def _records(path: Path, headers: Iterable[str]) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the paper's numbers {path} can't be read: {error}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    known = reader.fieldnames or []
    for header in headers:
        if header not in known:
            raise UserError(f"{path} has no column {header!r}", suggestion(header, known))
    return [{key: value or "" for key, value in record.items() if key} for record in reader]


def _number(record: Mapping[str, str], header: str, scale: float, path: Path) -> float:
    text = record[header].strip() if header else ""
    try:
        return float(text) * scale if text else math.nan
    except ValueError:
        raise UserError(f"{path}, column {header!r}: {text!r} is not a number") from None


def _target(table: TableConfig, levels: Sequence[Target], where: str) -> tuple[str, str, str, str]:
    """Return metric (or quantity), explainer, sign and model.

    Each is what the innermost level says. If no level names it, it is the only one that the table has.
    """

    def word(name: str) -> str:
        return next((getattr(level, name) for level in reversed(levels) if getattr(level, name)), "")

    measured = next((level for level in reversed(levels) if level.metric or level.quantity), Target())
    if measured.metric and measured.quantity:
        raise UserError(f"{where}: both metric and quantity {measured.quantity!r}", "keep the metric if there is one")
    if measured.quantity:
        return measured.quantity, word("explainer"), word("sign"), word("model")
    references = {"metric": measured.metric or _only(table.metric), "model": word("model") or _only(table.model)}
    for kind, reference in references.items():
        offered = getattr(table, kind)
        if not reference:
            raise UserError(f"{where}: the suite's table has several {kind}s", f"say which: {kind} = ...")
        if reference not in offered and "all" not in offered:
            hint = suggestion(reference, map(str, offered))
            raise UserError(f"{where}: {kind} {reference!r} is not in the suite's table", hint)
    sign = word("sign") or ("original" if table.sign == "both" else table.sign)
    return references["metric"], word("explainer"), sign, references["model"]


def _only(references: tuple[Any, ...]) -> str:
    return references[0] if len(references) == 1 and isinstance(references[0], str) else ""
