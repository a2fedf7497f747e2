"""Progress on a terminal: a bar with ETA for each running piece of work, and plain lines where there is no terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from xbench.contracts.session import Bar

_EVERY = 15.0  # seconds between lines where there is no terminal


_WIDE = 160  # columns of a page without an edge, such as a file


def results_console() -> Console:
    """Return the console of stdout. For a file or a pipe, it is as wide as a large screen unless $COLUMNS is set."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console


class LiveProgress:
    """The live display of `xbench run`. It is on stderr, so that stdout holds only results.

    Attributes:
        warnings: All warnings so far.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.warnings: list[str] = []
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=14),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[words]}"),
            console=self.console,
            transient=True,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show bars in the block."""
        if not self.console.is_terminal:
            yield
            return
        with self._bars:
            yield

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Bar]:
        """Show a piece of work until it ends."""
        if not self.console.is_terminal:
            yield _Lines(self.console, label, total)
            return
        number = self._bars.add_task(label, total=total, words="")
        try:
            yield _Live(self._bars, number)
        finally:
            self._bars.remove_task(number)

    def warn(self, text: str) -> None:
        """Show a warning and keep it above the bars."""
        self.warnings.append(text)
        self.console.print(f"warning: {text}", style="yellow", markup=False, highlight=False)

    def say(self, text: str) -> None:
        """Show a line and keep it above the bars, such as a stage that is done."""
        self.console.print(text, markup=False, highlight=False)


class _Live:
    def __init__(self, bars: Progress, number: TaskID) -> None:
        self._bars, self._number = bars, number

    def advance(self, amount: float = 1) -> None:
        self._bars.advance(self._number, amount)

    def note(self, text: str) -> None:
        self._bars.update(self._number, words=text)


class _Lines:
    """Progress in logs: a line now and then, if the work takes long."""

    def __init__(self, console: Console, label: str, total: float | None) -> None:
        self._console, self._label, self._total = console, label, total
        self._done, self._words, self._last = 0.0, "", time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        if time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            of = f" of {self._total:g}" if self._total else ""
            line = f"  {self._label}: {round(self._done, 1):g}{of}  {self._words}"
            self._console.print(line, markup=False, highlight=False)

    def note(self, text: str) -> None:
        self._words = text
