"""Whole runs on the pretend accelerator: models of every family, trainings, several processes; the CPU's numbers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from xbench.results.rows import ScoreRow, read_scores

WORDS = ("--dataset", "fake", "--resamples", "100", "--limit", "8", "--no-model-view", "--batch-size", "4")
FAMILIES = ("convnet:epochs=1", "tiny:epochs=1,one_logit=true", "timm:test_resnet:epochs=1", "timm:test_vit:epochs=1")
TRAINED = ("vinet:epochs=1", "cyclegan-am:epochs=1", "autoencoder:epochs=1", "vae-perturbation:epochs=1", "deepshap")


@pytest.fixture
def both(
    pretend_command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> Callable[..., tuple[list[ScoreRow], list[ScoreRow]]]:
    """The same run on the CPU and on the pretend accelerator: the rows of each, and the folders."""

    def run(*words: str) -> tuple[list[ScoreRow], list[ScoreRow]]:
        rows = {}
        for device in ("cpu", "pretend"):
            given = (*WORDS, *words, "--device", device, "--out", device, "--cache", f"cache-{device}")
            more = {"OMP_NUM_THREADS": "1", "XBENCH_TESTS_PICTURES": "none"}
            done = pretend_command("run", *given, timeout=500, **more)
            assert done.returncode == 0, done.stderr
            rows[device] = read_scores(tmp_path / device / "scores.csv")
        return rows["cpu"], rows["pretend"]

    return run


def repeated(options: Sequence[str], *words: str) -> list[str]:
    return [word for option in options for word in (words[0], option)]


def alike(cpu: list[ScoreRow], pretend: list[ScoreRow], tolerance: float) -> None:
    assert [row.explainer for row in cpu] == [row.explainer for row in pretend]
    assert {row.device for row in pretend} == {"pretend"}
    for one, other in zip(cpu, pretend, strict=True):
        assert other.status == "ok", (other.explainer, other.reason)
        assert other.value == pytest.approx(one.value, abs=tolerance, nan_ok=True), one.explainer


def weights(folder: Path) -> list[dict[str, np.ndarray]]:
    from safetensors.numpy import load_file

    return [load_file(path) for path in sorted(folder.glob("artifacts/model/*/weights.safetensors"))]


@pytest.mark.slow
def test_models_of_every_family_are_trained_and_explained(
    both: Callable[..., tuple[list[ScoreRow], list[ScoreRow]]], tmp_path: Path
) -> None:
    cpu, pretend = both(*repeated(FAMILIES, "--model"), "--explainer", "gradient", "--no-controls")
    assert len(cpu) == len(FAMILIES)
    alike(cpu, pretend, 0.13)  # an image of eight whose class is decided by the last bits
    by_size = [sorted(weights(tmp_path / f"cache-{device}"), key=len) for device in ("cpu", "pretend")]
    for one, other in zip(*by_size, strict=True):
        for name, values in one.items():
            np.testing.assert_allclose(other[name], values, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_trained_explainers_are_trained_there(both: Callable[..., tuple[list[ScoreRow], list[ScoreRow]]]) -> None:
    cpu, pretend = both(
        "--model", "tiny:epochs=1", *repeated(TRAINED, "--explainer"), "--no-controls", "--sign", "both"
    )
    assert len(cpu) >= len(TRAINED)
    alike(cpu, pretend, 0.13)


@pytest.mark.slow
def test_the_header_and_the_rows_name_device_and_precision(
    pretend_command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    words = ("--model", "tiny:epochs=1", "--explainer", "gradient", "--device", "pretend", "--precision", "tf32")
    done = pretend_command("run", *WORDS, *words, "--out", "run", "--workers", "2", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    assert header["environment"]["device"] == "pretend"
    assert {(row.device, row.precision) for row in read_scores(tmp_path / "run" / "scores.csv")} == {
        ("pretend", "tf32")
    }


@pytest.mark.slow
def test_precisions_that_the_device_does_not_have_are_refused_in_one_line(
    pretend_command: Callable[..., CompletedProcess[str]],
) -> None:
    words = ("--model", "tiny:epochs=1", "--explainer", "gradient", "--device", "pretend", "--precision")
    done = pretend_command("run", *WORDS, *words, "16", OMP_NUM_THREADS="1")
    assert done.returncode == 2
    assert "no training with precision 16 on pretend (use --precision bf16)" in done.stderr
    assert "Traceback" not in done.stderr
    done = pretend_command("run", *WORDS, *words, "bf16", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
