"""A report in the making: the runs that it shows, and the files that its panels write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.report.page.places import places
from xbench.report.page.scripts import data_script
from xbench.results.curves import read_curves
from xbench.results.naming import file_name
from xbench.runtime.files import write_text

if TYPE_CHECKING:
    from xbench.comparison import Comparison
    from xbench.report.page.source import Source

FIGURES = "figures"
"""The folder of a report in which its figures lie."""
KINDS = ("svg", "pdf")
"""Files of a figure: ready for the web, ready for a paper."""

Files = dict[str, str]
"""Kind of a file ("csv", "tex", "svg", "pdf") -> its path in the report."""


@dataclass(frozen=True)
class Download:
    """A file that the list of downloads names.

    Attributes:
        words: Content of the file in words.
        path: Path within the report.
        kind: Kind of file in words, such as "CSV".
    """

    words: str
    path: str
    kind: str


class Draft:
    """A report in the making.

    Args:
        comparison: Comparison of the runs.
        sources: The runs, in the same order.
        folder: Folder to write to.
        figures: Whether to draw the figures for papers.
        note: Called with what is being done.

    Attributes:
        places: The datasets and models.
        downloads: Files for the list at the end of the page.
    """

    def __init__(
        self,
        comparison: Comparison,
        sources: Sequence[Source],
        folder: Path,
        figures: bool,
        note: Callable[[str], None],
    ) -> None:
        self.comparison, self.sources, self.folder = comparison, sources, folder
        self.figures, self.note = figures, note
        curves = ((source.name, table) for source in sources for table in read_curves(source.folder))
        self.places = places(comparison, curves)
        self.downloads: list[Download] = []
        self._stems: set[str] = set()

    def stem(self, *words: str) -> str:
        """Return a file name that nothing else in this report has."""
        stem = wanted = file_name(*words)
        number = 1
        while stem.lower() in self._stems:  # some file systems don't tell a from A
            number += 1
            stem = f"{wanted}-{number}"
        self._stems.add(stem.lower())
        return stem

    def text(self, name: str, text: str) -> str:
        """Write a text file and return its name."""
        write_text(self.folder / name, text)
        return name

    def data(self, name: str, data: Any) -> str:
        """Write a script that hands `data` to the page when the page loads it, and return its path."""
        return self.text(f"data/{name}.js", data_script(name, data))

    def files(self, paths: Sequence[Path]) -> Files:
        """Return the kinds and paths of figures that were drawn into the report."""
        return {path.suffix[1:]: path.relative_to(self.folder).as_posix() for path in paths}

    def offer(self, words: str, path: str, kind: str) -> None:
        """Name a file in the list of downloads."""
        self.downloads.append(Download(words, path, kind))
