"""The terminal's tables, rendered to text."""

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from xbench.report import score_tables
from xbench.results.rows import RunHeader, ScoreRow
from xbench.statistics.classification import CLASSIFICATION


def render(rows: list[ScoreRow], header: RunHeader, width: int = 120, terminal: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system="truecolor" if terminal else None
    )
    console.print(score_tables(rows, header))
    return console.file.getvalue()


def lines_with(text: str, word: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if word in line]


def test_a_row_shows_rank_value_interval_n_and_seconds(
    row: Callable[..., ScoreRow], header: Callable[..., RunHeader]
) -> None:
    text = render([row("vinet", 0.81234, subject="self", seconds_fit=80.0)], header())
    assert "1–2 vinet own model original 0.812 [0.712, 0.912] 131 83.2" in lines_with(text, "vinet")
    assert "fidelity higher is better; maps of the predicted class" in lines_with(text, "fidelity")


def test_model_line_and_phantom(row: Callable[..., ScoreRow], header: Callable[..., RunHeader]) -> None:
    text = render([row("a", 0.5)], header())
    (line,) = lines_with(text, "convnet")
    assert line == "convnet on lidc-phantom (phantom: rendered images): 131 test images"
    assert lines_with(text, "AUC") == ["accuracy 0.900 [0.850, 0.950] AUC 0.960 [0.930, 0.980]"]
    assert lines_with(text, "MCC") == ["MCC 0.800 [–, –]"]


def test_all_figures_of_the_classifier_fit_100_columns(
    row: Callable[..., ScoreRow], header: Callable[..., RunHeader]
) -> None:
    run = header()
    run.models[0]["metrics"] |= {name: [-0.908, -0.957, 0.25] for name in CLASSIFICATION}
    text = render([row("a", 0.5)], run, width=100)
    number = "-0.908 [-0.957, 0.250]"
    for first, second, third in (
        ("accuracy", "AUC", "informedness"),
        ("sensitivity", "PPV", "markedness"),
        ("specificity", "NPV", "MCC"),
    ):
        assert f"{first} {number} {second} {number} {third} {number}" in lines_with(text, first)
    assert lines_with(text, "F1") == [f"bal. acc. {number} F1 {number}"]
    assert text.count(number) == len(CLASSIFICATION) == 11
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("auc", "warning"),
    [
        ([0.96, 0.93, 0.98], None),
        ([0.55, 0.45, 0.65], "its AUC can't be told apart from chance"),
        ([0.55, 0.5, 0.6], "its AUC can't be told apart from chance"),
        ([0.2, 0.1, 0.3], "its AUC lies below chance"),
        ([None, None, None], None),
    ],
)
def test_a_classifier_that_learned_nothing_is_red_and_warned_about(
    row: Callable[..., ScoreRow], header: Callable[..., RunHeader], auc: list[Any], warning: str | None
) -> None:
    text = render([row("a", 0.5)], header(auc), width=200, terminal=True)
    assert ("\x1b[1;31m" in text) == (warning is not None)
    if warning:
        assert warning in text
    assert ("warning:" in text) == (warning is not None)


def test_ranked_within_sign_in_the_metrics_direction(
    row: Callable[..., ScoreRow], header: Callable[..., RunHeader]
) -> None:
    rows = [row("a", 0.2), row("b", 0.9), row("a", 0.7, sign="absolute"), row("b", 0.1, sign="absolute")]
    for higher, expected in ((True, ["b", "a", "a", "b"]), (False, ["a", "b", "b", "a"])):
        text = render([row(r.explainer, r.value, sign=r.sign, higher_is_better=higher) for r in rows], header())
        assert [
            line.split()[1] for line in text.splitlines() if " 131 " in line and "test images" not in line
        ] == expected


def test_controls_are_marked_and_dimmed(row: Callable[..., ScoreRow], header: Callable[..., RunHeader]) -> None:
    text = render([row("a", 0.5), row("random", 0.0, control=True)], header(), terminal=True)
    (line,) = [line for line in text.splitlines() if "random" in line]
    assert "control" in line
    assert "\x1b[2m" in line


