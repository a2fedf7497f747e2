"""Batches that fit: the same results, whatever fits, and no failed attempt that holds memory."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from xbench import Session, UserError
from xbench.runtime.batching import Batches, out_of_memory
from xbench.runtime.devices import is_out_of_memory

FULL = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cuda": RuntimeError("CUDA error: out of memory"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 3 GB)"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "numpy": MemoryError("Unable to allocate 8.00 TiB for an array"),
}


@pytest.mark.parametrize("name", FULL)
def test_batches_are_halved_for_good_and_nothing_is_lost(name: str) -> None:
    asked = []

    def work(start: int, stop: int) -> Any:
        asked.append((start, stop))
        if stop - start > 3:
            raise FULL[name]
        return list(range(start, stop))

    batches = Batches(16)
    found = list(batches.results(10, work))
    assert [index for _, part in found for index in part] == list(range(10))
    assert [rows for rows, _ in found] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    assert asked[:3] == [(0, 10), (0, 5), (0, 3)]
    assert batches.size == 3


def test_what_does_not_fit_by_itself_is_raised_as_it_is() -> None:
    def work(start: int, stop: int) -> Any:
        raise FULL["torch"]

    with pytest.raises(torch.OutOfMemoryError) as caught:
        list(Batches(4).results(4, work))
    assert caught.value is FULL["torch"]


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError("out of memory"), UserError("no")])
def test_other_errors_are_no_reason_to_try_again(error: Exception) -> None:
    asked = []

    def work(start: int, stop: int) -> Any:
        asked.append(stop - start)
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        list(Batches(4).results(4, work))
    assert asked == [4]


def test_what_the_failed_attempt_held_is_gone_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    released, held, alive = [], [], []
    monkeypatch.setattr("xbench.runtime.batching.release", lambda: released.append(1))

    def deep(tensor: torch.Tensor) -> None:
        cycle: list[Any] = [tensor]
        cycle.append(cycle)
        raise torch.OutOfMemoryError("full")

    def work(start: int, stop: int) -> Any:
        alive.append(sum(one() is not None for one in held))
        tensor = torch.zeros(1000)
        held.append(weakref.ref(tensor))
        if stop - start > 1:
            deep(tensor)

    gc.disable()  # so that nobody else clears up
    try:
        list(Batches(4).results(4, work))
    finally:
        gc.enable()
    assert alive[:3] == [0, 0, 0]
    assert len(released) == 2


def test_a_session_remembers_what_fits_and_shows_rows(tmp_path: Path) -> None:
    session = Session(tmp_path, batch_size=8)

    def work(start: int, stop: int) -> Any:
        if stop - start > 2:
            raise FULL["torch"]
        return stop

    assert [stop for _, stop in session.batched(5, work, "counting")] == [2, 4, 5]
    assert session.batch_size == 2
    assert [stop for _, stop in session.batched(3, work)] == [2, 3]


def test_a_session_of_another_size_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    session = Session(tmp_path, batch_size=8, seed=3)
    other = session.resized(4)
    other.facts["learned"] = True
    crowded = iter([FULL["torch"]])

    def work(start: int, stop: int) -> Any:
        for error in crowded:
            raise error
        return stop

    assert [stop for _, stop in other.batched(4, work)] == [2, 4]
    assert (session.batch_size, other.batch_size) == (8, 2)
    assert session.facts == {"learned": True}
    assert (other.folder, other.seed, other.progress) == (session.folder, 3, session.progress)


def test_the_error_for_people_says_what_to_do_and_holds_nothing() -> None:
    error = out_of_memory("maps of gradcam", torch.OutOfMemoryError("CUDA out of memory.\nMore lines"))
    assert isinstance(error, UserError)
    assert str(error).startswith("out of memory: maps of gradcam: CUDA out of memory. (try a smaller --batch-size")
    assert "--device cpu" in error.hint
    assert error.__cause__ is None
