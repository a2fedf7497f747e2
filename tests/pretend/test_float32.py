"""Precision 32 is true float32 on an accelerator that would round products to TF32."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

from xbench.compute.scorer import RELATIVE_TOLERANCE

if TYPE_CHECKING:
    from tests.conftest import Shelf


@pytest.fixture(scope="module")
def found(on_pretend: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return on_pretend("measure_float32.py")


@pytest.mark.parametrize("way", ["torch", "tf32"])
def test_tf32_breaks_folded_copies(found: dict[str, Any], way: str) -> None:
    assert found[way]["rounds"]
    assert found[way]["copy"] > 2 * RELATIVE_TOLERANCE


def test_tf32_breaks_deeplift_and_deepshap(found: dict[str, Any]) -> None:
    assert "its maps would not be complete" in found["tf32"]["deeplift"]
    assert "its maps would not be complete" in found["tf32"]["deepshap"]


def test_precision_32_is_true_float32(found: dict[str, Any]) -> None:
    assert found["32"] == {"rounds": False, "copy": found["32"]["copy"], "deeplift": "", "deepshap": ""}
    assert found["32"]["copy"] < RELATIVE_TOLERANCE


WORDS: tuple[str, ...] = (
    "--explainer",
    "deeplift",
    "--metric",
    "fidelity",
    "--dataset",
    "fake",
    "--model",
    "convnet:epochs=1",
)
WORDS += ("--resamples", "100", "--limit", "8", "--no-controls", "--no-model-view", "--batch-size", "8")

# Nobody looks at the pictures.
NUMBERS = {"XBENCH_TESTS_PICTURES": "none"}


def recipe(cache: Path) -> dict[str, Any]:
    return json.loads(next(cache.glob("artifacts/calibration/*/recipe.json")).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32", "tf32"])
def test_a_run_takes_the_folded_copy_and_deeplift_in_both_precisions(
    pretend_command: Callable[..., CompletedProcess[str]], tmp_path: Path, precision: str
) -> None:
    done = pretend_command("run", *WORDS, "--device", "pretend", "--precision", precision, "--out", "run", **NUMBERS)
    assert done.returncode == 0, done.stderr
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    assert header["config"]["precision"] == precision
    assert recipe(tmp_path / "cache")["folded"]
    # What TF32 costs is measured and kept.
    assert (recipe(tmp_path / "cache")["max_difference"] > 1e-6) == (precision == "tf32")


@pytest.mark.slow
def test_the_precisions_share_no_artifact(
    pretend_command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    for precision in ("32", "tf32"):
        words = (*WORDS, "--device", "pretend", "--precision", precision, "--out", precision)
        done = pretend_command("run", *words, **NUMBERS)
        assert done.returncode == 0, done.stderr
    kinds = ("model", "calibration", "predictions", "maps", "observations")
    for kind in kinds:
        assert len(list((tmp_path / "cache" / "artifacts" / kind).iterdir())) == 2, kind


@pytest.mark.slow
def test_a_plugin_that_asks_torch_for_tf32_does_not_get_it(
    pretend_command: Callable[..., CompletedProcess[str]], shelf: Shelf, tmp_path: Path
) -> None:
    shelf.install("hasty", "import torch\ntorch.set_float32_matmul_precision('high')\n")
    done = pretend_command("run", *WORDS, "--device", "pretend", "--out", "run", **NUMBERS)
    assert done.returncode == 0, done.stderr
    assert recipe(tmp_path / "cache")["max_difference"] < 1e-6


def test_a_device_without_tf32_refuses_it(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("run", "--explainer", "gradient", "--precision", "tf32", "--device", "cpu")
    assert done.returncode == 2
    assert "device 'cpu' has no TF32; only NVIDIA GPUs have it (use --precision 32)" in done.stderr
