"""`xbench leaderboard` as a third party uses it: run, add, check, verify, build, show."""

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner

from xbench.cli import xbench
from xbench.cli.leaderboard_command import installed_suites
from xbench.errors import UserError
from xbench.leaderboard.records import content_digest, line
from xbench.provenance import digest
from xbench.results.rows import read_header, write_header

SUITE = {"name": "mine", "version": 1, "fingerprint": digest("mine"), "changed": {}}


@pytest.fixture
def leaderboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """`xbench leaderboard` in this process and in the folder of the test: exit code, what it printed."""
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(xbench, ["leaderboard", *map(str, words)], standalone_mode=False)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.return_value or 0, done.output

    return call


def _of_suite(folder: Path) -> None:
    path = folder / "run.json"
    write_header(dataclasses.replace(read_header(path), suite=SUITE), path)


@pytest.mark.slow
def test_a_round_trip_of_a_third_party(
    tiny: Callable[..., CompletedProcess[str]],
    command: Callable[..., subprocess.CompletedProcess[str]],
    leaderboard: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    words = ("--explainer", "gradient", "--metric", "fidelity:score=logit", "--metric", "roc_auc", "--sign", "both")
    done = tiny(*words, "--no-model-view", "--out", "mine")
    assert done.returncode == 0, done.stderr
    _of_suite(tmp_path / "mine")
    assert leaderboard("add", "mine", "--submitter", "Ada Lovelace", "--note", "hello")[0] == 0
    with pytest.raises(UserError, match="was handed in before"):
        leaderboard("add", "mine")
    (path,) = (tmp_path / "leaderboard" / "runs").glob("*.jsonl")
    assert path.name.startswith("mine-v1-s0-")
    code, output = leaderboard("check")
    assert code == 2
    assert "leaderboard/index.csv: is not what the submissions give: xbench leaderboard build" in output
    assert "wrote leaderboard/mine-v1.csv" in leaderboard("build")[1]
    code, output = leaderboard("check")
    assert (code, output.splitlines()[-1]) == (0, "1 submissions in order, 0 faults")
    assert "suite mine version 1 is not installed here" in output
    output = leaderboard("show", "--metric", "roc_auc", "--sign", "absolute", "--top", "3")[1]
    assert "roc_auc on fake / tiny:epochs=3" in output
    assert "... and 3 more" in output
    assert "Ada Lovelace" in output
    with (tmp_path / "leaderboard" / "mine-v1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24  # six explainers, two metrics, two signs
    assert rows[0]["reproduce"].startswith("xbench run --dataset fake --model tiny:epochs=3")
    assert "--out" not in rows[0]["reproduce"]

    code, output = leaderboard("verify", path, "--sample", "3", "--seed", "1", "--cache", "cache")
    assert code == 0, output
    assert "3 of 24 rows, chosen by --seed 1; " in output
    assert output.count("agrees ") == 3
    # A forger moves all there is to be moved: values, intervals, replicates, digest, name.
    header, *rows = [json.loads(text) for text in path.read_text().splitlines()]
    for row in rows:
        if row["value"] is not None and row["metric"] == "roc_auc":
            for name in ("value", "ci_low", "ci_high"):
                row[name] += 0.0001
            for name in ("low", "high"):
                row["replicates"][name] += 0.0001
    header["digest"] = content_digest(header["run"], rows)
    forged = tmp_path / f"mine-v1-s0-{header['digest'][:12]}.jsonl"
    forged.write_text("".join(f"{line(record)}\n" for record in [header, *rows]))
    assert leaderboard("check", forged)[0] == 2  # the same fingerprints as in the leaderboard, other values
    assert leaderboard("check", forged, "--board", "nowhere")[0] == 0
    verified = command("leaderboard", "verify", str(forged), "--sample", "24")
    assert verified.returncode == 2
    assert "the same machine and libraries: values must agree to 1e-06" in verified.stdout
    assert verified.stdout.count("DIFFERS ") == 12
    assert "12 of 24 cells agree" in verified.stdout


@pytest.mark.slow
def test_a_row_of_another_device_is_computed_again_as_it_was_resolved_there(
    tiny: Callable[..., CompletedProcess[str]], leaderboard: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    words = ("--explainer", "open:preset=paper", "--explainer", "blurred:open:preset=paper", "--no-controls")
    done = tiny(*words, "--no-model-view", "--out", "mine")
    assert done.returncode == 0, done.stderr
    _of_suite(tmp_path / "mine")
    leaderboard("add", "mine")
    (path,) = (tmp_path / "leaderboard" / "runs").glob("*.jsonl")
    # As a GPU would have handed it in: there `open` stands for the paper's preset, and float32 may be TF32.
    text = path.read_text().replace('"explainer":"open:preset=paper"', '"explainer":"open"')
    text = text.replace('"explainer":"blurred:open:preset=paper"', '"explainer":"blurred:open"')
    header, *rows = [json.loads(each) for each in text.splitlines()]
    names = {row["explainer"]: row["resolved"] for row in rows}
    assert names == {"open": "open:preset=paper", "blurred:open": "blurred:open:preset=paper"}
    for row in rows:
        row |= {"device": "cuda:1", "precision": "tf32"}
        row["rank_set"] = [next(short for short in names if names[short] == each) for each in row["rank_set"]]
    header["run"]["environment"]["device"] = "cuda:1"
    header["run"]["config"] |= {"device": "cuda:1", "precision": "tf32"}
    header["digest"] = content_digest(header["run"], rows)
    theirs = tmp_path / f"mine-v1-s0-{header['digest'][:12]}.jsonl"
    theirs.write_text("".join(f"{line(record)}\n" for record in [header, *rows]))
    code, output = leaderboard("verify", theirs, "--device", "cpu", "--cache", "cache")
    assert code == 0, output
    for resolved in names.values():
        assert f"agrees        fidelity of {resolved} (original) on fake / tiny:epochs=3: " in output
    assert "another machine or other libraries" in output


def test_mistakes_are_user_errors(leaderboard: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    for words, expected in {
        ("add", "nowhere"): "no run folder nowhere",
        ("build",): "leaderboard is not a leaderboard",
        ("check",): "leaderboard is not a leaderboard",
        ("show", "--board", "nowhere"): "nowhere is not a leaderboard",
        ("verify", "nowhere.jsonl"): "nowhere.jsonl: can't be read",
        ("show", "--board", "empty", "--metric", "x"): "metric 'x' is not on this leaderboard",
    }.items():
        with pytest.raises(UserError) as caught:
            leaderboard(*words)
        assert expected in str(caught.value)
    assert "no submission yet" in leaderboard("show", "--board", "empty")[1]
    assert leaderboard("check", "--board", "empty") == (2, leaderboard("check", "--board", "empty")[1])
    assert leaderboard("check", "nowhere.jsonl")[0] == 2


def test_every_installed_suite_is_known() -> None:
    found = installed_suites()
    assert ("quick", "1") in found
    assert all(len(fingerprint) == 64 for fingerprint in found.values())


def test_help_imports_no_numpy() -> None:
    code = (
        "import sys; from xbench.cli import main\ntry: main(['leaderboard', 'verify', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "wrong = {'torch', 'numpy', 'pandas', 'xbench.leaderboard'} & set(sys.modules)\nassert not wrong, wrong"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nobody can foresee" in done.stdout
