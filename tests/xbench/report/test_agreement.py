"""The agreement chart: what its cells and lines say, and that it stands any number of metrics and explainers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xbench.report import agreement_chart
from xbench.statistics.agreement import Agreement, agreement


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Axes]]:
    """The two axes of the chart drawn last."""
    made = []
    original = Figure.add_axes

    def remember(self: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(original(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(Figure, "add_axes", remember)
    return lambda: made[-2:]


VALUES = {
    "fidelity": np.array([4.0, 3, 2, 1]),
    "roc-auc": np.array([3.0, 4, 2, 1]),
    "dice": np.array([1.0, 2, 3, math.nan]),
}


def example() -> Agreement:
    return agreement("phantom / net, original maps", ["a", "b", "c", "d"], VALUES)


def words(panel: Axes) -> dict[tuple[int, int], str]:
    return {(round(text.get_position()[0]), round(text.get_position()[1])): text.get_text() for text in panel.texts}


def test_rho_above_the_diagonal_and_tau_below(tmp_path: Path, panels: Callable[[], list[Axes]]) -> None:
    paths = agreement_chart(tmp_path, example())
    assert [path.name for path in paths] == [
        "agreement--phantom-net-original-maps.svg",
        "agreement--phantom-net-original-maps.png",
    ]
    heat, _ = panels()
    # text at (column, row): fidelity, roc-auc, dice
    assert words(heat) == {
        (1, 0): "0.80",
        (0, 1): "0.67",
        (2, 0): "-1.00",
        (0, 2): "-1.00",
        (2, 1): "-0.50",
        (1, 2): "-0.33",
    }
    (image,) = heat.images
    shown = image.get_array()
    assert shown[0, 1] == pytest.approx(0.8)
    assert shown[1, 0] == pytest.approx(2 / 3)
    assert shown.mask.diagonal().all()
    assert image.get_clim() == (-1, 1)


def test_a_star_marks_what_chance_seldom_does(tmp_path: Path, panels: Callable[[], list[Axes]]) -> None:
    values = np.arange(6.0)
    agreement_chart(tmp_path, agreement("p", list("abcdef"), {"m": values, "n": values}))
    assert set(words(panels()[0]).values()) == {"1.00*"}


def test_lines_are_the_ranks_and_the_best_is_on_top(tmp_path: Path, panels: Callable[[], list[Axes]]) -> None:
    agreement_chart(tmp_path, example())
    _, bump = panels()
    heights = [line.get_ydata() for line in bump.lines]
    np.testing.assert_array_equal(heights, [[1, 2, 3], [2, 1, 2], [3, 3, 1], [4, 4, np.nan]])
    assert bump.get_ylim()[0] > bump.get_ylim()[1]
    names = [text.get_text() for text in bump.texts]
    assert sorted(names) == ["a", "a", "b", "b", "c", "c", "d"]  # d has no value at the right end


def test_metrics_that_agree_stand_side_by_side(tmp_path: Path, panels: Callable[[], list[Axes]]) -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(2, 12))
    values = {"a1": one, "b1": other, "a2": one + 0.01 * draw.normal(size=12), "b2": other, "a3": one}
    agreement_chart(tmp_path, agreement("p", [str(index) for index in range(12)], values))
    heat, bump = panels()
    order = [label.get_text() for label in heat.get_yticklabels()]
    assert "".join(name[0] for name in order) in ("aaabb", "bbaaa")
    assert order.index("a1") < 3
    assert [label.get_text() for label in bump.get_xticklabels()] == order
    heights = bump.lines[0].get_ydata()
    assert heights[order.index("b1")] == heights[order.index("b2")]


def test_what_moves_has_a_colour_and_what_does_not_is_grey(tmp_path: Path, panels: Callable[[], list[Axes]]) -> None:
    agreement_chart(tmp_path, agreement("p", list("abc"), {"m": np.array([3.0, 2, 1]), "n": np.array([3.0, 1, 2])}))
    colours = [line.get_color() for line in panels()[1].lines]
    assert len(set(colours)) == 3
    grey = colours[0].lstrip("#")
    assert len({grey[:2], grey[2:4], grey[4:]}) == 1


def test_undefined_correlations_are_a_dash(tmp_path: Path, panels: Callable[[], list[Axes]]) -> None:
    agreement_chart(tmp_path, agreement("p", ["a", "b"], {"m": np.array([1.0, 2]), "flat": np.array([1.0, 1])}))
    assert set(words(panels()[0]).values()) == {"–"}


def test_many_metrics_and_long_names_fit(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    names = [f"integrated-gradients-of-kind-{index}" for index in range(30)]
    metrics = {f"parameter-randomisation:layers={index}": draw.normal(size=30) for index in range(20)}
    _, png = agreement_chart(tmp_path, agreement("a place", names, metrics))
    image = matplotlib.image.imread(png)[:, :, :3]
    for edge in (image[:, :4], image[:, -4:], image[-4:]):
        assert (edge > 0.99).all()  # nothing is cut off


@pytest.mark.parametrize("count", [2, 5])
def test_names_stay_clear_of_the_title(
    tmp_path: Path, panels: Callable[[], list[Axes]], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    from xbench.report import agreement as module

    figures = []
    save = module.save
    monkeypatch.setattr(module, "save", lambda figure, stem, *_: figures.append(figure) or save(figure, stem))
    metrics = {f"fidelity:removal=opposite,step={index}": np.arange(4.0) for index in range(count)}
    agreement_chart(tmp_path, agreement("a place with a rather long name, original maps", list("abcd"), metrics))
    (figure,) = figures
    title = figure.texts[0].get_window_extent()
    for panel in panels():
        for label in panel.get_xticklabels():
            assert not label.get_window_extent().overlaps(title)


def test_same_agreement_same_bytes(tmp_path: Path) -> None:
    for one, other in zip(
        agreement_chart(tmp_path / "a", example()), agreement_chart(tmp_path / "b", example()), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()
