"""Write files and folders whole or not at all: under a name of their own first, then renamed.

A process that is killed, or a disk that is full, leaves the file that was there before, and never half of a new one.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
"""How the names of unfinished files and folders end. What is left of them after a kill may be deleted."""

_NUMBERS = itertools.count()


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written in binary; it takes its name at the end of the block.

    Its folder is made. If the block raises, what was written is deleted and a file of that name stays as it was.

    Raises:
        OSError: It can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole, with the line ends of `text`.

    Raises:
        OSError: It can't be written.
    """
    with whole_file(path) as file:
        file.write(text.encode())


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Make a hidden folder beside `path`, to be filled and then renamed by the caller; what is left of it is deleted.

    Raises:
        OSError: It can't be made.
    """
    partial = _beside(path)
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(partial: Path, path: Path) -> None:
    """Rename a folder to `path`. A folder of that name is deleted first.

    Raises:
        OSError: One can't be deleted or the other not renamed.
    """
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)


def _beside(path: Path) -> Path:
    """Return a hidden name in the same folder that no other writer takes, in this process or another."""
    return path.with_name(f".{os.getpid()}-{next(_NUMBERS)}{PARTIAL}")
