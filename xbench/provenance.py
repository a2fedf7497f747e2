"""Hash everything that decides a number: values, files, folders and the code of the core."""

from __future__ import annotations

import functools
import hashlib
import json
import time
import zipfile
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from xbench.errors import PluginError

COMPUTING = ("compute", "contracts", "errors.py", "jobs", "provenance.py", "registry", "runtime", "statistics")
"""The parts of the core that decide what is in an artifact. All that a job or a plugin may import lies in them."""

_SETTLED = 2.0
"""Seconds after which another change to a file is sure to get another time stamp."""

_remembered: dict[tuple[int, ...], str] = {}


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files under a folder.

    A file is read again only if it may have changed since this process last read it: its number, its size, or the times
    of its last modification and last change of state tell. A file that changed in the last two seconds is always read.

    Raises:
        OSError: Something of it can't be read.
    """
    if path.is_dir():
        return tree_digest(dict(files_under(path)))
    return _unchanged_digest(path)


def tree_digest(files: Mapping[str, Traversable]) -> str:
    """Return the SHA-256 of the names and contents of files, independent of their order and of where they lie.

    Args:
        files: Name, relative to a root, to the file, which may lie in a zip file.
    """
    return digest([[name, _traversable_digest(files[name])] for name in sorted(files)])


def files_under(root: Traversable, name: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield all files of a folder, each with its path below `name`; a file yields itself as `name`."""
    yield from _walk(root, name, frozenset())


def code_files(root: Traversable, name: str) -> dict[str, Traversable]:
    """Return the files of a module or package, its data included; without what Python compiled.

    Args:
        root: The file or folder.
        name: Beginning of the paths: "package" or "module.py".

    Raises:
        PluginError: There is none.
    """
    files = {path: file for path, file in files_under(root, name) if not is_compiled(path)}
    if not files:
        raise PluginError(f"no file of {name} can be hashed: {root} holds none")
    return files


def is_compiled(path: str) -> bool:
    """Return whether Python compiled the file from a source, judging by its path."""
    return path.endswith((".pyc", ".pyo")) or "__pycache__" in path.split("/")


def located(path: Path) -> Traversable | None:
    """Return the file or folder at a path, which may lead into a zip file; None where there is nothing."""
    if path.exists():
        return path
    archive = next((parent for parent in path.parents if parent.exists()), None)
    if archive is None or not archive.is_file() or not zipfile.is_zipfile(archive):
        return None
    inner = zipfile.Path(archive).joinpath(path.relative_to(archive).as_posix())
    return inner if inner.is_file() or inner.is_dir() else None


@functools.cache
def core_digest() -> str:
    """Return the SHA-256 of the files of the computing parts of xbench itself.

    Raises:
        PluginError: One of them has no file.
    """
    root = Path(__file__).parent
    files: dict[str, Traversable] = {}
    for part in COMPUTING:
        found = located(root / part)
        if found is None:
            raise PluginError(f"no file of xbench/{part} can be hashed: there is none at {root}")
        files |= code_files(found, part)
    return tree_digest(files)


def _walk(root: Traversable, name: str, above: frozenset[Path]) -> Iterator[tuple[str, Traversable]]:
    if root.is_file():
        yield name, root
        return
    if isinstance(root, Path):
        real = root.resolve()
        if real in above:  # a link to a folder that holds it
            return
        above |= {real}
    if root.is_dir():
        for child in root.iterdir():
            yield from _walk(child, f"{name}/{child.name}" if name else child.name, above)


def _traversable_digest(file: Traversable) -> str:
    if isinstance(file, Path):
        return _unchanged_digest(file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _unchanged_digest(path: Path) -> str:
    """Return the hash of a file, from memory where it has not changed."""
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    known = _remembered.get(key)
    if known is not None:
        return known
    found = file_digest(path)
    if time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED:
        _remembered[key] = found
    return found
