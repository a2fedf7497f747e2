"""What a user's machine does to a run: kills, damage, company."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xbench.results.rows import read_scores

if TYPE_CHECKING:
    from tests.conftest import Begun, Shelf


STRANGER = """
    from xbench.testing.fakes import xbench_datasets, xbench_models
"""
LINE = (
    *("run", "--explainer", "gradient", "--explainer", "blurred:gradient"),
    *("--dataset", "fake:train=96,test=64", "--model", "tiny:epochs=12", "--batch-size", "16", "--resamples", "100"),
)
_SECONDS = ("seconds_fit", "seconds_maps", "seconds_metric")


def _numbers(path: Path) -> list[dict[str, Any]]:
    """All that must be the same again; not how long it took."""
    return [
        {key: value for key, value in vars(row).items() if key not in _SECONDS}
        for row in read_scores(path / "scores.csv")
    ]


def _finished(cache: Path) -> int:
    return len(list((cache / "artifacts").glob("*/*")))


@pytest.fixture
def start(begin: Callable[..., Begun], tmp_path: Path, shelf: Shelf) -> Callable[..., Begun]:
    """Begin the run in a cache; its pictures are not looked at here."""
    shelf.install("stranger", STRANGER)

    def forked(cache: Path, out: Path) -> Begun:
        more = {"PYTHONPATH": str(shelf.folder), "XBENCH_CACHE": str(cache), "XBENCH_TESTS_PICTURES": "none"}
        return begin([*LINE, "--out", str(out)], os.environ | more, tmp_path)

    return forked


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run in a cache of its own, by a Python of its own, with its own seed of hashes: its folder."""
    folder = tmp_path_factory.mktemp("reference")
    assert _python_of_its_own(folder, folder / "cache", folder / "run").wait(timeout=200) == 0
    return folder


