"""What whole runs hand to explainers and metrics, and what becomes of explainers that are one."""

from __future__ import annotations

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
def test_a_row_says_what_its_explainer_stood_for(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    names = ("open", "open:preset=tiny", "open:preset=paper", "blurred:open", "gradient")
    words = [word for name in names for word in ("--explainer", name)]
    assert tiny(*words, "--no-controls", "--out", "run").returncode == 0
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert {name: row.resolved for name, row in rows.items()} == {
        "open": "open:preset=tiny",
        "open:preset=tiny": "open:preset=tiny",
        "open:preset=paper": "open:preset=paper",
        "blurred:open": "blurred:open:preset=tiny",
        "gradient": "gradient",
    }
    header = read_header(tmp_path / "run" / "run.json")
    assert {each["name"]: each["resolved"] for each in header.explainers} == {
        name: row.resolved for name, row in rows.items()
    }
    # One explainer under two names is one method: made once, and ranked once.
    twin, original = rows["open:preset=tiny"], rows["open"]
    assert (twin.fingerprint, twin.value, twin.same_as) == (original.fingerprint, original.value, "open")
    assert (twin.ranks, twin.rank_set) == (original.ranks, original.rank_set)
    assert rows["gradient"].same_as == "open"
    assert max(row.rank_high for row in rows.values()) <= 3


LEFT_BEHIND = """
    import torch
    from xbench import Explainer, ExplainerSpec, Metric, MetricSpec, hookimpl

    @hookimpl
    def xbench_explainers():
        yield ExplainerSpec("hasty", "asks torch for TF32", factory="careless:Hasty")

    @hookimpl
    def xbench_metrics():
        yield MetricSpec("unsummed", "raises at the end", factory="careless:Unsummed")

    class Hasty(Explainer):
        def attribute(self, model, images, targets):
            torch.set_float32_matmul_precision("medium")
            return images.sum(1)

    class Unsummed(Metric):
        def observe(self, case):
            return {"one": case.logits[:, 0]}

        def summarise(self, observations):
            raise MemoryError("at the very end")
"""


@pytest.mark.slow
def test_what_changes_torchs_settings_or_raises_at_the_end_fails_alone(
    tiny: Callable[..., CompletedProcess[str]], shelf: Shelf, tmp_path: Path
) -> None:
    shelf.install("careless", LEFT_BEHIND)
    words = ("--explainer", "hasty", "--explainer", "gradient", "--metric", "fidelity", "--metric", "unsummed")
    done = tiny(*words, "--no-controls", "--out", "run")
    assert done.returncode == 3, done.stderr
    rows = {(row.explainer, row.metric): row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert rows["gradient", "fidelity"].status == "ok"
    assert "hasty (careless 1.0) changed the switches of float32 of torch" in rows["hasty", "fidelity"].reason
    assert "unsummed (careless 1.0) raised in summarise: MemoryError" in rows["gradient", "unsummed"].reason


@pytest.mark.slow
def test_explainers_with_the_same_maps_share_one_rank(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = tiny("--explainer", "twofold", "--explainer", "input-x-gradient", "--sign", "both", "--out", "run")
    assert done.returncode == 0, done.stderr
    rows = read_scores(tmp_path / "run" / "scores.csv")
    same = {row.explainer: row.same_as for row in rows if row.same_as}
    assert same == {"gradient": "twofold"}
    for sign in ("original", "absolute"):
        ranked = {row.explainer: row for row in rows if row.sign == sign}
        assert ranked["gradient"].rank == ranked["twofold"].rank
        assert ranked["gradient"].rank_set == ranked["twofold"].rank_set
        assert "gradient" not in ranked["twofold"].rank_set
        assert ranked["gradient"].value == pytest.approx(ranked["twofold"].value, abs=1e-6)
        # A method under two names does not take two places.
        assert max(row.rank_high for row in ranked.values()) == len(ranked) - 1
    assert "gradient = twofold" in done.stdout


@pytest.mark.slow
def test_a_trained_model_is_asked_again_and_a_feature_is_made(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    model = ("--model", "tiny:epochs=2,batch_norm=true")
    done = tiny(*model, "--explainer", "late", "--explainer", "median", "--no-controls", "--out", "run")
    assert done.returncode == 2
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert rows["late"].status == "failed"
    assert "its batch norms have moved" in rows["late"].reason
    assert rows["median"].status == "ok"
    (made,) = (tmp_path / "cache" / "artifacts" / "feature").glob("*/features.npy")
    maps = list((tmp_path / "cache" / "artifacts" / "maps").glob("*/maps.npy"))
    assert np.load(made).shape == (12, 1)
    assert any(abs(np.median(np.load(path)[0])) < 1e-6 for path in maps)


@pytest.mark.slow
def test_a_metric_gets_what_it_needs(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    explainers = (
        "--explainer",
        "gradient",
        "--explainer",
        "blurred:twofold",
        "--explainer",
        "expected-gradients:samples=3",
    )
    done = tiny(*explainers, "--metric", "curious", "--sign", "both", "--out", "run")
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "run" / "observations" / "curious.parquet")
    named = {"gradient", "blurred:twofold", "expected-gradients:samples=3"}
    controls = {"random", "constant", "centre", "edges", "mask"}
    # It is expensive: no inverted and blurred copies of what the user named.
    assert set(frame["explainer"]) == named | controls
    assert frame["again"].abs().max() < 1e-5
    assert frame["train"].abs().max() < 1e-5
    assert (frame["train_size"] == 0).all()
    assert frame["feature"].abs().max() < 1e-6
    assert (frame["memory"] > 1e6).all()
    mine = frame[frame["explainer"].isin(named)]
    assert (mine["changed"] > 1e-4).all()
    assert not mine[mine["sign"] == "absolute"]["negative"].any()
    assert mine[mine["sign"] == "original"]["negative"].all()
    images = {name: 12 * (3 if "samples" in name else 1) for name in named}
    for name, count in images.items():
        assert (mine[mine["explainer"] == name]["backward"] == count).all(), name
    assert (frame[frame["explainer"] == "random"]["forward"] == 0).all()


@pytest.mark.slow
def test_all_metrics_are_those_that_fit(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    done = tiny("--explainer", "gradient", "--metric", "all", "--dry-run")
    assert done.returncode == 0, done.stderr
    for name in ("fidelity", "curious", "needsmasks"):
        assert f"{name} of gradient" in done.stdout
    assert "gradient x through on fake: metric through needs an explainer whose own classifier" in done.stdout
    refused = tiny("--explainer", "gradient", "--metric", "through", "--out", "run")
    assert refused.returncode == 2
    assert "whose own classifier reads through its maps" in refused.stderr


def test_an_explainer_that_warns_of_itself_is_scored_and_marked(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = tiny("--explainer", "collapsed", "--explainer", "gradient", "--out", tmp_path / "warned")
    assert done.returncode == 0, done.stderr
    assert "(!) collapsed: both generators give the same image" in done.stdout
    warnings = {row.explainer: row.warning for row in read_scores(tmp_path / "warned" / "scores.csv")}
    assert warnings["collapsed"] == warnings["blurred:collapsed"] == "both generators give the same image"
    assert warnings["gradient"] == ""
    assert "collapsed: both generators give the same image" in read_header(tmp_path / "warned" / "run.json").warnings


def test_what_has_no_value_has_no_rank(tiny: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    done = tiny("--explainer", "gradient", "--metric", "importance_loss", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert np.isnan(rows["gradient"].value)  # a signed map is no share of the image
    assert (rows["gradient"].rank, rows["gradient"].rank_high, rows["gradient"].rank_set) == (0, 0, ())
    ranked = [row for row in rows.values() if row.rank]
    assert len(ranked) > 3
    assert all("gradient" not in row.rank_set for row in ranked)
    assert max(row.rank_high for row in ranked) == len(ranked)
