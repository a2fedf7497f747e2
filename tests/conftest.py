"""Plugins of strangers, installed for one test, and the command line as a user runs it."""

from __future__ import annotations

import itertools
import multiprocessing.forkserver
import os
import runpy
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

# What a run imports of others: most of the time of a tiny one. Not xbench itself, which each process imports anew, nor
# pandas, which brings pyarrow, whose allocator starts a thread: a process that has threads must not fork.
HEAVY = (
    *("torch", "torch._dynamo", "torchvision", "torchmetrics", "lightning_fabric", "timm", "safetensors.torch"),
    *("scipy.ndimage", "scipy.optimize", "scipy.stats", "skimage.segmentation", "pydantic", "rich.progress"),
    *("matplotlib.axes", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.figure"),
    *("click", "contourpy", "pluggy"),
)

_numbers = itertools.count()

# How long an example takes to draw depends on what else the machine does.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Networks have the same weights, and torch gives the same warnings, in every run and every order of tests."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
        sys.modules["torch"].set_warn_always(True)  # it gives most warnings once in a process


class Shelf:
    """A folder on the import path with distributions of strangers in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        source: str,
        version: str = "1.0",
        entry_point: str | None = None,
        distribution: str | None = None,
    ) -> None:
        """A distribution of one module, with an entry point of group "xbench"."""
        distribution = distribution or name.replace("_", "-")
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source))
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[xbench]\n{entry_point or name} = {name}\n")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """A shelf on this process's import path."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Shelf(folder)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture(scope="session")
def begin() -> Callable[..., Begun]:
    """Begin `python -m xbench words` in an environment and a folder: a `Begun`, which can be awaited or killed.

    A process of its own, but forked from one that has imported what is heavy, where that is safe. All of them have the
    same seed of hashes: that nothing hangs on it is for tests that start a Python of their own (test_reliability.py).
    """
    return _begin_by_fork() if sys.platform == "linux" else _begin_anew


def _begin_anew(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> Begun:
    texts = _texts(folder)
    with texts[0].open("w") as stdout, texts[1].open("w") as stderr:
        line = [sys.executable, "-m", "xbench", *words]
        child = subprocess.Popen(line, stdout=stdout, stderr=stderr, env=environment, cwd=folder)

    def ended(timeout: float | None) -> int | None:
        try:
            return child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    return Begun(words, texts, ended, child.kill)


def _begin_by_fork() -> Callable[..., Begun]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    with mock.patch.dict(os.environ, OPENBLAS_NUM_THREADS="1"):  # numpy's and scipy's start threads when imported
        multiprocessing.forkserver.ensure_running()
    script = str(Path(__file__).parent / "one_command.py")

    def fork(words: Sequence[str], environment: Mapping[str, object], folder: Path) -> Begun:
        texts = _texts(folder)
        given: dict[str, Any] = {"stdout": str(texts[0]), "stderr": str(texts[1]), "folder": str(folder)}
        given |= {"words": words, "environment": {name: str(value) for name, value in environment.items()}}
        child = context.Process(target=runpy.run_path, args=(script, given, "one_command"))
        child.start()

        def ended(timeout: float | None) -> int | None:
            child.join(timeout)
            return child.exitcode

        return Begun(words, texts, ended, child.kill)

    return fork


def _texts(folder: Path) -> list[Path]:
    """Where a command writes what it says: files that no other command of this folder has."""
    number = next(_numbers)
    return [Path(folder, f".{name}-{number}") for name in ("stdout", "stderr")]


class Begun:
    """A command at work.

    Args:
        words: Of the command line.
        texts: Where stdout and stderr go.
        ended: Waits so many seconds: the exit status, None where it is still at work.
        kill: Ends it with SIGKILL.
    """

    def __init__(
        self,
        words: Sequence[str],
        texts: list[Path],
        ended: Callable[[float | None], int | None],
        kill: Callable[[], None],
    ) -> None:
        self.words, self.texts, self.ended, self.kill = words, texts, ended, kill

    def wait(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """A `subprocess.CompletedProcess` with its texts; killed and an error after `timeout` seconds."""
        status = self.ended(timeout)
        if status is None:
            self.kill()
            self.ended(None)
            raise subprocess.TimeoutExpired(self.words, timeout, *(text.read_bytes() for text in self.texts))
        return subprocess.CompletedProcess(self.words, status, *(text.read_text() for text in self.texts))


@pytest.fixture(scope="session")
def process(begin: Callable[..., Begun]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m xbench words` in an environment and a folder: a `subprocess.CompletedProcess` with its texts."""

    def run(words: str, environment: str, folder: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        return begin(words, environment, folder).wait(timeout)

    return run


@pytest.fixture
def command(
    process: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, shelf: Shelf
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `xbench` in a process of its own, with the shelf on its path and a cache of its own."""

    def run(
        *words: str, cache: Path | str | None = None, timeout: int = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {
            "PYTHONPATH": str(shelf.folder),
            "XBENCH_CACHE": str(cache or tmp_path / "cache"),
            "COLUMNS": "160",
            **environment,
        }
        return process(words, variables, tmp_path, timeout)

    return run