def _python_of_its_own(folder: Path, cache: Path, out: Path) -> subprocess.Popen[bytes]:
    shelf = folder / "shelf"
    (shelf / "stranger-1.0.dist-info").mkdir(parents=True, exist_ok=True)
    (shelf / "stranger.py").write_text(textwrap.dedent(STRANGER))  # to the last byte what the fixture installs
    (shelf / "stranger-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (shelf / "stranger-1.0.dist-info" / "entry_points.txt").write_text("[xbench]\nstranger = stranger\n")
    variables = os.environ | {"PYTHONPATH": str(shelf), "XBENCH_CACHE": str(cache)}
    words = [sys.executable, "-m", "xbench", *LINE, "--out", str(out)]
    return subprocess.Popen(words, env=variables, cwd=folder, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_numbers_of_an_undisturbed_one(
    start: Callable[..., Begun], reference: Path, tmp_path: Path
) -> None:
    numbers, made = _numbers(reference / "run"), _finished(reference / "cache")
    draws, cache, kills = random.Random(0), tmp_path / "cache", 0
    # Moments spread over the whole run, by what is made until then: no matter how fast the machine is at the moment.
    for index in range(7):
        begun = start(cache, tmp_path / f"killed-{index}")
        while begun.ended(0.005) is None and _finished(cache) < made * (index + 1) // 8:
            pass
        kills += _killed(begun, draws.uniform(0, 0.1))
    began = time.monotonic()
    done = start(cache, tmp_path / "killed-never").wait(timeout=200)
    whole = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    # By time, where all is made: into scoring and writing.
    for index in range(7, 10):
        kills += _killed(start(cache, tmp_path / f"killed-{index}"), whole * draws.uniform(0.35, 1.0))
    assert kills >= 5
    for folder in tmp_path.glob("killed-*"):  # a kill after the last rename leaves a whole run
        assert _numbers(folder) == numbers
    last = start(cache, tmp_path / "resumed").wait(timeout=200)
    assert last.returncode == 0, last.stderr
    assert _numbers(tmp_path / "resumed") == numbers


def _killed(begun: Begun, patience: float) -> bool:
    """Whether it was still at work after so many seconds, and was killed."""
    if begun.ended(patience) is not None:
        return False
    begun.kill()
    begun.ended(None)
    return True


STEPS = ("data", "model", "calibration", "predictions", "preparation", "maps", "observations")


@pytest.mark.slow
def test_a_kill_inside_each_kind_of_work_changes_no_number(
    start: Callable[..., Begun], tmp_path: Path, shelf: Shelf, reference: Path
) -> None:
    """The process kills itself with SIGKILL the moment the first artifact of a kind has written its files; so does the
    next one, at the kind that follows, until one has nothing left to die of."""
    shelf.install(
        "killer",
        f"""
        import os, pathlib, signal
        import xbench.jobs.store as artifacts

        DEATHS = pathlib.Path("{tmp_path}/deaths")

        def _die(folder, item, facts, seconds, original=artifacts._write_manifest):
            if item.kind in {STEPS} and not (DEATHS / item.kind).exists():
                DEATHS.mkdir(exist_ok=True)
                (DEATHS / item.kind).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(folder, item, facts, seconds)

        artifacts._write_manifest = _die
        """,
    )
    for _ in STEPS:
        killed = start(tmp_path / "cache", tmp_path / "run").wait(timeout=200)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "run").exists()
    assert {path.name for path in (tmp_path / "deaths").iterdir()} == set(STEPS)
    again = start(tmp_path / "cache", tmp_path / "run").wait(timeout=200)
    assert again.returncode == 0, again.stderr
    assert _numbers(tmp_path / "run") == _numbers(reference / "run")


@pytest.mark.slow
def test_two_processes_share_every_artifact(start: Callable[..., Begun], tmp_path: Path, reference: Path) -> None:
    """One with the seed of hashes of the forked, one with its own."""
    forked = start(tmp_path / "cache", tmp_path / "run-0")
    own = _python_of_its_own(tmp_path / "own", tmp_path / "cache", tmp_path / "run-1")
    done = forked.wait(timeout=300)
    assert (done.returncode, own.wait(timeout=300)) == (0, 0), done.stderr
    assert (tmp_path / "run-0" / "scores.csv").read_bytes() == (tmp_path / "run-1" / "scores.csv").read_bytes()
    assert _numbers(tmp_path / "run-0") == _numbers(reference / "run")


@pytest.mark.slow
def test_damaged_artifacts_are_named_rebuilt_and_give_the_same_numbers(
    start: Callable[..., Begun], tmp_path: Path, reference: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(reference / "cache", cache)
    damaged = {}
    for kind, name in {"model": "weights.safetensors", "maps": "maps.npy", "observations": "observations.npz"}.items():
        path = sorted((cache / "artifacts" / kind).glob(f"*/{name}"))[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if kind != "maps" else content[:-5])
        damaged[kind] = path.parent.name[:12]
    again = start(cache, tmp_path / "second").wait(timeout=200)
    assert again.returncode == 0, again.stderr
    for kind, fingerprint in damaged.items():
        assert f"cached {kind}" in again.stderr
        assert fingerprint in again.stderr
    assert _numbers(tmp_path / "second") == _numbers(reference / "run")


@pytest.mark.slow
def test_an_artifact_of_other_code_is_never_reused(
    command: Callable[..., subprocess.CompletedProcess[str]], shelf: Shelf
) -> None:
    source = """
        from xbench import Explainer, ExplainerSpec, hookimpl

        @hookimpl
        def xbench_explainers():
            yield ExplainerSpec("mine", "a stranger's", factory="mine:Mine")

        class Mine(Explainer):
            def attribute(self, model, images, targets):
                return images[:, 0]{change}
    """
    line = ("run", "--explainer", "mine", "--no-controls", *LINE[5:])
    shelf.install("stranger", STRANGER)
    shelf.install("mine", source.format(change=""))
    assert command(*line, "--out", "one", XBENCH_TESTS_PICTURES="none").returncode == 0
    assert "0 to make" in _counts(command(*line, "--dry-run").stdout)
    shelf.install("mine", source.format(change=" * -1"))
    made_again = command(*line, "--dry-run").stdout
    assert {line.split()[2] for line in made_again.splitlines() if "to make" in line} == {"maps", "observations"}
    assert command(*line, "--out", "two", XBENCH_TESTS_PICTURES="none").returncode == 0


def _counts(text: str) -> str:
    return f"{sum('to make' in line for line in text.splitlines())} to make"
