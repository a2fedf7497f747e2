"""Whole runs through the command line, on tiny rendered data and a tiny network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from xbench.results.rows import read_header, read_scores

if TYPE_CHECKING:
    from tests.conftest import Shelf


@pytest.mark.slow
def test_a_run_leaves_a_table_and_a_whole_folder(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    done = tiny("--explainer", "gradient", "--sign", "both", "--out", "run", pictures=True)
    assert done.returncode == 0, done.stderr
    assert "gradient" in done.stdout
    assert "AUC" in done.stdout
    folder = tmp_path / "run"
    rows, header = read_scores(folder / "scores.csv"), read_header(folder / "run.json")
    assert {row.explainer for row in rows} == {"gradient", "random", "constant", "centre", "edges", "mask"}
    assert {row.sign for row in rows} == {"original", "absolute"}
    for row in rows:
        assert row.status == "ok"
        assert row.ci_low <= row.value <= row.ci_high
        assert 1 <= row.rank <= row.rank_high <= 6
        assert row.control == (row.explainer != "gradient")
        assert row.card in header.cards
    cards = {row.sign: row.card for row in rows}
    assert cards["original"] != cards["absolute"]
    assert header.command[:2] == ["xbench", "run"]
    assert header.models[0]["metrics"]["auc"][0] > 0
    frame = pd.read_parquet(folder / "observations" / "fidelity.parquet")
    assert len(frame) == sum(row.n for row in rows)
    assert frame["target"].isin([0, 1]).all()
    for name in ("scores", "curves", "training", "gallery", "models"):
        for ending in (".png", ".svg"):
            found = list((folder / name).glob(f"*{ending}"))
            assert found, (name, ending)
            assert all(path.stat().st_size > 1000 for path in found)
    assert not list(tmp_path.glob(".run*"))


@pytest.mark.slow
def test_the_same_line_again_gives_the_same_numbers_from_the_cache(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    assert tiny("--explainer", "gradient", "--out", "one").returncode == 0
    planned = tiny("--explainer", "gradient", "--dry-run")
    assert "to make" not in planned.stdout
    again = tiny("--explainer", "gradient", "--out", "two")
    assert again.returncode == 0
    assert (tmp_path / "one" / "scores.csv").read_bytes() == (tmp_path / "two" / "scores.csv").read_bytes()


@pytest.mark.slow
def test_a_score_does_not_depend_on_its_company(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    words = ("--explainer", "gradient", "--no-controls")
    alone = tiny(*words, "--out", "alone", cache=tmp_path / "cache-1")
    many = tiny("--explainer", "gradient", "--explainer", "edges", "--out", "many", cache=tmp_path / "cache-2")
    assert alone.returncode == many.returncode == 0
    (row,) = read_scores(tmp_path / "alone" / "scores.csv")
    same = next(item for item in read_scores(tmp_path / "many" / "scores.csv") if item.explainer == "gradient")
    assert (row.value, row.ci_low, row.ci_high, row.fingerprint) == (
        same.value,
        same.ci_low,
        same.ci_high,
        same.fingerprint,
    )


@pytest.mark.slow
def test_another_batch_size_moves_no_score(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    for size in ("1", "7", "64"):
        done = tiny("--explainer", "gradient", "--batch-size", size, "--out", size)
        assert done.returncode == 0, done.stderr
    values = [
        {row.explainer: row.value for row in read_scores(tmp_path / size / "scores.csv")} for size in ("1", "7", "64")
    ]
    for name, value in values[0].items():
        np.testing.assert_allclose([other[name] for other in values], value, atol=1e-4)


@pytest.mark.slow
def test_faulty_plugins_are_reported_with_their_distribution_and_the_rest_goes_on(
    tiny: Callable[..., CompletedProcess[str]], shelf: Shelf, tmp_path: Path
) -> None:
    shelf.install("unimportable", "import nothing_of_that_name")
    words = [word for name in ("gradient", "raising", "nan", "flat", "unmakeable") for word in ("--explainer", name)]
    done = tiny(*words, "--no-controls", "--out", "run")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "unimportable" in done.stderr
    assert "unmakeable (stranger 1.0)" in done.stderr
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert rows["gradient"].status == "ok"
    for name, words in {  # type: ignore[assignment]
        "raising": "ValueError: inside attribute",
        "nan": "NaN or infinity",
        "flat": "expected (",
        "unmakeable": "RuntimeError: in the constructor",
    }.items():
        assert rows[name].status == "failed"
        assert "(stranger 1.0)" in rows[name].reason
        assert words in rows[name].reason
        assert np.isnan(rows[name].value)
        assert name in done.stdout


@pytest.mark.slow
def test_a_run_of_nothing_but_a_broken_explainer_ends_with_its_fault(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = tiny("--explainer", "unmakeable", "--no-controls", "--out", "run")
    assert done.returncode == 3
    assert "unmakeable (stranger 1.0) can't be made: RuntimeError: in the constructor" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_user_mistakes_are_one_line_and_leave_nothing(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    mistakes = {
        ("--explainer", "gradeint"): "did you mean gradient",
        ("--explainer", "gradient:colour=red"): "no option 'colour'",
        ("--explainer", "gradient", "--metric", "fidelity:step=0.3"): "step",
        ("--explainer", "gradient", "--target", "7"): "target '7'",
        ("--explainer", "refusing"): "it has no such layer",
        ("--explainer", "mask", "--dataset", "fake:masks=false"): "mask",
        ("--explainer", "gradient", "--model", "tiny:weights=nowhere.safetensors"): "nowhere.safetensors do not exist",
        ("--explainer", "gradient", "--device", "tpu9"): "device 'tpu9'",
        ("--explainer", "gradient", "--limit", "1"): "--limit 1",
        ("--explainer", "gradient", "--dataset", "fake:masks=false", "--metric", "needsmasks"): "needs expert masks",
    }
    for words, expected in mistakes.items():
        done = tiny(*words, "--out", "run")
        assert done.returncode == 2, (words, done.stderr)
        last = done.stderr.strip().splitlines()[-1]
        assert expected in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert len(last) < 400
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [("empty", "the test split is empty"), ("oneclass", "the test split has no sample of class ring")],
)
def test_a_dataset_that_lacks_something_is_one_line(
    shelf: Shelf,
    command: Callable[..., subprocess.CompletedProcess[str]],
    stranger: str,
    tmp_path: Path,
    kind: str,
    words: str,
) -> None:
    shelf.install("stranger", stranger)
    line = ("run", "--explainer", "gradient", "--dataset", f"hollow:kind={kind}", "--model", "tiny:epochs=1")
    done = command(*line, "--out", "run")
    assert done.returncode == 2
    complaints = [line for line in done.stderr.splitlines() if "error" in line or "warning" in line]
    assert complaints == [f"error: dataset fake: {words}"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_dataset_that_fails_leaves_the_other_one_be(
    shelf: Shelf, command: Callable[..., subprocess.CompletedProcess[str]], stranger: str, tmp_path: Path
) -> None:
    shelf.install("stranger", stranger)
    words = ("--explainer", "gradient", "--model", "tiny:epochs=1", "--no-controls")
    done = command("run", *words, "--dataset", "fake", "--dataset", "hollow", "--out", "run")
    assert done.returncode == 2, done.stderr
    assert "the test split is empty" in done.stderr
    states = {row.dataset: row.status for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert states == {"fake": "ok", "hollow": "failed"}
    header = read_header(tmp_path / "run" / "run.json")
    assert [item["name"] for item in header.datasets] == ["fake", "hollow"]


@pytest.mark.slow
def test_an_out_folder_that_holds_something_is_refused_before_anything_runs(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    done = tiny("--explainer", "gradient", "--out", "run")
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "cache" / "artifacts").exists()


@pytest.mark.slow
def test_a_cache_or_run_folder_that_cant_be_written_is_one_line(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    out = tiny("--explainer", "gradient", "--out", "file/run")
    assert out.returncode == 2
    assert "can't be made" in out.stderr
    cache = tiny("--explainer", "gradient", "--out", "run", cache=tmp_path / "file" / "cache")
    assert cache.returncode == 1
    assert "XBENCH_CACHE" in cache.stderr.strip().splitlines()[-1]
    assert "internal" not in out.stderr + cache.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_classifier_that_learned_nothing_is_warned_about(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = tiny("--explainer", "gradient", "--model", "tiny:epochs=0", "--no-controls", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "learned nothing" in done.stderr
    assert any(
        "learned nothing" in text for text in json.loads((tmp_path / "run" / "run.json").read_text())["warnings"]
    )


@pytest.mark.slow
def test_the_users_own_weights_are_used_and_pickles_need_a_word(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    assert tiny("--explainer", "gradient", "--no-controls", "--out", "trained").returncode == 0
    (weights,) = (tmp_path / "cache" / "artifacts" / "model").glob("*/weights.safetensors")
    words = ("--explainer", "gradient", "--no-controls", "--model")
    trained = read_scores(tmp_path / "trained" / "scores.csv")[0]
    assert tiny(*words, f"tiny:weights={weights}", "--out", "given").returncode == 0
    given = next(row for row in read_scores(tmp_path / "given" / "scores.csv") if "weights" in row.model)
    assert given.value == trained.value
    pickled = tmp_path / "weights.pt"
    torch.save(load_file(weights), pickled)
    refused = tiny(*words, f"tiny:weights={pickled}", "--out", "refused")
    assert refused.returncode == 2
    assert "--allow-pickle" in refused.stderr
    assert tiny(*words, f"tiny:weights={pickled}", "--allow-pickle", "--out", "allowed").returncode == 0
    allowed = next(row for row in read_scores(tmp_path / "allowed" / "scores.csv") if "weights" in row.model)
    assert allowed.value == trained.value
    unfit = tiny(*words, f"tiny:width=4,weights={weights}", "--out", "unfit")
    assert unfit.returncode == 2
    assert "do not fit the model" in unfit.stderr


@pytest.mark.slow
def test_a_file_says_the_same_as_the_line(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    assert tiny("--explainer", "gradient", "--out", "line").returncode == 0
    (tmp_path / "study.toml").write_text('explainer = ["gradient"]\nout = "file"\n')
    assert tiny("--config", "study.toml").returncode == 0
    assert (tmp_path / "line" / "scores.csv").read_bytes() == (tmp_path / "file" / "scores.csv").read_bytes()
