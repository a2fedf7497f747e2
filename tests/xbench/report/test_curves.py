"""Perturbation and training curves: what is drawn, on which colours, and that a picture is a function of its data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from xbench.contracts.roles import CurveRole
from xbench.report import perturbation_curves, training_curves
from xbench.report.canvas import BLUE, VERMILLION
from xbench.report.curves import curve_styles
from xbench.results.curves import CurveSeries

X = np.linspace(0, 100, 41)
ROLES: dict[str, CurveRole] = {"MiF": "most_first", "LiF": "least_first"}


def series(label: str, control: bool = False) -> CurveSeries:
    return CurveSeries(label, control, X, {"MiF": np.exp(-X / 20), "LiF": 1 - X / 100}, ROLES)


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """Every pair of axes a figure makes, to look at what was drawn in it."""
    made = []
    original = Axes.__init__

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Axes, "__init__", remember)
    return made


def titles(axes: list[Axes]) -> list[str]:
    return [panel.get_title("left") for panel in axes if panel.get_title("left")]


class TestPerturbationCurves:
    def test_one_panel_each_controls_last(self, tmp_path: Path, axes: list[Axes]) -> None:
        ordered = [series("random", True), series("vinet"), series("edges", True), series("gradient")]
        paths = perturbation_curves(tmp_path / "f", "Fidelity", ordered, "pixels (%)", "accuracy")
        assert paths == [tmp_path / "f.svg", tmp_path / "f.png"]
        assert titles(axes) == ["vinet", "gradient", "random", "edges"]

    def test_every_panel_holds_its_curves_and_the_reference(self, tmp_path: Path, axes: list[Axes]) -> None:
        perturbation_curves(tmp_path / "f", "", [series("vinet"), series("random", True)], "x", "y")
        user, control = axes[:2]
        assert len(user.lines) == 4
        assert len(control.lines) == 2
        drawn = [line.get_ydata() for line in user.lines[-2:]]
        assert all(np.array_equal(a, b) for a, b in zip(drawn, series("vinet").curves.values(), strict=True))
        assert len({line.get_color() for line in user.lines[-2:]}) == 2
        assert len({line.get_linestyle() for line in user.lines[-2:]}) == 2
        assert {line.get_color() for line in control.lines} == {"#555555"}

    @pytest.mark.parametrize(
        ("curves", "roles"),
        [
            ({"MiF": 1 - X / 50, "LiF": 1 - X / 100}, ROLES),
            ({"LiF": 1 - X / 100, "MiF": 1 - X / 50}, ROLES),
            ({"least": 1 - X / 100, "most": 1 - X / 50}, {"most": "most_first", "least": "least_first"}),
        ],
    )
    def test_a_role_has_its_colour_whatever_the_name_and_the_order(
        self, tmp_path: Path, axes: list[Axes], curves: dict[str, np.ndarray], roles: dict[str, CurveRole]
    ) -> None:
        perturbation_curves(tmp_path / "f", "", [CurveSeries("a", False, X, curves, roles)], "x", "y")
        (panel, *_) = axes
        looks = {tuple(line.get_ydata()): (line.get_color(), line.get_linestyle()) for line in panel.lines}  # type: ignore[arg-type]
        assert looks == {tuple(1 - X / 50): (VERMILLION, "-"), tuple(1 - X / 100): (BLUE, "--")}
        # Removing the least important first keeps the score here, as it should: the area is blue.
        shaded = max(panel.collections, key=lambda area: np.ptp(area.get_paths()[0].vertices[:, 1]))
        assert to_hex(shaded.get_facecolor()[0][:3]).upper() == BLUE

    def test_other_curves_take_the_looks_that_the_two_orders_leave(self) -> None:
        mixed = CurveSeries("a", False, X, dict.fromkeys("pqrst", X), {"r": "least_first"})
        assert curve_styles(mixed) == {"p": 0, "q": 2, "r": 1, "s": 3, "t": 0}
        assert curve_styles(CurveSeries("a", False, X, dict.fromkeys("pq", X))) == {"p": 0, "q": 1}

    @pytest.mark.parametrize("count", [1, 2, 7, 20, 26])
    def test_any_number_of_explainers(self, tmp_path: Path, axes: list[Axes], count: int) -> None:
        perturbation_curves(tmp_path / "f", "Fidelity", [series(f"e{i}") for i in range(count)], "x", "y")
        assert len(titles(axes)) == count

    def test_other_metrics_bring_one_or_three_curves(self, tmp_path: Path, axes: list[Axes]) -> None:
        one = CurveSeries("a", False, X, {"ROC": X / 100})
        three = CurveSeries("b", False, X, dict.fromkeys(("p", "q", "r"), X / 100))
        perturbation_curves(tmp_path / "f", "", [one, three], "x", "y")
        assert [len(panel.lines) for panel in axes[:2]] == [1, 3]

    def test_all_panels_have_one_scale_that_holds_everything(self, tmp_path: Path, axes: list[Axes]) -> None:
        steep = CurveSeries("steep", False, 2 * X, {"MiF": -X, "LiF": np.where(X > 50, np.nan, X)})
        perturbation_curves(tmp_path / "f", "", [series("vinet"), steep], "x", "y")
        (left, right), (bottom, top) = axes[0].get_xlim(), axes[0].get_ylim()
        assert (left, right, bottom, top) == pytest.approx((-4, 204, -107.5, 57.5))
        assert {(*panel.get_xlim(), *panel.get_ylim()) for panel in axes} == {(left, right, bottom, top)}

    @pytest.mark.parametrize("height", [0.5, 0.0, np.nan])
    @pytest.mark.filterwarnings("error")
    def test_curves_without_height_are_drawn_all_the_same(
        self, tmp_path: Path, axes: list[Axes], height: float
    ) -> None:
        flat = CurveSeries("flat", False, X, dict.fromkeys(("MiF", "LiF"), np.full_like(X, height)))
        perturbation_curves(tmp_path / "f", "", [flat], "x", "y")
        low, high = axes[0].get_ylim()
        assert low < high
        assert np.isnan(height) or low < height < high

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        assert perturbation_curves(tmp_path / "f", "", [], "x", "y") == []
        assert list(tmp_path.iterdir()) == []

    def test_same_data_same_bytes_whatever_the_users_style(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = perturbation_curves(tmp_path / "a", "F", [series("vinet")], "x", "y")
        monkeypatch.setitem(rcParams, "font.size", 30)
        second = perturbation_curves(tmp_path / "b", "F", [series("vinet")], "x", "y")
        assert rcParams["font.size"] == 30
        for one, other in zip(first, second, strict=True):
            assert one.read_bytes() == other.read_bytes()


def history(epochs: int = 5, best: int = 3) -> list[dict[str, str]]:
    return [
        {
            "epoch": str(epoch),
            "train_loss": str(1 / epoch),
            "train_cross_entropy": str(1 / epoch),
            "train_sparsity": str(epoch),
            "validation_criterion": str(abs(epoch - best) + 0.25),
            "validation_accuracy": str(1 - 0.1 * abs(epoch - best)),
        }
        for epoch in range(1, epochs + 1)
    ]


class TestTrainingCurves:
    def test_best_epoch_is_that_of_the_lowest_criterion(self, tmp_path: Path, axes: list[Axes]) -> None:
        training_curves(tmp_path / "t", "convnet", history())
        notes = {panel.get_title("left"): panel.get_title("right") for panel in axes if panel.get_title("left")}
        assert notes == {
            "loss": "best epoch 3: 0.250",
            "accuracy": "best epoch 3: 1.000",
            "sparsity": "best epoch 3",  # a term that only repeats the loss gets no panel
        }

    def test_chance_is_shown_beside_the_accuracy(self, tmp_path: Path, axes: list[Axes]) -> None:
        training_curves(tmp_path / "t", "convnet", history(), chance=0.6)
        accuracy = next(panel for panel in axes if panel.get_title("left") == "accuracy")
        assert any(np.allclose(line.get_ydata(), 0.6) for line in accuracy.lines)
        assert [text.get_text() for text in accuracy.texts] == ["always the commonest class"]

    @pytest.mark.parametrize(
        "rows",
        [
            history(epochs=1, best=1),
            [{"epoch": 1, "train_loss": float("nan"), "validation_criterion": ""}],
            [],
        ],
    )
    def test_short_undefined_and_empty_histories(self, tmp_path: Path, rows: list[Any]) -> None:
        paths = training_curves(tmp_path / "t", "convnet", rows)
        assert len(paths) == 2
        assert all(path.stat().st_size > 1000 for path in paths)
