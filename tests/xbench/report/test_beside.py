"""A paper's numbers beside ours: who is paired with whom, ranks, rho, and what the terminal shows."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from xbench.report import beside_tables
from xbench.results.paper import PaperRow, beside_paper
from xbench.results.rows import ScoreRow


def paper(method: str, value: float, explainer: str | None = None, **changes: Any) -> PaperRow:
    words: dict[str, Any] = {
        "table": "t",
        "citation": "Paper, Table 1",
        "metric": "fidelity",
        "sign": "original",
        "model": "convnet",
    }
    words |= {"ci_low": math.nan, "ci_high": math.nan} | changes
    return PaperRow(method=method, value=value, explainer=method.lower() if explainer is None else explainer, **words)


def ranks(beside: Any) -> list[tuple[Any, Any]]:
    return [(pairing.paper_rank, pairing.rank) for pairing in beside.pairings]


def test_ranks_are_among_the_methods_that_both_have_and_ties_share_their_mean(row: Callable[..., ScoreRow]) -> None:
    papers = [paper("A", 0.6), paper("B", 0.0), paper("C", 0.0), paper("D", 0.9), paper("E", 0.5, explainer="")]
    rows = [row("a", 0.1), row("b", 0.3), row("c", 0.2), row("d", math.nan), row("other", 0.9)]
    (beside,) = beside_paper(papers, rows)
    assert (beside.methods, beside.dataset) == (3, "lidc-phantom")
    assert ranks(beside)[:3] == [(1, 3), (2.5, 1), (2.5, 2)]
    assert all(math.isnan(rank) for pair in ranks(beside)[3:] for rank in pair)
    # Ranks 3, 1.5, 1.5 (paper) and 1, 3, 2 (ours): covariance -1.5, squares 1.5 and 2.
    assert beside.rho == pytest.approx(-1.5 / math.sqrt(1.5 * 2))


def test_lower_is_better_turns_both_orders(row: Callable[..., ScoreRow]) -> None:
    papers = [paper("A", 0.1), paper("B", 0.2), paper("C", 0.3)]
    rows = [row(name, value, higher_is_better=False) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    (beside,) = beside_paper(papers, rows)
    assert ranks(beside) == [(1, 1), (2, 2), (3, 3)]
    assert beside.rho == pytest.approx(1)


def test_rows_are_paired_by_metric_sign_model_and_once_a_dataset(row: Callable[..., ScoreRow]) -> None:
    papers = [paper("A", 0.1), paper("B", 0.2), paper("A", 0.3, sign="absolute"), paper("A", 0.4, metric="dice")]
    rows = [
        *(row("a", 0.1, dataset=name) for name in ("one", "two")),
        *(row("b", 0.2, dataset="one"), row("b", 0.7, dataset="two", model="other")),
        row("a", 0.3, sign="absolute", dataset="two"),
        row("a", 0.3, metric="dice", model="other", dataset="two"),
    ]
    found = beside_paper(papers, rows)
    assert [(each.metric, each.sign, each.dataset, each.methods) for each in found] == [
        ("fidelity", "original", "one", 2),
        ("fidelity", "original", "two", 1),
        ("fidelity", "absolute", "two", 1),
        ("dice", "original", "", 0),
    ]
    assert all(math.isnan(each.rho) for each in found)


def test_an_explainer_scored_against_its_own_classifier_needs_no_model_of_that_name(
    row: Callable[..., ScoreRow],
) -> None:
    (beside,) = beside_paper([paper("A", 0.1)], [row("a", 0.4, subject="self", model="a's own")])
    assert beside.pairings[0].ours.value == 0.4


def test_the_terminal_shows_both_values_ranks_rho_and_what_is_not_here(
    row: Callable[..., ScoreRow], capsys: pytest.CaptureFixture[str]
) -> None:
    papers = [paper("A", 0.6, ci_low=0.5, ci_high=0.7), paper("B", 0.2), paper("C", 0.1)]
    papers += [paper("A", 0.9, metric="readers", sign="", model="")]
    rows = [row("a", 0.1), row("b", 0.3), row("c", 0.2)]
    Console(width=120).print(beside_tables(papers, rows))
    lines = capsys.readouterr().out.splitlines()
    assert "Paper, Table 1  fidelity on lidc-phantom" in lines[1]
    (first,) = [line.split() for line in lines if line.startswith("A ")]
    assert first == ["A", "0.600", "[0.500,", "0.700]", "1", "0.100", "[0.000,", "0.200]", "3", "a"]
    assert "Spearman's rho of the two orders: -0.50 (3 methods)" in lines
    assert lines[-1] == "not in this run, see paper.csv: Paper, Table 1, readers"
