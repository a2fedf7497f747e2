"""Measurements for all scripts: time on a device, its memory, and figures in a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def wait(device: str | torch.device) -> None:
    """Wait until the device has finished its work, by reading a value from it."""
    torch.zeros((), device=device).item()


def seconds(work: Callable[[], Any], device: str | torch.device) -> float:
    """Return the wall time of the work, up to the moment at which the device has finished it."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def peak_memory(device: str, work: Callable[[], Any]) -> float | None:
    """Return the peak memory of tensors on the device during the work in MB, or None if torch does not count it."""
    backend = getattr(torch, torch.device(device).type, None)
    if not hasattr(backend, "max_memory_allocated"):
        return None
    backend.reset_peak_memory_stats(device)
    work()
    return float(backend.max_memory_allocated(device)) / 2**20


def write(figures: dict[str, Any], path: Path | None) -> None:
    """Write figures as JSON, whole or not at all. Without a path, nothing is written."""
    if path is not None:
        beside = path.with_name(path.name + ".part")
        beside.write_text(json.dumps(figures, indent=1))
        os.replace(beside, path)  # noqa: PTH105
