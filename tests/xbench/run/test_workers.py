"""`--workers`: the same numbers by several processes, which end with the one that asked for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from xbench.results.rows import read_header, read_scores

if TYPE_CHECKING:
    from tests.conftest import Shelf


# Each map is a barrier: its maker signs, then waits until a second process has signed somewhere. So no test depends on
# how long a process takes to start.
SIGNING = """
    import os, pathlib, time

    from xbench import Explainer, ExplainerSpec, Field, Options, hookimpl
    from xbench.testing.fakes import xbench_datasets, xbench_models

    LOG = pathlib.Path(os.environ["SIGNATURES"])

    class SigningOptions(Options):
        number: int = Field(0, description="which one")
        seconds: float = Field(0.0, description="of sleep after that")

    class Signing(Explainer):
        def attribute(self, model, images, targets):
            with LOG.open("a") as log:
                log.write(f"{os.getpid()} {self.options.number}\\n")
            until = time.monotonic() + 120
            while len({line.split()[0] for line in LOG.read_text().splitlines()}) < 2 and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(self.options.seconds)
            return images[:, 0] * self.options.number

    @hookimpl
    def xbench_explainers():
        yield ExplainerSpec("signing", "says who made it", factory="signing:Signing", options="signing:SigningOptions")
"""
LINE: tuple[str, ...] = ("run", "--dataset", "fake", "--model", "tiny:epochs=1", "--no-controls", "--resamples", "100")
LINE += ("--batch-size", "64", "--no-model-view")  # all images at once: a map is signed once
_SECONDS = ("seconds_fit", "seconds_maps", "seconds_metric")


def _numbers(path: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in vars(row).items() if key not in _SECONDS}
        for row in read_scores(path / "scores.csv")
    ]


@pytest.mark.slow
def test_two_workers_make_everything_once_and_the_same_numbers(
    command: Callable[..., subprocess.CompletedProcess[str]], shelf: Shelf, tmp_path: Path
) -> None:
    shelf.install("signing", SIGNING)
    explainers = [word for number in range(1, 7) for word in ("--explainer", f"signing:number={number}")]
    signatures = tmp_path / "signatures"
    more = {"SIGNATURES": signatures, "XBENCH_TESTS_PICTURES": "none"}
    shared = command(*LINE, *explainers, "--workers", "2", "--out", "shared", **more)
    assert shared.returncode == 0, shared.stderr
    signed = [line.split() for line in signatures.read_text().splitlines()]
    assert sorted(number for _, number in signed) == list("123456")
    assert len({process for process, _ in signed}) == 2
    assert shared.stderr.count("no better than chance") == 1  # whoever met it
    assert read_header(tmp_path / "shared" / "run.json").config["workers"] == 2
    alone = command(*LINE, *explainers, "--out", "alone", cache=tmp_path / "other", **more)
    assert alone.returncode == 0, alone.stderr
    assert _numbers(tmp_path / "shared") == _numbers(tmp_path / "alone")


@pytest.mark.slow
def test_workers_end_when_the_first_is_killed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.install("signing", SIGNING)
    signatures = tmp_path / "signatures"
    variables = {
        "PYTHONPATH": str(shelf.folder),
        "XBENCH_CACHE": str(tmp_path / "cache"),
        "SIGNATURES": str(signatures),
    }
    explainers = [word for number in range(1, 5) for word in ("--explainer", f"signing:seconds=600,number={number}")]
    words = [sys.executable, "-m", "xbench", *LINE, *explainers, "--workers", "2", "--out", "run"]
    first = subprocess.Popen(words, env=os.environ | variables, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        other = _signatory(signatures, besides=first.pid)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    _gone(other)


def _signatory(signatures: Path, besides: int) -> int:
    """The process that signed beside the first."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        lines = signatures.read_text().splitlines() if signatures.exists() else []
        others = {int(line.split()[0]) for line in lines} - {besides}
        if others:
            return others.pop()
        time.sleep(0.1)
    raise AssertionError("nobody came")


def _gone(process: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise AssertionError(f"{process} still works")
