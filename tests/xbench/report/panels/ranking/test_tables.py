"""Tables for spreadsheets and papers."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xbench.report.panels.ranking.tables import latex

if TYPE_CHECKING:
    from tests.xbench.report.conftest import RunFolder


EXPLAINERS = {"vinet": 0.6, "smooth_grad": 0.6, "gradient": 0.3, "=1+1": 0.2, "random": 0.9}


@pytest.fixture
def tables(run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path) -> Path:
    """The folder of the tables of a small report."""
    run = run_folder(tmp_path / "run", EXPLAINERS, metrics=("fidelity", "roc_auc"))
    run.scores(gradient={"value": 1.2e-5, "ci_low": 1e-5, "ci_high": 2e-5}).header()
    report(run.path, "--no-figures")
    return run.path / "report" / "tables"


def test_csv_has_every_row_and_executes_nothing(tables: Path) -> None:
    with (tables / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert {row["explainer"] for row in rows} == {"vinet", "smooth_grad", "gradient", "'=1+1", "random"}
    with (tables / "phantom--net--fidelity--original.csv").open(newline="") as file:
        part = list(csv.DictReader(file))
    assert part == [row for row in rows if row["metric"] == "fidelity"]
    assert part[0]["explainer"] == "random"
    vinet = next(row for row in part if row["explainer"] == "vinet")
    assert float(vinet["ci_low"]) < float(vinet["value"]) < float(vinet["ci_high"])
    assert float(next(row for row in part if row["explainer"] == "random")["p_holm"]) < 0.05


def test_latex_sets_the_best_and_its_equals_in_bold_and_controls_in_italics(tables: Path) -> None:
    text = (tables / "phantom--net--fidelity--original.tex").read_text()
    lines = {line.split("&")[1].strip(): line for line in text.splitlines() if line.count("&") == 3}
    assert r"\mathbf" in lines["vinet"]
    assert r"\mathbf" in lines[r"smooth\_grad"]  # can't be told apart from the best
    assert r"\mathbf" not in lines["gradient"]
    assert r"\mathbf" not in lines[r"\textit{random}"]  # a control wins, and is still no explainer
    assert r"1.20\cdot 10^{-5}" in lines["gradient"]
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert text.count("{") == text.count("}")
    assert r"fidelity $\uparrow$" in text


def test_the_overview_has_a_column_per_metric(tables: Path) -> None:
    text = (tables / "phantom--net--all-metrics--original.tex").read_text()
    assert r"Explainer & fidelity $\uparrow$ & roc\_auc $\uparrow$ \\" in text
    lines = [line for line in text.splitlines() if line.count("&") == 2]
    assert len(lines) == 6
    assert r"\textit{random}" in lines[-1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("a_b & 5%", r"a\_b \& 5\%"), ("\\x{$}", r"\textbackslash{}x\{\$\}"), ("a\nb<", r"a b\textless{}")],
)
def test_latex_finds_no_command_in_a_name(text: str, wanted: str) -> None:
    assert latex(text) == wanted
