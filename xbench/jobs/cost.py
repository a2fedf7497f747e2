"""What explaining costs: passes through the classifier, and peak memory."""

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
    """The most memory that a piece of work needs, from now on.

    On an accelerator: of the device, above what lay there already, for that belongs to others; but with what of it is
    the work's own. On the CPU: of the whole process, for nothing tells there whose memory is whose.

    Args:
        device: Where the work is done.
        own: Bytes on the device already that the work needs: its networks.
    """

    def __init__(self, device: str, own: float = 0.0) -> None:
        self._device = torch.device(device)
        self._peak = _device_function(self._device, "max_memory_allocated")
        if self._device.type == "cpu":
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")  # Linux: the high-water mark begins anew
        elif self._peak is not None:
            gc.collect()  # what is garbage already is nobody's
            torch.empty(1, device=self._device)  # a device that was not used yet has nothing to reset
            reset = _device_function(self._device, "reset_peak_memory_stats")
            assert reset is not None
            reset(self._device)
        self._others = allocated(device) - own

    def bytes(self) -> float:
        """In bytes; NaN where the system does not tell."""
        if self._device.type == "cpu":
            return _high_water_mark()
        return math.nan if self._peak is None else float(self._peak(self._device)) - self._others


def allocated(device: str) -> float:
    """Bytes of the tensors on an accelerator; NaN where it does not tell, and on the CPU."""
    function = _device_function(torch.device(device), "memory_allocated")
    return math.nan if function is None else float(function(torch.device(device)))


def network_bytes(module: nn.Module) -> float:
    """Bytes of a network's parameters and buffers."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return float(sum(tensor.nbytes for tensor in tensors.values()))


def largest(*values: float) -> float:
    """Return the largest value that is not NaN, or NaN."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _device_function(device: torch.device, name: str) -> Callable[[torch.device], Any] | None:
    """As `torch.cuda` has it, of that kind of device; None where there is no such thing."""
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
