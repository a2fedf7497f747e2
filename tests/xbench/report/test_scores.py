"""The score chart: order, greys for controls, and what is said where there is no value."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xbench.report import score_chart
from xbench.results.rows import ScoreRow


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Axes]:
    """The axes of the chart drawn last."""
    made = []
    original = Figure.add_axes

    def remember(self: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(original(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(Figure, "add_axes", remember)
    return lambda: made[-1]


def names(panel: Axes) -> list[str]:
    return [label.get_text() for label in panel.get_yticklabels()]


def dots(panel: Axes) -> list[Line2D]:
    return [line for line in panel.lines if line.get_marker() in ("o", "D")]


def test_best_first_whatever_the_direction(
    tmp_path: Path, row: Callable[..., ScoreRow], panel: Callable[[], Axes]
) -> None:
    values = {"a": 0.2, "b": 0.9, "c": 0.5}
    for higher, expected in ((True, ["b", "c", "a"]), (False, ["a", "c", "b"])):
        rows = [row(name, value, higher_is_better=higher) for name, value in values.items()]
        paths = score_chart(tmp_path / "s", "Fidelity", rows)
        assert [path.name for path in paths] == ["s.svg", "s.png"]
        assert names(panel()) == expected


def test_dot_and_interval_are_the_rows(tmp_path: Path, row: Callable[..., ScoreRow], panel: Callable[[], Axes]) -> None:
    score_chart(tmp_path / "s", "", [row("a", 0.5, margin=0.25)])
    interval, dot = panel().lines
    assert list(interval.get_xdata()) == [0.25, 0.75]  # type: ignore[arg-type]
    assert list(dot.get_xdata()) == [0.5]  # type: ignore[arg-type]


def test_signs_share_a_line_and_differ_in_marker_and_colour(
    tmp_path: Path, row: Callable[..., ScoreRow], panel: Callable[[], Axes]
) -> None:
    score_chart(tmp_path / "s", "", [row("a", 0.5), row("b", 0.4), row("b", 0.6, sign="absolute")])
    assert names(panel()) == ["b", "a"]  # by its better sign
    original, absolute = (next(dot for dot in dots(panel()) if dot.get_marker() == marker) for marker in "oD")
    assert original.get_color() != absolute.get_color()


def test_controls_are_grey_and_random_is_a_band(
    tmp_path: Path, row: Callable[..., ScoreRow], panel: Callable[[], Axes]
) -> None:
    rows = [row("a", 0.5), row("random", 0.0, control=True), row("random", 0.1, control=True, sign="absolute")]
    score_chart(tmp_path / "s", "", rows)
    assert dots(panel())[0].get_color() != dots(panel())[1].get_color() == dots(panel())[2].get_color()
    (band,) = panel().patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-0.1, 0.2))


def test_ranks_and_failures_are_written_beside(
    tmp_path: Path, row: Callable[..., ScoreRow], panel: Callable[[], Axes]
) -> None:
    failed = row("lime", math.nan, status="failed", reason="out of memory")
    undefined = row("flat", math.nan)
    score_chart(tmp_path / "s", "", [failed, row("a", 0.5), row("a", 0.4, sign="absolute", rank_high=1), undefined])
    assert names(panel()) == ["a", "flat", "lime"]
    assert [text.get_text() for text in panel().texts[:3]] == ["1–2 / 1", "undefined", "failed"]


def test_no_interval_and_no_rows(tmp_path: Path, row: Callable[..., ScoreRow], panel: Callable[[], Axes]) -> None:
    score_chart(tmp_path / "s", "", [row("a", 0.5, ci_low=math.nan, ci_high=math.nan)])
    assert len(panel().lines) == 1
    assert score_chart(tmp_path / "none", "", []) == []


def test_same_rows_same_bytes(tmp_path: Path, row: Callable[..., ScoreRow]) -> None:
    rows = [row("a", 0.5), row("random", 0.0, control=True)]
    for one, other in zip(score_chart(tmp_path / "a", "F", rows), score_chart(tmp_path / "b", "F", rows), strict=True):
        assert one.read_bytes() == other.read_bytes()
