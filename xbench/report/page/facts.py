"""Records as lists of facts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


def flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names and values of a record as texts; nested names are joined by blanks, empty values left out."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name} ")
        elif isinstance(value, list | tuple):
            if value:
                yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        elif value not in (None, ""):
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)


def seconds(value: float) -> float:
    """Return a time, or 0 where none was measured."""
    return 0.0 if math.isnan(value) else value
