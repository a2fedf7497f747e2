"""The cost of explaining: passes through the classifier, and peak memory."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextlib.contextmanager
def counted_passes(model: nn.Module) -> Iterator[dict[str, int]]:
    """Count the images that go forward and backward through the model, or through copies made of it in the block.

    Yields:
        "forward_passes" and "backward_passes", which are updated until the block ends.
    """
    passes = {"forward_passes": 0, "backward_passes": 0}

    # A plain function, because copies of the model take it with them unchanged, and so add to the same counts.
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
    """The peak memory of a piece of work, measured from now on.

    On an accelerator, this is the device memory above what is there already, because that belongs to others, plus
    `own`. On the CPU, it is the memory of the whole process, because nothing tells there who uses which memory.

    Args:
        device: Device of the work.
        own: Bytes on the device already that belong to the work: its networks.
    """

    def __init__(self, device: str, own: float = 0.0) -> None:
        self._device = torch.device(device)
        self._peak = _device_function(self._device, "max_memory_allocated")
        if self._device.type == "cpu":
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")  # Linux: reset the high-water mark
        elif self._peak is not None:
            gc.collect()  # garbage must not count
            torch.empty(1, device=self._device)  # a device that was not used yet has nothing to reset
            reset = _device_function(self._device, "reset_peak_memory_stats")
            assert reset is not None
            reset(self._device)
        self._others = allocated(device) - own

    def bytes(self) -> float:
        """Return the peak memory in bytes, or NaN where the system does not tell."""
        if self._device.type == "cpu":
            return _high_water_mark()
        return math.nan if self._peak is None else float(self._peak(self._device)) - self._others


def allocated(device: str) -> float:
    """Return the bytes of the tensors on an accelerator, or NaN on the CPU and where the device does not tell."""
    function = _device_function(torch.device(device), "memory_allocated")
    return math.nan if function is None else float(function(torch.device(device)))


def network_bytes(module: nn.Module) -> float:
    """Return the bytes of a network's parameters and buffers."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return float(sum(tensor.nbytes for tensor in tensors.values()))


def largest(*values: float) -> float:
    """Return the largest value that is not NaN, or NaN."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _device_function(device: torch.device, name: str) -> Callable[[torch.device], Any] | None:
    """Return the function that is named so in `torch.cuda`, for this kind of device, or None if there is none."""
    if device.type == "cpu":
        return None
    try:
        module: Any = torch.get_device_module(device)
    except (RuntimeError, AttributeError):
        return None
    function: Callable[[torch.device], Any] | None = getattr(module, name, None)
    return function


def _high_water_mark() -> float:
    with contextlib.suppress(OSError, StopIteration):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024.0 * int(line.split()[1])
    return math.nan
