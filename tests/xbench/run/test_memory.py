"""What a failed cell held is given back before the next is made; seen by a stranger's plugin."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Shelf


HOARDERS = '''
import weakref

import torch

from xbench import Explainer, ExplainerSpec, Metric, MetricSpec, Options, PluginError, UserError, hookimpl

WATCHED = []


def held():
    tensor = torch.zeros(16 * 2**20)  # 64 MB
    WATCHED.append(weakref.ref(tensor))
    return tensor


class HowOptions(Options):
    how: str = "value"


class TurnOptions(Options):
    turn: int = 0


def fail(hoarder, how):
    """Keeps a tensor, has others in its frame, one of them in a cycle, and raises."""
    hoarder.kept, in_frame = held(), held()
    cycle = [held()]
    cycle.append(cycle)
    if how == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if how == "ours":
        raise UserError("nothing of the kind")
    try:
        raise ValueError("beneath")
    except ValueError as error:
        if how == "chained":
            raise PluginError("above") from error
        raise KeyError("beside")


def look():
    assert WATCHED, "nobody has hoarded"
    alive = sum(one() is not None for one in WATCHED)
    assert not alive, f"{alive} of {len(WATCHED)} tensors are still there"


class Hoarding(Explainer):
    def attribute(self, model, images, targets):
        fail(self, self.options.how)


class Fitting(Hoarding):
    def fit(self, model, train, validation, info, session):
        fail(self, self.options.how)

    def restore(self, folder, model, info, device):
        raise NotImplementedError


class Restored(Hoarding):
    """Is trained, holds its state, and fails at its first map."""

    def fit(self, model, train, validation, info, session):
        pass

    def restore(self, folder, model, info, device):
        self.state = held()


class Watching(Explainer):
    def attribute(self, model, images, targets):
        look()
        return images.sum(1)


class HoardingMetric(Metric):
    def prepare(self, case):
        if self.options.how == "prepare":
            fail(self, "value")
        return {}

    def observe(self, case):
        fail(self, self.options.how)

    def summarise(self, observations):
        return 0.0


class WatchingMetric(Metric):
    def observe(self, case):
        look()
        return {"seen": case.split.labels}

    def summarise(self, observations):
        return float(observations["seen"].mean())


@hookimpl
def xbench_explainers():
    for name in ("Hoarding", "Fitting", "Restored"):
        yield ExplainerSpec(name.lower(), "fails", factory=f"hoarders:{name}", options="hoarders:HowOptions")
    yield ExplainerSpec("watching", "looks", factory="hoarders:Watching", options="hoarders:TurnOptions")


@hookimpl
def xbench_metrics():
    yield MetricSpec("hoards", "fails", factory="hoarders:HoardingMetric", options="hoarders:HowOptions")
    yield MetricSpec("watches", "looks", factory="hoarders:WatchingMetric", options="hoarders:TurnOptions")
'''

HOARDING = [f"hoarding:how={how}" for how in ("memory", "ours", "chained")]
FAILING = ["hoarding", *HOARDING, "fitting", "fitting:how=memory", "restored", "restored:how=memory"]
METRICS = ["hoards", "hoards:how=memory", "hoards:how=prepare"]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def hoarders(shelf: Shelf) -> None:
    shelf.install("hoarders", HOARDERS)


@pytest.mark.slow
def test_what_a_failed_cell_held_is_gone_while_the_next_is_made(
    tiny: Callable[..., CompletedProcess[str]], hoarders: None, tmp_path: Path
) -> None:
    words = []
    for turn, name in enumerate(FAILING, 1):
        words += ["--explainer", name, "--explainer", f"watching:turn={turn}"]
    for turn, name in enumerate(METRICS, 1):
        words += ["--metric", name, "--metric", f"watches:turn={turn}"]
    done = tiny(*words, "--no-controls", "--limit", "8", "--out", str(tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    seen = [row for row in rows if row["explainer"].startswith("watching") and row["metric"].startswith("watches")]
    assert len(seen) == len(FAILING) * len(METRICS)
    assert {row["reason"] for row in seen} == {""}
    reasons = {row["explainer"]: row["reason"] for row in rows if row["metric"] == "watches:turn=1"}
    assert "KeyError: 'beside'" in reasons["hoarding"]
    assert "above" in reasons["hoarding:how=chained"]
    for name in ("hoarding:how=memory", "fitting:how=memory", "restored:how=memory"):
        assert reasons[name].startswith("out of memory: "), reasons[name]
        assert "--device cpu" in reasons[name]
    of_metrics = {row["metric"]: row["reason"] for row in rows if row["explainer"] == "watching:turn=1"}
    assert of_metrics["hoards:how=memory"].startswith("out of memory: observations of hoards:how=memory")
    assert "raised in prepare: KeyError" in of_metrics["hoards:how=prepare"]
    assert done.returncode == 3


def test_debug_still_says_where_the_error_came_from(tiny: Callable[..., CompletedProcess[str]], hoarders: None) -> None:
    done = tiny("--explainer", "hoarding", "--no-controls", "--limit", "8", "--debug")
    assert done.returncode != 0
    assert "in attribute" in done.stderr
    assert 'raise ValueError("beneath")' in done.stderr
    assert "PluginError: " in done.stderr
