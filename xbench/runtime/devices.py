"""Differences between devices: the precision of float32, uploads, freeing memory, and whether float64 exists."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


# The product of this number with itself needs 24 bits of mantissa. With TF32's 10 (or bfloat16's 7) it is read as 1.
_EXACT = 1 + 2.0**-12


@contextmanager
def float32(precision: str) -> Iterator[None]:
    """Make float32 products true float32 in the block, or TF32 if the precision is "tf32", and restore torch's setting.

    By default, torch's convolutions on NVIDIA GPUs read only 10 bits of each mantissa, although the dtype is float32. A
    library that calls `torch.set_float32_matmul_precision` does the same to dense layers; some CPUs then keep only 7
    bits.

    Args:
        precision: One of `PRECISIONS`.
    """
    switches = _switches()
    before = [_read(get) for get, _, _ in switches]
    for _, put, meaning in switches:
        put(meaning["tf32" if precision == "tf32" else "ieee"])
    try:
        yield
    finally:
        for (_, put, _), value in zip(switches, before, strict=True):
            if value is not None:
                put(value)


def autocast(precision: str, device: str | torch.device) -> AbstractContextManager[Any]:
    """Return the autocast context of "bf16" or "16", or a context that does nothing for the other precisions."""
    import torch

    if precision not in ("bf16", "16"):
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(torch.device(device).type, dtype=dtype)


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that computes in the dtypes of the operands, even inside an autocast."""
    import torch

    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


@contextmanager
def kept_settings() -> Iterator[list[str]]:
    """Restore torch's switches of float32 and its default dtype after the block, however it ends.

    Yields:
        A list that is filled after the block with the names of the settings that the block changed.
    """
    import torch

    settings = [(get, put, "the switches of float32") for get, put, _ in _switches()]
    settings.append((torch.get_default_dtype, torch.set_default_dtype, "the default dtype"))
    before = [_read(get) for get, _, _ in settings]
    changed: list[str] = []
    try:
        yield changed
    finally:
        now = [_read(get) for get, _, _ in settings]
        pairs = list(zip(settings, before, now, strict=True))
        changed += dict.fromkeys(name for (_, _, name), old, new in pairs if new != old)
        if changed:
            for (_, put, _), value, _ in pairs:
                if value is not None:
                    put(value)


_Switch = tuple[Callable[[], Any], Callable[[Any], None], dict[str, Any]]


def _switches() -> list[_Switch]:
    """Return torch's switches as (read, write, their values for "ieee" and "tf32"), in the order to write them.

    torch 2.9 and later have old and new switches, and refuse to read an old one that contradicts the new. So both are
    written. The old ones come first, because writing them changes the new.
    """
    import torch

    backends: Any = torch.backends
    old: list[_Switch] = [
        (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
            {"ieee": "highest", "tf32": "high"},
        ),
        _attribute(backends.cudnn, "allow_tf32", {"ieee": False, "tf32": True}),
    ]
    if not hasattr(backends.cudnn, "conv"):
        return old
    nvidia = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    cpu = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    new = [_attribute(owner, "fp32_precision", {"ieee": "ieee", "tf32": "tf32"}) for owner in nvidia]
    new += [_attribute(owner, "fp32_precision", {"ieee": "ieee", "tf32": "ieee"}) for owner in cpu]
    return old + new


def _attribute(owner: Any, name: str, meaning: dict[str, Any]) -> _Switch:
    return (lambda: getattr(owner, name)), (lambda value: setattr(owner, name, value)), meaning


def _read(get: Callable[[], Any]) -> Any:
    """Return the value, or None for an old switch that contradicts the new ones. The new ones are then sufficient."""
    with suppress(RuntimeError):
        return get()
    return None


def rounds_products(device: str) -> bool:
    """Return whether float32 products on the device currently lose bits of their mantissas (TF32 or bfloat16).

    This is tried with a matrix product and a convolution, because drivers can be told to round without torch's
    knowledge (NVIDIA_TF32_OVERRIDE).
    """
    import torch
    from torch.nn import functional as F

    values = torch.full((1, 16, 8, 8), _EXACT, device=device)
    weights = torch.full((16, 16, 3, 3), _EXACT, device=device)
    centre = F.conv2d(values, weights)[0, 0, 0, 0]
    dense = (values[0, 0, :, :1] @ weights[0, :8, 0, :1].T)[0, 0]
    exact = _EXACT * _EXACT
    products = torch.stack([centre / (16 * 9), dense]).tolist()
    return any(abs(product - exact) > 2.0**-20 for product in products)


def upload(values: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Return the tensor on the device, without waiting for the device to finish its work.

    An NVIDIA GPU copies from pageable memory only after all its work is done. So the values go through pinned memory,
    which torch keeps until they are copied. Other devices do not wait either if they are known to read the values
    before the call returns. MPS is not, so it waits.
    """
    import torch

    target = torch.device(device)
    if target.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(target, non_blocking=target.type not in ("cpu", "mps"))  # MPS may read them too late


@functools.cache
def widest(device: str | torch.device) -> torch.dtype:
    """Return float64, or float32 on a device without float64 (Apple's GPUs)."""
    import torch

    try:
        torch.empty(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise  # which says nothing about float64
        return torch.float32
    return torch.float64


def release() -> None:
    """Free the device memory that torch caches, after an allocation failed."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


_FULL = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that memory ran out, on the device (in torch or a library of it) or the machine."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # MPS, the CPU, cuBLAS and cuDNN raise a plain RuntimeError.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL)
