from __future__ import annotations

import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xbench.results.rows import read_scores

if TYPE_CHECKING:
    from tests.conftest import Shelf


RUNS = Path(__file__).parents[1] / "xbench"
TINY = runpy.run_path(str(RUNS / "conftest.py"))["TINY"]

# The cell of `hoarder` fails while it holds 1.5 GiB; `hungry` sees what is still held.
HOARDER = """
    import torch
    from xbench import Explainer, ExplainerSpec, hookimpl
    from xbench.testing import fakes

    xbench_datasets, xbench_models = fakes.xbench_datasets, fakes.xbench_models

    @hookimpl
    def xbench_explainers():
        yield ExplainerSpec("hoarder", "fails with its hands full", factory="hoarder:Hoarder")
        yield ExplainerSpec("hungry", "maps of how many GiB others hold", factory="hoarder:Hungry")

    class Hoarder(Explainer):
        def attribute(self, model, images, targets):
            held = torch.empty(3 * 2**27, device=images.device)
            raise ValueError(f"{held.nbytes} are too many")

    class Hungry(Explainer):
        def attribute(self, model, images, targets):
            return 0 * images.sum(1) + torch.cuda.memory_allocated() / 2**30
"""


def test_a_run_from_end_to_end(
    shelf: Shelf, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, device: str
) -> None:
    shelf.install("stranger", (RUNS / "stranger.py").read_text())
    words = ("--explainer", "gradient", "--explainer", "twofold", "--explainer", "raising", "--device", device)
    done = command("run", *TINY, *words, "--out", "run")
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert rows["gradient"].status == "ok", done.stderr
    assert rows["twofold"].value == rows["gradient"].value  # the same order of pixels
    assert rows["raising"].status != "ok"


def test_memory_of_a_cell_that_failed_is_given_back(
    shelf: Shelf, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, device: str
) -> None:
    shelf.install("hoarder", HOARDER)
    words = ("--explainer", "hoarder", "--explainer", "hungry", "--no-controls", "--device", device, "--out", "run")
    done = command("run", *TINY, *words)
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert rows["hoarder"].status != "ok"
    assert rows["hungry"].status == "ok", done.stderr
    maps = np.load(tmp_path / "cache" / "artifacts" / "maps" / rows["hungry"].maps_fingerprint / "maps.npy")
    assert 0 < maps.max() < 1
