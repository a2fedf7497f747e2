"""When two computations of a cell agree."""

import dataclasses
from types import SimpleNamespace

import pytest

from xbench.leaderboard.agreement import disagreement
from xbench.results.rows import ScoreRow


@pytest.fixture
def a_row(made_up: SimpleNamespace) -> ScoreRow:
    return made_up.submission().entries[0].row


@pytest.mark.parametrize(
    ("difference", "exact", "agree"),
    [
        (9e-7, True, True),  # of a value of 1: the last bits
        (9e-5, True, True),  # of an interval 1 wide: another copy of the classifier, rounded otherwise
        (1.1e-4, True, False),
        (0.24, False, True),
        (0.26, False, False),
    ],
)
def test_what_is_forgiven_is_a_part_of_the_interval(
    a_row: ScoreRow, difference: float, exact: bool, agree: bool
) -> None:
    ours = dataclasses.replace(a_row, value=0.5, ci_low=0.0, ci_high=1.0)
    theirs = dataclasses.replace(ours, value=0.5 + difference)
    assert (disagreement(theirs, ours, exact) == "") == agree


@pytest.mark.parametrize(("difference", "agree"), [(9e-7, True), (1.1e-6, False)])
def test_without_an_interval_it_is_a_part_of_the_value(a_row: ScoreRow, difference: float, agree: bool) -> None:
    ours = dataclasses.replace(a_row, value=1.0, ci_low=1.0, ci_high=1.0)
    theirs = dataclasses.replace(ours, value=1.0 + difference)
    assert (disagreement(theirs, ours, exact=True) == "") == agree
