"""What a user's machine does to a run: kills, damage, company."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from xbench.results.rows import read_scores

STRANGER = """
    from xbench.testing.fakes import xbench_datasets, xbench_models
"""
LINE = (
    *("run", "--explainer", "gradient", "--explainer", "blurred:gradient"),
    *("--dataset", "fake:train=96,test=64", "--model", "tiny:epochs=12", "--batch-size", "16", "--resamples", "100"),
)
_SECONDS = ("seconds_fit", "seconds_maps", "seconds_metric")


def _numbers(path):
    """All that must be the same again; not how long it took."""
    return [
        {key: value for key, value in vars(row).items() if key not in _SECONDS}
        for row in read_scores(path / "scores.csv")
    ]


def _finished(cache):
    return len(list((cache / "artifacts").glob("*/*")))


@pytest.fixture
def start(tmp_path, shelf):
    shelf.install("stranger", STRANGER)

    def begin(cache, out):
        variables = os.environ | {"PYTHONPATH": str(shelf.folder), "XBENCH_CACHE": str(cache)}
        words = [sys.executable, "-m", "xbench", *LINE, "--out", str(out)]
        return subprocess.Popen(words, env=variables, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    return begin


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_numbers_of_an_undisturbed_one(start, tmp_path):
    began = time.monotonic()
    undisturbed = start(tmp_path / "cache-0", tmp_path / "undisturbed")
    assert undisturbed.wait(timeout=200) == 0
    whole = time.monotonic() - began
    made = _finished(tmp_path / "cache-0")
    draws = random.Random(0)
    kills = 0
    # Moments spread over the whole run, by what is made until then: no matter how fast the machine is at the moment.
    # The last ones, by time, fall into scoring and drawing, where they are not over before.
    for index in range(10):
        process = start(tmp_path / "cache-1", tmp_path / f"killed-{index}")
        if index < 7:
            while process.poll() is None and _finished(tmp_path / "cache-1") < made * (index + 1) // 8:
                time.sleep(0.005)
            patience = draws.uniform(0, 0.1)
        else:
            patience = whole * draws.uniform(0.35, 1.0)
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 5
    numbers = _numbers(tmp_path / "undisturbed")
    for folder in tmp_path.glob("killed-*"):  # a kill after the last rename leaves a whole run
        assert _numbers(folder) == numbers
    last = start(tmp_path / "cache-1", tmp_path / "resumed")
    assert last.wait(timeout=200) == 0, last.stderr.read()
    assert _numbers(tmp_path / "resumed") == numbers


STEPS = ("data", "model", "calibration", "predictions", "preparation", "maps", "observations")


@pytest.mark.slow
@pytest.mark.parametrize("moment", STEPS)
def test_a_kill_inside_each_kind_of_work_changes_no_number(start, tmp_path, shelf, moment, command, reference_numbers):
    """The process kills itself with SIGKILL the moment the first artifact of a kind has written its files."""
    shelf.install(
        "killer",
        f"""
        import os, signal
        import xbench.jobs.store as artifacts

        def _die(folder, item, facts, seconds, original=artifacts._write_manifest):
            if item.kind == "{moment}" and not os.path.exists("{tmp_path}/died"):
                open("{tmp_path}/died", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(folder, item, facts, seconds)

        artifacts._write_manifest = _die
        """,
    )
    killed = command(*LINE, "--out", "killed")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    again = command(*LINE, "--out", "again")
    assert again.returncode == 0, again.stderr
    assert _numbers(tmp_path / "again") == reference_numbers


@pytest.fixture(scope="session")
def reference_numbers(tmp_path_factory):
    """The numbers of an undisturbed run in a cache of its own."""
    folder = tmp_path_factory.mktemp("reference")
    shelf = folder / "shelf"
    (shelf / "stranger-1.0.dist-info").mkdir(parents=True)
    (shelf / "stranger.py").write_text(STRANGER.strip() + "\n")
    (shelf / "stranger-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (shelf / "stranger-1.0.dist-info" / "entry_points.txt").write_text("[xbench]\nstranger = stranger\n")
    variables = os.environ | {"PYTHONPATH": str(shelf), "XBENCH_CACHE": str(folder / "cache")}
    words = [sys.executable, "-m", "xbench", *LINE, "--out", str(folder / "run")]
    subprocess.run(words, env=variables, cwd=folder, check=True, capture_output=True, timeout=200)
    return _numbers(folder / "run")


@pytest.mark.slow
def test_two_processes_share_every_artifact(start, tmp_path):
    both = [start(tmp_path / "cache", tmp_path / f"run-{index}") for index in range(2)]
    errors = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert (tmp_path / "run-0" / "scores.csv").read_bytes() == (tmp_path / "run-1" / "scores.csv").read_bytes()


@pytest.mark.slow
def test_damaged_artifacts_are_named_rebuilt_and_give_the_same_numbers(start, tmp_path, reference_numbers):
    cache = tmp_path / "cache"
    assert start(cache, tmp_path / "first").wait(timeout=200) == 0
    damaged = {}
    for kind, name in {"model": "weights.safetensors", "maps": "maps.npy", "observations": "observations.npz"}.items():
        path = sorted((cache / "artifacts" / kind).glob(f"*/{name}"))[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if kind != "maps" else content[:-5])
        damaged[kind] = path.parent.name[:12]
    again = start(cache, tmp_path / "second")
    errors = again.communicate(timeout=200)[1].decode()
    assert again.returncode == 0, errors
    for kind, fingerprint in damaged.items():
        assert f"cached {kind}" in errors
        assert fingerprint in errors
    assert _numbers(tmp_path / "second") == reference_numbers


@pytest.mark.slow
def test_an_artifact_of_other_code_is_never_reused(command, shelf):
    source = """
        from xbench import Explainer, ExplainerSpec, hookimpl
        from xbench.testing.fakes import xbench_datasets, xbench_models

        @hookimpl
        def xbench_explainers():
            yield ExplainerSpec("mine", "a stranger's", factory="stranger:Mine")

        class Mine(Explainer):
            def attribute(self, model, images, targets):
                return images[:, 0]{change}
    """
    line = ("run", "--explainer", "mine", "--no-controls", *LINE[5:])
    shelf.install("stranger", source.format(change=""))
    assert command(*line, "--out", "one").returncode == 0
    assert "0 to make" in _counts(command(*line, "--dry-run").stdout)
    shelf.install("stranger", source.format(change=" * -1"))
    made_again = command(*line, "--dry-run").stdout
    assert {line.split()[2] for line in made_again.splitlines() if "to make" in line} == {"maps", "observations"}
    assert command(*line, "--out", "two").returncode == 0


def _counts(text):
    return f"{sum('to make' in line for line in text.splitlines())} to make"
