"""Where a number comes from: source hashes, versions, the machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

_COMPUTING = ("compute", "contracts", "jobs", "registry", "runtime", "statistics")
"""The rooms of the core that decide what is in an artifact. All that a job may import lies in them."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def source_digest(module: str) -> str:
    """SHA-256 over the Python sources of the top-level package (or single file) that `module` belongs to.

    The sources, not the version: in an editable install the version stays while the code changes.
    """
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        return "missing"
    if spec.submodule_search_locations:
        return _tree_digest([Path(location) for location in spec.submodule_search_locations])
    return _tree_digest([Path(spec.origin)]) if spec.origin else "unknown"


@functools.cache
def core_digest() -> str:
    """SHA-256 over the computing part of xbench itself."""
    root = Path(__file__).parent
    return _tree_digest([root / name for name in _COMPUTING if (root / name).exists()])


def _tree_digest(roots: list[Path]) -> str:
    total = hashlib.sha256()
    for root in roots:
        files = [root] if root.is_file() else sorted(root.rglob("*.py"))
        for path in files:
            total.update(f"{path.relative_to(root.parent).as_posix()}\x1f{file_digest(path)}\n".encode())
    return total.hexdigest()
