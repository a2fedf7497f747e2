"""The runs that a report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A run that a report is made of.

    Attributes:
        name: What the comparison calls it.
        folder: Where it lies.
    """

    name: str
    folder: Path
