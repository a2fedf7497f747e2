"""Report what is wrong with a submission, by file, line and field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xbench.errors import UserError

_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a submission.

    Attributes:
        file: Path of the file.
        message: Description of the fault, with the value.
        line: Number of the line, from 1; 0 where the finding is about the whole file.
        field: Which value of the line; empty where the finding is about the whole line.
    """

    file: str
    message: str
    line: int = 0
    field: str = ""

    def __str__(self) -> str:
        where = [self.file, *([f"line {self.line}"] if self.line else []), *([self.field] if self.field else [])]
        return f"{', '.join(where)}: {self.message}"


def refuse(findings: Iterable[Finding]) -> None:
    """Raise if there are any findings.

    Raises:
        UserError: There are; the first of them are listed.
    """
    lines = [str(finding) for finding in findings]
    if lines:
        more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise UserError("\n  ".join(["the submissions are not in order:", *lines[:_SHOWN], *more]))


def quoted(value: object) -> str:
    """Quote a value for a message: what a terminal would obey is spelt out, and long values are cut."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
