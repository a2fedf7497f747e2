"""The main job through the command line, on a small part of the default: thin scans, one epoch, sixteen nodules."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from xbench.results.rows import read_scores

SMALL = (
    *("--dataset", "lidc-phantom:size=32,max_slice_thickness=1.0", "--model", "convnet:epochs=1"),
    *("--limit", "16", "--resamples", "200", "--batch-size", "16"),
)


@pytest.mark.slow
def test_vinet_is_scored_for_fidelity_against_controls_and_against_its_own_classifier(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    vinet, own = "vinet:epochs=1", "vinet:epochs=1,subject=self"
    done = command("run", "--explainer", vinet, "--explainer", own, "--metric", "fidelity", *SMALL, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "benign" in done.stderr  # class counts are printed
    assert "kept pixels" in done.stderr  # and what VINet says of itself
    assert "phantom" in done.stdout
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    controls = {"random", "constant", "centre", "edges", "mask"}
    assert set(rows) == {
        *(vinet, own, "gradient", f"inverted:{vinet}", f"blurred:{vinet}", f"inverted:{own}", f"blurred:{own}"),
        *controls,
    }
    assert all(row.status == "ok" for row in rows.values())
    assert (rows[vinet].subject, rows[vinet].model) == ("shared", "convnet:epochs=1")
    assert (rows[own].subject, rows[own].model) == ("self", f"own classifier of {own}")
    assert rows[own].rank_high <= 3  # ranked with its own inverted and blurred copies alone
    assert len(list((tmp_path / "cache" / "artifacts" / "explainer").iterdir())) == 1  # trained once for both
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {model["name"] for model in header["models"]} == {"convnet:epochs=1", f"own classifier of {own}"}
    facts = next(item["facts"] for item in header["explainers"] if item["name"] == vinet)
    assert {"validation_accuracy", "validation_importance_loss", "validation_kept_pixels"} <= set(facts)
    assert header["datasets"][0]["class_counts"]["train"]["benign"] > 0
