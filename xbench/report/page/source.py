"""The runs that a report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A run that a report is made of.

    Attributes:
        name: Name of the run in the comparison.
        folder: Folder of the run.
    """

    name: str
    folder: Path
