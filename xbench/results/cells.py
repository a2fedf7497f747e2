"""Write and read the cells of the CSV tables of xbench: exact, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from xbench.errors import UserError

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what makes a spreadsheet execute a cell (OWASP, "CSV injection")
_SEPARATOR = "|"


def csv_text(columns: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> str:
    r"""Return a CSV table: a line of names, and a line per record.

    Lines end as RFC 4180 says, in \r\n. With another line end Python leaves a \r in a cell unquoted.

    Args:
        columns: Name of each column -> its type, as `cell_text` takes it.
        records: Name of each column -> its value; other names are ignored.

    Raises:
        UserError: A name in a list holds the separator "|".
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for record in records:
        writer.writerow([cell_text(record[name], kind) for name, kind in columns.items()])
    return text.getvalue()


def cell_text(value: Any, kind: Any) -> str:
    """Return a CSV cell: floats to the last bit, NaN empty, what a spreadsheet would execute behind an apostrophe.

    Raises:
        UserError: A name in a rank set holds the separator "|".
    """
    if kind is float:
        return "" if math.isnan(value) else repr(float(value))
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(int(value))
    if get_origin(kind) is tuple:
        if any(_SEPARATOR in name for name in value):
            raise UserError(f"rank set {value} can't be written: a name holds {_SEPARATOR!r}", "rename the explainer")
        value = _SEPARATOR.join(value)
    return f"'{value}" if value.startswith((*_FORMULA, "'")) else str(value)


def cell_value(text: str, kind: Any, where: str) -> Any:
    """Return the value of a cell; the inverse of `cell_text`.

    Raises:
        UserError: It is not of its kind (`where` is named).
    """
    try:
        if kind is float:
            return float(text) if text else math.nan
        if kind is int:
            return int(text)
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]  # spreadsheets save TRUE
    except (ValueError, KeyError):
        wanted = {float: "a number", int: "a whole number", bool: "true or false"}[kind]
        raise UserError(f"{where}: {text!r} is not {wanted}") from None
    text = text.removeprefix("'")
    if get_origin(kind) is tuple:
        return tuple(text.split(_SEPARATOR)) if text else ()
    if get_origin(kind) is Literal and text not in get_args(kind):
        raise UserError(f"{where}: {text!r} is not one of {', '.join(get_args(kind))}")
    return text
