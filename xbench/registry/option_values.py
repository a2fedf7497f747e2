"""Write options as JSON, with hashes of the contents in place of paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from xbench.contracts.options import Options
from xbench.errors import UserError
from xbench.provenance import content_digest, digest


def by_content(options: Options, owner: str) -> dict[str, Any]:
    """Return the options as JSON values, with {"sha256": ...} for each path.

    A file counts by its content, a folder by the names and contents of all files under it, whatever they are called
    themselves. Paths are relative to the working folder. A path that leads nowhere counts as {"absent": its text}.

    Args:
        options: The options. Their paths may lie in lists, tables and nested models too.
        owner: Owner of the options, for messages.

    Raises:
        UserError: A file can't be read.
    """
    dumped = options.model_dump(mode="json")
    return {key: _by_content(getattr(options, key), dumped[key], f"{owner}: option {key}") for key in dumped}


def _by_content(value: Any, dumped: Any, what: str) -> Any:
    """Return `dumped`, which is `value` as JSON, with the paths in it replaced."""
    if isinstance(value, Path):
        return _content(value, what)
    if isinstance(value, BaseModel):
        return {key: _by_content(getattr(value, key), dumped[key], what) for key in dumped}
    if isinstance(value, Mapping):
        names = zip(value, dumped, strict=True)  # in the same order
        return {name: _by_content(value[key], dumped[name], what) for key, name in names}
    if isinstance(value, list | tuple):
        return [_by_content(one, plain, what) for one, plain in zip(value, dumped, strict=True)]
    if isinstance(value, set | frozenset) and any(isinstance(one, Path) for one in value):
        return sorted((_by_content(one, str(one), what) for one in value), key=digest)
    return dumped


def _content(path: Path, what: str) -> dict[str, str]:
    if not (path.is_file() or path.is_dir()):
        return {"absent": str(path)}
    try:
        return {"sha256": content_digest(path)}
    except OSError as error:
        raise UserError(f"{what}: {path} can't be read: {error}") from error
