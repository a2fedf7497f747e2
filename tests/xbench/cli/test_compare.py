"""`xbench compare` as a user runs it: on folders made by hand, and on what `xbench run` leaves."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from xbench.cli import xbench
from xbench.errors import UserError
from xbench.results.replicates import REPLICATES, Replicates, read_replicates, sampling, write_replicates
from xbench.results.rows import SCHEMA, RunHeader, ScoreRow, read_header, read_scores, write_header, write_scores
from xbench.statistics.resampling import interval, resamples

if TYPE_CHECKING:
    from tests.conftest import Shelf


_EMPTY = {str: "", int: 0, float: 0.0, bool: False}
_HINTS = typing.get_type_hints(ScoreRow)
_REQUIRED = [field.name for field in dataclasses.fields(ScoreRow) if field.default is dataclasses.MISSING]
PATIENTS = [f"p{index}" for index in range(80)]
EXPLAINERS = {"gradient": 0.4, "vinet": 0.6, "smoothgrad": 0.58, "=sum": 0.2, "random": 0.0}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """folder("a", metrics=("fidelity",), model="net"): a run folder of 80 patients and five explainers."""

    def build(
        name: str,
        metrics: tuple[str, ...] = ("fidelity",),
        model: str = "net",
        seed: int = 0,
        cards: dict[str, Any] | None = None,
    ) -> Path:
        made = tmp_path / name
        drawn = resamples(PATIENTS, 300, 0)
        rows, kept, contents = [], {}, {}
        for metric in metrics:
            draw = np.random.default_rng([seed, len(metric), *metric.encode()])
            shared, card = draw.normal(size=80), f"card of {metric}"
            contents[card] = {"metric": metric.partition(":")[0], "sign": "original"} | (cards or {}).get(metric, {})
            for explainer, mean in EXPLAINERS.items():
                values = mean + 0.1 * shared + 0.05 * draw.normal(size=80)
                replicates = np.array([values[where].mean() for where in drawn])
                low, high = interval(replicates)
                own: dict[str, Any] = {
                    "metric": metric,
                    "card": card,
                    "explainer": explainer,
                    "model": model,
                    "dataset": "phantom",
                }
                own |= {"value": values.mean(), "ci_low": low, "ci_high": high, "control": explainer == "random"}
                own |= {"sign": "original", "subject": "shared", "target": "predicted", "split": "test", "n": 80}
                own |= {"resolved": explainer, "device": "cpu", "precision": "32"}
                own |= {"groups": 80, "higher_is_better": True, "fingerprint": f"{model} {metric} {explainer} {seed}"}
                blank: dict[str, Any] = {key: _EMPTY.get(_HINTS[key], ()) for key in _REQUIRED}
                rows.append(ScoreRow(**blank | own | {"model_fingerprint": model, "dataset_fingerprint": "phantom"}))
                kept[rows[-1].fingerprint] = Replicates(replicates, sampling(PATIENTS, PATIENTS, 0))
        write_scores(rows, made / "scores.csv")
        write_header(RunHeader(created="2026-01-02T03:04:05+00:00", cards=contents), made / "run.json")
        write_replicates(kept, made / REPLICATES)
        return made

    return build


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`xbench compare` in this process; what it printed, and the UserError it raised, if any."""
    monkeypatch.setenv("COLUMNS", "180")

    def run(*words: object) -> str:
        done = CliRunner().invoke(xbench, ["compare", *map(str, words)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return run


def line_of(output: str, explainer: str) -> str:
    """The line of the ranking, behind the rank."""
    return next(line for line in output.splitlines() if line.split()[1:2] == [explainer])


def test_ranks_differences_and_the_reference(folder: Callable[..., Path], compare: Callable[..., str]) -> None:
    output = compare(folder("a"))
    assert (
        "fidelity on phantom / net  higher is better; original maps of the predicted class; 80 samples of 80" in output
    )
    assert "less vinet" in output
    assert "reference" in line_of(output, "vinet")
    assert "<0.001" in line_of(output, "gradient")
    assert "p: of all pairs, since vinet was found to be the best, not named" in output
    named = compare(folder("b"), "--against", "smoothgrad")
    assert "less smoothgrad" in named
    assert "of all pairs" not in named


@pytest.mark.parametrize("columns", ["80", None])
def test_the_metrics_that_agree_are_named_on_any_terminal_and_in_a_file(
    folder: Callable[..., Path], compare: Callable[..., str], monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    run = folder("a", metrics=("fidelity", "roc-auc"))
    if columns is None:
        monkeypatch.delenv("COLUMNS")
    else:
        monkeypatch.setenv("COLUMNS", columns)
    table = compare(run).partition("agreement of metrics")[2].splitlines()
    head = next(index for index, text in enumerate(table) if text.startswith("metrics "))
    assert "tau-b" in table[head]
    names = " ".join(text[: table[head].index("common")].strip() for text in table[head + 1 :])
    assert names.strip() == "fidelity / roc-auc"
    assert max(map(len, table)) <= int(columns or 160)


def test_two_chosen_explainers(folder: Callable[..., Path], compare: Callable[..., str]) -> None:
    output = compare(folder("a"), "-e", "vinet", "--against", "gradient")
    assert "smoothgrad" not in output
    assert line_of(output, "vinet").count("[") == 2


def test_the_csv_table_holds_the_differences_and_no_formula(
    folder: Callable[..., Path], compare: Callable[..., str], tmp_path: Path
) -> None:
    run = folder("a")
    output = compare(run, "--against", "gradient", "--csv", tmp_path / "deep" / "t.csv")
    assert "table: " in output
    with (tmp_path / "deep" / "t.csv").open(newline="") as file:
        rows = {row["explainer"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"gradient", "vinet", "smoothgrad", "'=sum", "random"}
    scores = {row.explainer: row for row in read_scores(run / "scores.csv")}
    vinet, gradient = scores["vinet"], scores["gradient"]
    assert float(rows["vinet"]["difference"]) == vinet.value - gradient.value
    replicates = read_replicates(run / REPLICATES)
    difference = replicates[vinet.fingerprint].values - replicates[gradient.fingerprint].values
    low, high = interval(difference)
    assert (float(rows["vinet"]["difference_low"]), float(rows["vinet"]["difference_high"])) == (low, high)
    assert rows["gradient"]["p"] == rows["gradient"]["difference"] == ""
    assert rows["vinet"]["reference"] == "gradient"
    assert rows["random"]["control"] == "true"


def test_several_models_and_metrics_with_pictures(
    folder: Callable[..., Path], compare: Callable[..., str], tmp_path: Path
) -> None:
    metrics = ("fidelity", "roc-auc", "fidelity:removal=zero")
    cards = {"fidelity": {"removal": "mean"}, "fidelity:removal=zero": {"removal": "zero"}}
    runs = [folder(name, metrics, model=name, seed=seed, cards=cards) for seed, name in enumerate("abc")]
    output = compare(*runs, "--figure", tmp_path / "figures")
    assert "not ranked together" in output
    assert "  removal: mean vs zero" in output
    assert "fidelity over 3 datasets or models, original maps, cpu at precision 32: phantom / a; phantom / b;" in output
    assert "Friedman: chi² " in output
    assert "Nemenyi: average ranks 2.71 apart differ" in output  # q(4) = 2.569, sqrt(4 * 5 / 18)
    assert output.count("agreement of metrics on phantom / ") == 3
    pictures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert pictures == [f"agreement--phantom-{name}-original-maps.{end}" for name in "abc" for end in ("png", "svg")]
    with_controls = compare(*runs, "--controls")
    assert "Nemenyi: average ranks 3.52 apart differ" in with_controls  # q(5) = 2.728, sqrt(5 * 6 / 18)
    assert "agreement" not in compare(*runs, "--metric", "roc-auc")


def test_mistakes_are_user_errors(folder: Callable[..., Path], compare: Callable[..., str], tmp_path: Path) -> None:
    good, other = folder("a"), folder("b", ("roc-auc",), model="else")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    newer = folder("newer")
    text = (newer / "run.json").read_text().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}')
    (newer / "run.json").write_text(text)
    for words, expected in {
        (tmp_path / "nowhere",): "no run folder",
        (tmp_path / "empty",): "is not a run folder: it has no scores.csv",
        (good, good): "is named twice",
        (good, newer): f"schema {SCHEMA + 1} is newer than schema {SCHEMA}",
        (good, other): "run a has nothing in common with the others: it has fidelity on phantom / net",
        (good, "-e", "vinett"): "did you mean vinet",
        (good, "-m", "nothing"): "metric 'nothing' is not in this run",
        (good, "--csv", tmp_path / "file" / "t.csv"): "can't write",
        (good, other, "-m", "fidelity"): "nothing in common",
    }.items():
        with pytest.raises(UserError) as caught:
            compare(*words)
        assert expected in str(caught.value)


def test_the_help_has_examples(compare: Callable[..., str]) -> None:
    assert "xbench compare mine --metric fidelity --against gradient" in compare("--help")
    assert "compare" in CliRunner().invoke(xbench, ["--help"]).output


def test_it_needs_neither_torch_nor_plugins(folder: Callable[..., Path]) -> None:
    code = (
        f"import sys; from xbench.cli import main\ntry: main(['compare', {str(folder('a'))!r}])\n"
        "except SystemExit as end: assert not end.code\n"
        "loaded = [name for name in sys.modules if name == 'torch' or name.startswith('xbench_')]\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_a_run_leaves_is_compared_as_it_was_ranked(
    command: Callable[..., subprocess.CompletedProcess[str]], compare: Callable[..., str], tmp_path: Path, shelf: Shelf
) -> None:
    shelf.install("tiny", "from xbench.testing.fakes import *")
    tiny = ("run", "--dataset", "fake", "--model", "tiny:epochs=1", "--batch-size", "16", "--no-model-view")
    first = command(*tiny, "--explainer", "gradient", "--resamples", "200", "--out", "first")
    assert first.returncode == 0, first.stderr
    other = ("--explainer", "input-x-gradient", "--explainer", "gradient", "--no-controls", "--resamples", "300")
    assert command(*tiny, *other, "--out", "third").returncode == 0
    rows = read_scores(tmp_path / "first" / "scores.csv")
    replicates = read_replicates(tmp_path / "first" / REPLICATES)
    for row in rows:
        assert (row.ci_low, row.ci_high) == interval(replicates[row.fingerprint].values)
    compare(tmp_path / "first", "--csv", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        table = {(row["explainer"], row["sign"]): row for row in csv.DictReader(file)}
    for row in rows:
        found = table[row.explainer, row.sign]
        assert (int(found["rank"]), int(found["rank_high"])) == (row.rank, row.rank_high)
        assert found["rank_set"] == "|".join(row.rank_set)
    output = compare(tmp_path / "first", tmp_path / "third", "--against", "gradient")
    assert line_of(output, "input-x-gradient").count("[") == 2  # paired, though of another number of resamples
    assert "not ranked together" not in output
    assert read_header(tmp_path / "third" / "run.json").config["resamples"] == 300
