"""Processes beside this one that make artifacts of the same run in the same cache."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from xbench.contracts.session import Progress, SilentProgress
from xbench.errors import XbenchError
from xbench.jobs.store import Store
from xbench.run.build import make_artifacts
from xbench.run.plan import Plan

Planner = Callable[[Store], Plan]


@contextlib.contextmanager
def helper_processes(workers: int, planner: Planner, store: Store) -> Iterator[None]:
    """Let `workers - 1` other processes work on a run while the block does; this one counts as the first.

    They share the processors: each takes its part of the threads that torch would use alone. They end with the block,
    however it ends; what they had begun stays in the cache, for the next run to continue. Warnings are passed on; what
    fails in one of them fails in this process too, when its turn comes, and is reported here.

    Args:
        workers: In all; 1 = nobody else.
        planner: What to run: plain data and a function of a module, for it travels to the other processes.
        store: The cache.
    """
    if workers == 1:
        yield
        return
    import torch

    before = torch.get_num_threads()
    threads = max(1, before // workers)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(threads)
        for _ in range(workers - 1):
            stack.enter_context(_worker(planner, store, threads))
        yield


@contextlib.contextmanager
def _worker(planner: Planner, store: Store, threads: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's thread pool, locked as it may be
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(planner, store.root, threads, told), daemon=True)
    process.start()
    told.close()  # here, so that the worker's is the last, and its end the end of what is heard
    listener = threading.Thread(target=_pass_on, args=(heard, store.progress), daemon=True)
    listener.start()
    try:
        yield
    finally:
        process.kill()  # it has nothing left to do, or is not wanted any more
        process.join()
        listener.join()


def _pass_on(heard: Connection, progress: Progress) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            progress.warn(heard.recv())


class _Telling(SilentProgress):
    """Passes warnings on to the process that asked for the work."""

    def __init__(self, told: Connection) -> None:
        super().__init__()
        self._told = told

    def warn(self, text: str) -> None:
        self._told.send(text)


def _work(planner: Planner, root: Path, threads: int, told: Connection) -> None:
    """Make what nobody has made, as long as the process that asked for it lives."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    store = Store(root, _Telling(told))
    with contextlib.suppress(XbenchError):  # what fails is told by the first process, which meets it, too
        make_artifacts(planner(store), store, SilentProgress())


def _end_with_parent() -> None:
    """Also where the parent was killed and could end nobody: at once, in the middle of whatever is being made."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
