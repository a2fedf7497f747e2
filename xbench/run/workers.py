"""Helper processes, which build artifacts of the same run in the same cache."""

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
    """Start `workers - 1` other processes that work on the run during the block. This process counts as the first.

    The processes share the processors: each uses its part of the threads that torch would use alone. They end with the
    block, however it ends. Unfinished work stays in the cache, and the next run continues it. Warnings are passed on to
    this process. An error of a helper process is not: this process meets the same error later, and reports it.

    Args:
        workers: Total number of processes; 1 for no helper processes.
        planner: Function that makes the plan. It is sent to the other processes, so it must be plain data and a
            function of a module.
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
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's thread pool, which may be locked
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(planner, store.root, threads, sender), daemon=True)
    process.start()
    sender.close()  # so that the worker holds the last end, and its exit closes the pipe
    listener = threading.Thread(target=_pass_on, args=(receiver, store.progress), daemon=True)
    listener.start()
    try:
        yield
    finally:
        process.kill()  # it has nothing left to do, or is no longer needed
        process.join()
        listener.join()


def _pass_on(receiver: Connection, progress: Progress) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            progress.warn(receiver.recv())


class _ForwardedProgress(SilentProgress):
    """Progress that passes warnings on to the first process."""

    def __init__(self, sender: Connection) -> None:
        super().__init__()
        self._sender = sender

    def warn(self, text: str) -> None:
        self._sender.send(text)


def _work(planner: Planner, root: Path, threads: int, sender: Connection) -> None:
    """Build the artifacts that no other process has built, as long as the first process lives."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    store = Store(root, _ForwardedProgress(sender))
    with contextlib.suppress(XbenchError):  # the first process meets the same error and reports it
        make_artifacts(planner(store), store, SilentProgress())


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, even if the parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
