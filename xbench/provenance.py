"""Where a number comes from: source hashes, versions, the machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The parts of the core that compute; a change of the display or the statistics does not make another artifact.
_COMPUTING = (
    "contracts",
    "jobs",
    "batching.py",
    "blame.py",
    "checkpoint.py",
    "devices.py",
    "folding.py",
    "gate.py",
    "mapped.py",
    "operations.py",
    "passes.py",
    "samples.py",
    "scoring.py",
    "seeding.py",
    "session.py",
    "training.py",
    "views.py",
)
_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "timm",
    "segmentation-models-pytorch",
    "lightning-fabric",
    "scikit-image",
    "pylidc",
)


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


@functools.cache
def library_versions() -> Mapping[str, str]:
    """Versions of the libraries that compute."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def environment(device: str) -> dict[str, Any]:
    """Versions and machine, for the run's header."""
    import torch

    import xbench

    found = {
        "xbench": xbench.__version__,
        "python": platform.python_version(),
        "platform": _platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "libraries": dict(library_versions()),
    }
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _platform() -> str:
    """As `platform.platform()`, without what an institution adds to the name of its kernel: headers are published."""
    release = platform.release()
    numbers = re.match(r"[0-9.]*", release)
    return platform.platform().replace(release, numbers[0].rstrip(".") if numbers else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
