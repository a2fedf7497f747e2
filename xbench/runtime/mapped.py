"""Arrays larger than memory. They are read slice by slice and written batch by batch, so memory use stays constant."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.runtime.files import whole_file

if TYPE_CHECKING:
    import torch


def stacked(batches: Iterable[torch.Tensor], total: int) -> np.ndarray:
    """Return the batches (n, ...) one after the other: (total, ...), float32, on the CPU.

    The result is filled in place, because small tensors that live on between forward passes keep the heap from being
    reused, which costs kilobytes per image.

    Raises:
        ValueError: There is no batch.
    """
    result: np.ndarray | None = None
    start = 0
    for batch in batches:
        if result is None:
            result = np.empty((total, *batch.shape[1:]), dtype=np.float32)
        result[start : start + len(batch)] = batch.float().cpu().numpy()
        start += len(batch)
    if result is None:
        raise ValueError("no batches to stack")
    return result


class ArrayWriter:
    """Writer of an array, part by part, as `writing` yields it.

    Attributes:
        written: Number of bytes appended so far.
    """

    def __init__(self, file: Any, dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype
        self.written = 0

    def append(self, part: np.ndarray) -> None:
        """Append the next samples, (n, ...), or the next one, (...)."""
        self.written += self._file.write(np.ascontiguousarray(part, dtype=self._dtype).tobytes())


@contextmanager
def writing(path: Path, dtype: Any, shape: tuple[int | None, ...]) -> Iterator[ArrayWriter]:
    """Write an .npy file part by part; it takes its name when it is complete.

    The file is not written through a memory map: with a full disk, a file raises OSError, but a memory map kills the
    process.

    Args:
        path: Path of the file.
        dtype: Dtype of the values.
        shape: Shape of the whole array, (N, ...). If N is None, it is the number of samples appended.
    """
    kind, (total, *rest) = np.dtype(dtype), [size or 0 for size in shape]
    with whole_file(path) as file:
        _write_header(file, kind, (total, *rest))
        start = file.tell()
        writer = ArrayWriter(file, kind)
        yield writer
        if shape[0] is None:
            file.seek(0)
            _write_header(file, kind, (writer.written // (kind.itemsize * math.prod(rest)), *rest))
            if file.tell() != start:  # numpy pads headers, so that arrays can grow along their first axis
                raise AssertionError(f"the header of {path} changed its length")


def _write_header(file: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class MappedArray:
    """A memory-mapped array whose slices are copies, and whose pages go back to the system once they are copied.

    A plain memory map keeps every page that it ever touched in the process's resident memory, until the system is short
    of memory. On a machine with a memory limit that is soon.

    Args:
        array: Memory-mapped array, (N, ...).
        absolute: Whether slices are absolute values.
    """

    def __init__(self, array: np.memmap[Any, np.dtype[Any]], absolute: bool = False) -> None:
        self._array = array
        self._absolute = absolute
        self.shape: tuple[int, ...] = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> np.ndarray:
        part = self._array[index]
        copied = np.abs(part) if self._absolute else np.array(part)
        mapping = getattr(self._array, "_mmap", None)
        if mapping is not None and hasattr(mapping, "madvise"):  # not on Windows
            mapping.madvise(mmap.MADV_DONTNEED)
        return np.asarray(copied)
