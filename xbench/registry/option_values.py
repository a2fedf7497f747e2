"""Write options as JSON, with hashes of the contents in place of paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from xbench.contracts.options import Options
from xbench.errors import UserError
from xbench.provenance import content_digest, digest


def by_content(options: Options, owner: str) -> dict[str, Any]:
    """Return the options as JSON values, with {"sha256": ...} for each path.

    A file counts by its content, a folder by the names and contents of all files under it, whatever they are called
    themselves. Paths are relative to the working folder. A path that leads nowhere counts as {"absent": its text}.

    Args:
        options: The options. Their paths may also lie in lists, sets, tables, dataclasses and nested models.
        owner: Owner of the options, for messages.

    Raises:
        UserError: A file can't be read.
    """
    dumped = options.model_dump(mode="json")
    return {key: _by_content(getattr(options, key), dumped[key], f"{owner}: option {key}") for key in dumped}


def _by_content(value: Any, dumped: Any, what: str) -> Any:
    """Return `dumped`, which is `value` as JSON; or `value` as JSON with the paths in it replaced, where it has any."""
    if not _has_path(value):
        return sorted(dumped, key=digest) if isinstance(value, set | frozenset) else dumped
    return _replaced(value, what)


def _has_path(value: Any) -> bool:
    if isinstance(value, Path):
        return True
    parts = _parts(value)
    return parts is not None and any(map(_has_path, parts))


def _parts(value: Any) -> list[Any] | None:
    """Return the values in a value; None for a value that holds no others."""
    if isinstance(value, Mapping):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        return list(_fields(value).values())
    return None


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a pydantic model or of a dataclass."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _replaced(value: Any, what: str) -> Any:
    if isinstance(value, Path):
        return _content(value, what)
    if isinstance(value, Mapping):
        pairs = [[_replaced(key, what), _replaced(entry, what)] for key, entry in value.items()]
        # JSON has no tables whose keys are contents.
        return sorted(pairs, key=digest) if any(map(_has_path, value)) else dict(pairs)
    if isinstance(value, list | tuple):
        return [_replaced(entry, what) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((_replaced(entry, what) for entry in value), key=digest)
    if _parts(value) is not None:
        return {name: _replaced(entry, what) for name, entry in _fields(value).items()}
    return TypeAdapter(Any).dump_python(value, mode="json")


def _content(path: Path, what: str) -> dict[str, str]:
    if not (path.is_file() or path.is_dir()):
        return {"absent": str(path)}
    try:
        return {"sha256": content_digest(path)}
    except OSError as error:
        raise UserError(f"{what}: {path} can't be read: {error}") from error
