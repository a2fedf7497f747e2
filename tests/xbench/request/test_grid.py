"""One set of maps under many conventions: ranks that hold, and orders that turn round."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xbench import UserError
from xbench.comparison.conventions import ConventionRanks, Conventions, Flip, ranks_under, write_ranks
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.request.grid import Grid, read_grid, resolve
from xbench.results.rows import ScoreRow

if TYPE_CHECKING:
    from tests.conftest import Shelf


GRID = """
[fidelity]
removal = ["mean", "zero"]
score = ["accuracy", "logit"]

[maps]
sign = ["original", "absolute"]
blur = [0, 2, 3.5]
"""


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return path


def test_a_grid_is_all_combinations_with_the_first_of_each_list_first(tmp_path: Path) -> None:
    grid = read_grid(_written(tmp_path, GRID))
    assert list(grid.metrics) == [
        f"fidelity:removal={removal},score={score}" for removal in ("mean", "zero") for score in ("accuracy", "logit")
    ]
    assert grid.signs == ("original", "absolute")
    assert grid.sign == "both"
    assert grid.blurs == (0, 2, 3.5)


def test_a_grid_without_maps_changes_none(tmp_path: Path) -> None:
    grid = read_grid(_written(tmp_path, '[fidelity]\nremoval = ["mean"]\n'))
    assert (grid.signs, grid.sign, grid.blurs) == (("original",), "original", (0,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fidelity]\nremoval = 'mean'", "every entry must be a list"),
        ("[fidelity]\nremoval = []", "every entry must be a list"),
        ("fidelity = 3", "every entry must be a list"),
        ("[maps]\nblur = [0]", "names no metric"),
        ("[maps]\ncolour = [0]\n[fidelity]", "colour is unknown"),
        ("[maps]\nsign = ['positive']\n[fidelity]", "sign 'positive' is wrong"),
        ("[fidelity", "can't be read"),
    ],
)
def test_wrong_grids(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_grid(_written(tmp_path, text))


def test_labels_leave_defaults_out(tmp_path: Path) -> None:
    registry = discover()
    grid = read_grid(_written(tmp_path, GRID))
    tried = resolve(grid, [choose("explainer", "gradient", registry)], registry)
    assert next(iter(tried.metrics)) == "fidelity:removal=mean"
    assert tried.explainers == {
        "gradient": ("gradient", 0),
        "blurred:gradient": ("gradient", 2),
        "blurred:sigma=3.5:gradient": ("gradient", 3.5),
    }
    with pytest.raises(UserError, match="no option 'colour'"):
        resolve(Grid({"fidelity:colour=red": {}}, ("original",), (0,)), [], registry)


@pytest.fixture
def row() -> Callable[..., ScoreRow]:
    kinds = {"str": "", "int": 0, "float": 0.0, "bool": False}
    plain: dict[str, Any] = {
        field.name: kinds.get(str(field.type), ())
        for field in dataclasses.fields(ScoreRow)
        if field.default is dataclasses.MISSING
    }

    def make(explainer: str, metric: str, value: float, tied: tuple[str, ...] = (), sign: str = "original") -> ScoreRow:
        known: dict[str, Any] = {
            "explainer": explainer,
            "metric": metric,
            "value": value,
            "rank_set": tied,
            "sign": sign,
        }
        known |= {"resolved": explainer, "higher_is_better": True, "subject": "shared"}
        return ScoreRow(**plain | known)

    return make


TRIED = Conventions(
    {"f": {"removal": "mean"}, "f:removal=zero": {"removal": "zero"}},
    {name: (name, 0.0) for name in "abc"} | {f"blurred:{name}": (name, 2.0) for name in "abc"},
    ("original",),
)


def test_an_order_that_turns_round_beyond_doubt_is_a_flip(row: Callable[..., ScoreRow]) -> None:
    rows = [row("a", "f", 3), row("b", "f", 2), row("c", "f", 1)]
    rows += [row("a", "f:removal=zero", 1), row("b", "f:removal=zero", 2), row("c", "f:removal=zero", 0)]
    found, flips = ranks_under(rows, TRIED)
    assert found == [ConventionRanks("a", 1, 1, 2), ConventionRanks("b", 2, 1, 2), ConventionRanks("c", 3, 3, 3)]
    assert flips == [Flip("a", "b", ("removal=zero",))]


@pytest.mark.parametrize("where", ["f", "f:removal=zero"])
def test_what_can_not_be_told_apart_does_not_flip(row: Callable[..., ScoreRow], where: str) -> None:
    rows = []
    for metric, values in {"f": (2, 1), "f:removal=zero": (1, 2)}.items():
        tied = metric == where
        rows += [row("a", metric, values[0], ("b",) * tied), row("b", metric, values[1], ("a",) * tied)]
    found, flips = ranks_under(rows, TRIED)
    assert [(one.best, one.worst) for one in found] == [(1, 2), (1, 2)]
    assert flips == []


def test_blurred_copies_stand_for_their_explainer(row: Callable[..., ScoreRow]) -> None:
    rows = [row("a", "f", 3), row("b", "f", 2), row("blurred:a", "f", 1), row("blurred:b", "f", 2)]
    found, flips = ranks_under(rows, TRIED)
    assert found == [ConventionRanks("a", 1, 1, 2), ConventionRanks("b", 2, 1, 2)]
    assert flips == [Flip("a", "b", ("blur=2",))]


def test_lower_may_be_better_and_failures_are_left_out(row: Callable[..., ScoreRow]) -> None:
    lower: dict[str, Any] = {"higher_is_better": False}
    rows = [dataclasses.replace(row(name, "f", value), **lower) for name, value in zip("abc", (1, 2, 3), strict=True)]
    rows[2] = dataclasses.replace(rows[2], status="failed")
    found, _ = ranks_under(rows, TRIED)
    assert [one.explainer for one in found] == ["a", "b"]
    assert ranks_under([], TRIED) == ([], [])


def test_the_table_is_written(tmp_path: Path) -> None:
    path = tmp_path / "standings.csv"
    write_ranks(
        [ConventionRanks("a", 1, 1, 2), ConventionRanks("b", 2, 1, 2)], [Flip("a", "b", ("sign=absolute",))], path
    )
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0] == {"explainer": "a", "rank": "1", "best": "1", "worst": "2", "flips": "b (sign=absolute)"}
    assert lines[1]["flips"] == ""


@pytest.mark.slow
def test_a_run_of_a_grid_makes_the_maps_once(
    shelf: Shelf, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shelf.install("stranger", "from xbench.testing.fakes import xbench_datasets, xbench_models")
    _written(tmp_path, '[fidelity]\nremoval = ["mean", "zero"]\ncurve = ["difference", "mif"]\n[maps]\nblur = [0, 3]\n')
    words = ("--dataset", "fake", "--model", "tiny:epochs=2", "--resamples", "200", "--no-controls")
    line = ("run", *words, "--explainer", "gradient", "--explainer", "input-x-gradient", "--conventions", "grid.toml")
    done = command(*line, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "under all conventions" in done.stdout
    (written,) = (tmp_path / "run" / "conventions").glob("*.csv")
    with written.open(newline="") as file:
        assert {line["explainer"] for line in csv.DictReader(file)} == {"gradient", "input-x-gradient"}
    assert len(list((tmp_path / "cache" / "artifacts" / "maps").glob("*/maps.npy"))) == 4
    with (tmp_path / "run" / "scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 2 * 2
    wrong = command(*line, "--explainer", "all", "--out", "two")
    assert wrong.returncode == 2
    assert "name the explainers" in wrong.stderr
