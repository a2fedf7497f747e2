"""The versions of the libraries that compute, and the machine, for the header of a run."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CORE = ("torch", "numpy", "scipy", "lightning-fabric")
"""The libraries that the core computes with: their versions are in every fingerprint."""

BUILT_IN = ("timm", "segmentation-models-pytorch", "scikit-image", "pylidc", "quantus", "opencv-python", "scikit-learn")
"""Those that only some built-in plugins compute with: in the fingerprints of the items that say so in `requires`."""


@functools.cache
def library_versions() -> Mapping[str, str | None]:
    """Return the versions of the libraries that the core computes with, or None for one that is not installed."""
    return {name: installed_version(name) for name in CORE}


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(device: str) -> dict[str, Any]:
    """Return the versions and the machine, for the header of a run."""
    import torch

    from xbench.version import __version__

    facts = {
        "xbench": __version__,
        "python": platform.python_version(),
        "platform": _platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "libraries": {name: installed_version(name) or "missing" for name in (*CORE, *BUILT_IN)},
    }
    if torch.device(device).type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _platform() -> str:
    """Return `platform.platform()` without what an institution adds to its kernel's name: headers are published."""
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
