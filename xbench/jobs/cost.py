"""What explaining costs: passes through the classifier, and peak memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextlib.contextmanager
def counted_passes(model: nn.Module) -> Iterator[dict[str, int]]:
    """Images that went forward and backward through the model, or through copies made of it inside.

    Yields:
        "forward_passes" and "backward_passes", which go on counting until the end.
    """
    passes = {"forward_passes": 0, "backward_passes": 0}

    # A plain function: copies of the model take it with them as it is, and so add to the same counts.
    def count(module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        if not isinstance(output, torch.Tensor) or not output.ndim:
            return
        passes["forward_passes"] += len(output)
        if output.requires_grad:
            output.register_hook(count_back)  # type: ignore[no-untyped-call]

    def count_back(gradient: torch.Tensor) -> None:
        passes["backward_passes"] += len(gradient)

    handle = model.register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


class PeakMemory:
    """The largest memory in use from now on: of the device, or of this process where that is the CPU."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")  # Linux: the high-water mark begins anew

    def bytes(self) -> float:
        """In bytes; NaN where the system does not tell."""
        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self._device))
        with contextlib.suppress(OSError, StopIteration):
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
            return 1024.0 * int(line.split()[1])
        return math.nan