def test_unbeaten_controls_are_named(row: Callable[..., ScoreRow], header: Callable[..., RunHeader]) -> None:
    rows = [
        row("good", 0.9),
        row("weak", 0.1, rank_set=("weak", "random")),
        row("bad", -0.5),
        row("random", 0.0, control=True),
        row("blurred:good", 0.95, control=True),
        row("inverted:good", -0.9, control=True),
    ]
    text = render(rows, header())
    assert lines_with(text, "can't be told apart") == ["can't be told apart from random (original): weak"]
    assert lines_with(text, "worse than") == [
        "worse than blurred:good (original): good",  # held against its own explainer only
        "worse than random (original): bad",
    ]


def test_lower_is_better_turns_beating_round(row: Callable[..., ScoreRow], header: Callable[..., RunHeader]) -> None:
    rows = [row("a", 0.9, higher_is_better=False), row("random", 0.1, control=True, higher_is_better=False)]
    assert lines_with(render(rows, header()), "worse than") == ["worse than random (original): a"]


def test_every_explainer(row: Callable[..., ScoreRow], header: Callable[..., RunHeader]) -> None:
    rows = [row(name, 0.1, rank_set=("a", "b", "random")) for name in "ab"] + [row("random", 0.1, control=True)]
    assert "can't be told apart from random (original): every explainer" in lines_with(
        render(rows, header()), "can't be told"
    )


def test_cells_without_a_value_say_why(row: Callable[..., ScoreRow], header: Callable[..., RunHeader]) -> None:
    rows = [
        row("a", 0.5),
        row("lrp", math.nan, status="failed", reason="the rule\ndoes not\x1b[31m fire"),
        row("xrai", math.nan, status="skipped", reason="no masks"),
        row("flat", math.nan),
    ]
    text = render(rows, header(), terminal=False)
    assert "failed: lrp (original): the rule does not [31m fire" in lines_with(text, "lrp")
    assert "skipped: xrai (original): no masks" in lines_with(text, "xrai")
    assert "no value: flat (original): undefined on these samples" in lines_with(text, "flat")


def test_markup_in_names_is_text(row: Callable[..., ScoreRow], header: Callable[..., RunHeader]) -> None:
    assert "[red]odd[/red]" in render([row("[red]odd[/red]", 0.5)], header())


def test_metrics_have_tables_and_cards_sections_of_their_own(
    row: Callable[..., ScoreRow], header: Callable[..., RunHeader]
) -> None:
    rows = [
        row("a", 0.9, card="one"),
        row("b", 0.7, card="two"),
        row("c", 0.8, card="one"),
        row("random", 0.85, control=True, card="two"),
        row("a", 0.7, metric="roc-auc", target="1"),
    ]
    text = render(rows, header())
    assert len(lines_with(text, "higher is better")) == 2
    assert "roc-auc higher is better; maps of class 1" in lines_with(text, "roc-auc")
    assert [line.split()[1] for line in lines_with(text, " original ")] == ["a", "c", "random", "b", "a"]
    assert lines_with(text, "worse than") == ["worse than random (original): b"]  # never across cards


def test_numbers_too_small_or_large_for_three_decimals(
    row: Callable[..., ScoreRow], header: Callable[..., RunHeader]
) -> None:
    text = render([row("a", 0.0001234), row("b", 123456.0), row("c", 0.0)], header())
    assert "1.23e-04" in text
    assert "1.23e+05" in text
    assert " 0.000 " in text


def test_plain_text_without_a_terminal_and_no_rows(
    row: Callable[..., ScoreRow], header: Callable[..., RunHeader]
) -> None:
    assert "\x1b" not in render([row("a", 0.5)], header([0.5, 0.4, 0.6]))
    assert render([], header()).strip() == ""
