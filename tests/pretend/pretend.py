"""A pretend accelerator: the device "pretend", whose tensors keep their numbers on the CPU.

It behaves as a GPU where that matters to a program that has never met one. Tensors of two devices do not mix. Every
operation that makes the host wait for the device is noted with the line of xbench that asked for it. Convolutions and
matrix products round their operands to TF32 unless torch's switches of NVIDIA GPUs forbid it. With PRETEND_FLOAT64=no
it has no float64, as Apple's GPUs.

Importing this module registers the device, for good and for the whole process: only for processes of their own. It can
be installed as a plugin of xbench, which then takes `--device pretend`.

Environment:
    PRETEND_WAITS: A file to which, at the end, the waits are written: JSON, [[line, operation, count], ...].
    PRETEND_FLOAT64: "no" makes it refuse float64.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
HOST = torch.device("cpu")

aten = torch.ops.aten

# What gives the host a number, or a shape that hangs on the numbers.
WAITING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "_unique", "_unique2"),
    *("unique_dim", "unique_consecutive", "bincount", "linalg_solve", "_linalg_solve", "linalg_cholesky", "linalg_inv"),
    *("linalg_lstsq", "_linalg_check_errors", "argwhere", "multinomial"),
}
# What takes indices from either device, as on a GPU.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
CONVOLUTIONS = {
    "convolution",
    "_convolution",
    "conv1d",
    "conv2d",
    "conv3d",
    "cudnn_convolution",
    "convolution_backward",
}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "addmv", "mv", "dot"}

# What torch makes by enlarging an empty tensor.
RESIZED = ("arange", "arange.start", "arange.start_step", "linspace", "logspace", "randperm", "eye", "eye.m")

waits = Counter()


class PretendTensor(torch.Tensor):
    """Another device's tensor; `raw` holds the numbers."""

    @staticmethod
    def __new__(cls: type[PretendTensor], raw: torch.Tensor) -> PretendTensor:
        """Wrap a tensor of the CPU, which is not copied."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        made.raw = raw
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PretendTensor({self.raw})"

    def tolist(self) -> Any:
        """A list, for which the host waits; torch's own refuses subclasses."""
        note_wait("tolist")
        return self.raw.tolist()

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(of_tensors(index))

    def __setitem__(self, index: Any, values: Any) -> None:
        super().__setitem__(of_tensors(index), values)

    def untyped_storage(self) -> torch.UntypedStorage:
        """Where the numbers are."""
        return self.raw.untyped_storage()

    def new_tensor(self, data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """From a list of the host; torch's own gives up in C++."""
        kwargs.setdefault("device", self.device)
        return torch.tensor(data, *args, **{"dtype": self.dtype, **kwargs})

    def __reduce_ex__(self, protocol: Any) -> Any:
        rebuild = torch._utils._rebuild_device_tensor_from_cpu_tensor
        return rebuild, (self.detach().raw, self.dtype, NAME, self.requires_grad)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        # A wrapper made in inference mode can't be detached there, by an assertion of torch's.
        with torch.inference_mode(False), torch.no_grad():
            return run(func, args, kwargs or {})


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation with a tensor of this device among its arguments, or that is to make one."""
    name = func._schema.name.partition("::")[2]
    flat, _ = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    if name in ("copy_", "_copy_from", "_copy_from_and_resize"):
        return copied(args, kwargs)
    target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    refuse_mixture(name, args, tensors)
    note_waiting(name, args, kwargs, target)
    on_device = target.type == NAME if target is not None else any(map(is_ours, tensors)) or not tensors
    if target is not None:
        kwargs = {**kwargs, "device": HOST}
    kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    raw_args, raw_kwargs = tree_map(unwrapped, (args, kwargs))
    if name in CONVOLUTIONS | PRODUCTS:
        raw_args = rounded(name, raw_args)
    found = func(*raw_args, **raw_kwargs)
    if not on_device:
        return found
    refuse_float64(found)
    result = return_and_correct_aliasing(func, args, kwargs, tree_map(wrapped, found))
    for one in filter(is_ours, tensors):
        assert one.shape == one.raw.shape, f"{name} gave a tensor another shape: a gap of the pretend device"
    return result


def of_tensors(index: Any) -> Any:
    """An index without lists and arrays, of which torch's own C++ makes tensors that it can't place."""
    if isinstance(index, tuple):
        return tuple(map(of_tensors, index))
    return torch.as_tensor(index) if isinstance(index, list | np.ndarray) else index


def is_ours(value: object) -> bool:
    return isinstance(value, PretendTensor)


def unwrapped(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == NAME:
        return HOST
    return value.raw if is_ours(value) else value


def wrapped(value: Any) -> Any:
    return PretendTensor(value) if isinstance(value, torch.Tensor) and not is_ours(value) else value


def copied(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """`target.copy_(source)`, the one operation between devices."""
    target, source = args[0], args[1]
    blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
    if is_ours(source) and not is_ours(target):
        note_wait("copy to the host")
    elif is_ours(target) and not is_ours(source) and source.ndim and blocking:
        note_wait("copy from the host")
    unwrapped(target).copy_(unwrapped(source))
    return target


def refuse_mixture(name: str, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    """As CUDA: a single number may come from the CPU, and the indices of a tensor of the device too."""
    if name in INDEXING and is_ours(args[0]):
        tensors = [args[0], *(one for one in args[2:] if isinstance(one, torch.Tensor))]
    strangers = [one for one in tensors if not is_ours(one) and one.ndim]
    if strangers and any(map(is_ours, tensors)):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and "
            f"{strangers[0].device}! (in {name})"
        )


def refuse_float64(found: Any) -> None:
    """As MPS, where asked for."""
    if os.environ.get("PRETEND_FLOAT64") != "no":
        return
    for one in tree_flatten(found)[0]:
        if isinstance(one, torch.Tensor) and one.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                f"Cannot convert a {NAME} Tensor to float64 dtype as the {NAME} framework doesn't support it."
            )


def note_waiting(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], target: torch.device | None) -> None:
    """Whether the host has to wait for this operation."""
    if name == "_to_copy" and target is not None and target.type == "cpu" and is_ours(args[0]):
        note_wait("copy to the host")
    elif name in WAITING:
        note_wait(name)
    elif name in INDEXING:
        indices = [one for one in tree_flatten(args[1])[0] if isinstance(one, torch.Tensor)]
        if any(one.dtype in (torch.bool, torch.uint8) for one in indices):
            note_wait(f"{name} by a mask")
        if any(not is_ours(one) for one in indices if one.ndim):
            note_wait(f"{name} by indices of the host")
    elif name == "repeat_interleave" and kwargs.get("output_size") is None and is_ours(args[-1]):
        note_wait("repeat_interleave without output_size")


def note_wait(operation: str) -> None:
    """Count it under the innermost line of xbench or its plugins."""
    frame = sys._getframe(1)
    where = "elsewhere"
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        room = next((part for part in path.parts[::-1][1:] if part.startswith("xbench")), None)
        if room is not None and path != Path(__file__):
            start = len(path.parts) - path.parts[::-1].index(room) - 1
            where = f"{'/'.join(path.parts[start:])}:{frame.f_lineno}"
            break
        frame = frame.f_back
    waits[where, operation] += 1


def rounded(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The operands with TF32's mantissas of 10 bits, if torch may use them on an NVIDIA GPU as its switches are."""
    switch = torch.backends.cudnn.conv if name in CONVOLUTIONS else torch.backends.cuda.matmul
    if switch.fp32_precision != "tf32":
        return args
    leaves, form = tree_flatten(args)
    return tree_unflatten([short(one) if is_wide(one) else one for one in leaves], form)


def is_wide(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def short(values: torch.Tensor) -> torch.Tensor:
    """Round to the nearest number of 10 bits."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).view(values.shape)


class Backend:
    """What torch asks of a device's module."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def synchronize(self, device: object = None) -> None:
        note_wait("synchronize")

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _register() -> tuple[torch.library.Library, torch.library.Library]:
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    library = torch.library.Library("_", "IMPL")
    library_of_aten = torch.library.Library("aten", "IMPL")
    for name in RESIZED:
        library_of_aten.impl(name, make_on_host(getattr(aten, name.partition(".")[0]), name), "PrivateUse1")
    library.fallback(
        lambda func, *args, **kwargs: PretendTensor.__torch_dispatch__(func, (), args, kwargs), "PrivateUse1"
    )
    # Autocast changes no dtype: what it saves on a GPU is not there to be saved.
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return library, library_of_aten


def make_on_host(packet: Any, name: str) -> Callable[..., torch.Tensor]:
    """A factory whose own way is to enlarge an empty tensor, which a wrapper can't follow."""
    overload = getattr(packet, name.partition(".")[2] or "default")

    def made(*args: Any, device: Any = None, pin_memory: object = None, **kwargs: Any) -> torch.Tensor:
        return PretendTensor(overload(*args, device=HOST, **kwargs))

    return made


def _of_lists(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`torch.tensor` and `torch.as_tensor` with device="pretend", of anything: torch's own give up in C++."""

    @functools.wraps(make)
    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        if device is None or torch.device(device).type != NAME or is_ours(data):
            return make(data, *args, **({} if device is None else {"device": device}), **kwargs)
        return make(data, *args, **kwargs).to(NAME)

    return made


def _write_waits(path: str) -> None:
    rows = [[where, operation, count] for (where, operation), count in sorted(waits.items())]
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps(rows))


_library = _register()
torch.tensor, torch.as_tensor = _of_lists(torch.tensor), _of_lists(torch.as_tensor)
if os.environ.get("PRETEND_WAITS"):
    atexit.register(_write_waits, os.environ["PRETEND_WAITS"])
