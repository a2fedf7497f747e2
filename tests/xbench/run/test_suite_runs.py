"""Whole runs of suites: what one leaves, and what it reuses when it is killed or extended."""

from __future__ import annotations

import json
import math
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

from xbench.request.suites import read_suite
from xbench.results.paper import beside_paper, read_paper_rows
from xbench.results.rows import ScoreRow, read_header, read_scores

if TYPE_CHECKING:
    from tests.conftest import Shelf


@pytest.fixture
def ours(
    shelf: Shelf, command: Callable[..., subprocess.CompletedProcess[str]], stranger: str
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`xbench run --suite` with the stranger's plugin, who brings the dataset, the model and `refusing`."""
    shelf.install("stranger", stranger)

    def run(path: Path, *words: str, **more: Any) -> CompletedProcess[str]:
        return command("run", "--suite", str(path), "--batch-size", "16", *words, XBENCH_TESTS_PICTURES="none", **more)

    return run


@pytest.mark.slow
def test_a_run_of_a_suite_keeps_what_was_run_and_stands_beside_the_paper(
    ours: Callable[..., subprocess.CompletedProcess[str]], suite_file: Callable[..., Path], tmp_path: Path
) -> None:
    # A network of three epochs may always answer the same, and then all explainers have the same fidelity.
    path = suite_file(('metric = "fidelity"\ncolumn', 'metric = "roc_auc"\ncolumn'))
    done = ours(path, "--out", "run", "--no-model-view")
    assert done.returncode == 0, done.stderr
    assert "refusing" in done.stderr
    folder = tmp_path / "run"
    assert (folder / "suite.toml").read_text() == path.read_text()
    header, rows = read_header(folder / "run.json"), read_scores(folder / "scores.csv")
    suite = read_suite(path)
    assert (header.suite["name"], header.suite["version"]) == ("mine", 3)
    assert header.suite["fingerprint"] == suite.fingerprint
    assert header.suite["differs"] == ["the images are drawn"]
    assert header.suite["changed"] == {}
    assert header.suite["tables"]["one"] == {
        "explainers": ["gradient", "input-x-gradient", "edges"],
        "metrics": ["fidelity", "roc_auc"],
        "models": ["tiny:epochs=3"],
        "datasets": ["fake"],
        "signs": ["original", "absolute"],
    }
    assert header.suite["tables"]["two"]["explainers"] == ["edges"]
    assert header.config["explainer"] == ["gradient", "input-x-gradient", "edges", "refusing"]
    assert len(rows) == 12
    papers = read_paper_rows(folder / "paper.csv")
    assert {row.explainer for row in papers} == {"gradient", "input-x-gradient", "edges", ""}
    for words in ("beside the paper", "Someone 2026, Table 2", "readers who liked it", "Spearman's rho"):
        assert words in done.stdout
    (beside,) = [each for each in beside_paper(papers, rows) if each.methods and each.sign == "original"]
    assert beside.methods == 3
    assert [pairing.paper_rank for pairing in beside.pairings] == [1, 2, 3, pytest.approx(math.nan, nan_ok=True)]
    assert sorted(pairing.rank for pairing in beside.pairings[:3]) == [1, 2, 3]
    pandas = pytest.importorskip("pandas")
    values = pandas.DataFrame([(pairing.paper.value, pairing.ours.value) for pairing in beside.pairings[:3]])
    assert beside.rho == pytest.approx(values.corr("spearman").iloc[0, 1])


def _made(folder: Path) -> dict[str, int]:
    """The fingerprints of all finished artifacts -> when each was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("artifacts/*/*/manifest.json")}


def _key(row: ScoreRow) -> tuple[str, str, str, str]:
    return row.model, row.explainer, row.metric, row.sign


@pytest.mark.slow
def test_80_cells_interrupted_resumed_and_extended_compute_only_what_is_new(
    ours: Callable[..., subprocess.CompletedProcess[str]], shelf: Shelf, suite_file: Callable[..., Path], tmp_path: Path
) -> None:
    smooth = ", ".join(f'"smoothgrad:samples={count}"' for count in range(1, 10))
    path = suite_file(
        ('["gradient", "input-x-gradient", "edges"]', f'["gradient", {smooth}]'),
        ('["fidelity", "roc_auc"]', '["fidelity", "roc_auc", "pointing_game", "relevance_rank"]'),
        ("epochs=3", "epochs=1"),
        ('["edges", "refusing"]', '["gradient"]'),
    )
    text = path.read_text()
    path.write_text(text[: text.index("[[paper]]")])
    shelf.install(
        "killer",
        f"""
        import os, signal
        import xbench.jobs.store as artifacts

        written = []

        def _die(folder, item, facts, seconds, original=artifacts._write_manifest):
            written.append(item)
            if len(written) == 50 and not os.path.exists("{tmp_path}/died"):
                open("{tmp_path}/died", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(folder, item, facts, seconds)

        artifacts._write_manifest = _die
        """,
    )
    assert ours(path, "--no-model-view", "--out", "run").returncode == -signal.SIGKILL
    before = _made(tmp_path / "cache")
    assert len(before) == 49
    done = ours(path, "--no-model-view", "--out", "run")
    assert done.returncode == 0, done.stderr
    after = _made(tmp_path / "cache")
    assert {name: after[name] for name in before} == before
    rows = read_scores(tmp_path / "run" / "scores.csv")
    assert len(rows) == 80
    assert {row.status for row in rows} == {"ok"}

    more = ours(path, "--no-model-view", "--explainer", "edges", "--out", "more")
    assert more.returncode == 0, more.stderr
    extended = _made(tmp_path / "cache")
    assert {name: extended[name] for name in after} == after
    kinds = [
        json.loads(manifest.read_text())["kind"]
        for manifest in (tmp_path / "cache").glob("artifacts/*/*/manifest.json")
        if manifest.parent.name not in after
    ]
    # The maps, and what four metrics see of them; `edges` has no sign.
    assert sorted(kinds) == ["maps", *["observations"] * 4]
    header = read_header(tmp_path / "more" / "run.json")
    assert header.suite["changed"] == {"explainer": ["edges"]}
    old, new = (
        {_key(row): row.value for row in read_scores(tmp_path / name / "scores.csv")} for name in ("run", "more")
    )
    assert {key: new[key] for key in old} == old
    assert len(new) == 88
