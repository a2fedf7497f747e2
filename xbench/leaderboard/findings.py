"""What is wrong with a submission, by file, line and field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xbench.errors import UserError

_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """Something that a submission must not be.

    Attributes:
        file: Path of the file.
        message: What is wrong, with the value.
        line: From 1; 0 where it is about the whole file.
        field: Which value of the line; empty where it is about the whole line.
    """

    file: str
    message: str
    line: int = 0
    field: str = ""

    def __str__(self) -> str:
        where = [self.file, *([f"line {self.line}"] if self.line else []), *([self.field] if self.field else [])]
        return f"{', '.join(where)}: {self.message}"


def refuse(findings: Iterable[Finding]) -> None:
    """Raise if there are any.

    Raises:
        UserError: Listing the first of them.
    """
    found = [str(finding) for finding in findings]
    if found:
        more = [f"... and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise UserError("\n  ".join(["the submissions are not in order:", *found[:_SHOWN], *more]))


def quoted(value: object) -> str:
    """A value for a message: what a terminal would obey is spelt out, and long ones are cut."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
