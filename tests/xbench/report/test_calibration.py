"""The reliability diagram: bars where the samples are, and the figures below."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from xbench.report import calibration_chart
from xbench.results.rows import RunHeader, read_header, write_header
from xbench.statistics.reliability import calibration


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    """As it stands in a header that was written and read: five samples in two bins, null in the empty ones."""
    positive = np.array([0.9, 0.9, 0.9, 0.9, 0.35])
    made = calibration(np.array([1, 1, 1, 0, 0]), np.stack([1 - positive, positive], 1), list("abcde"), count=50)
    fields = vars(made) | {
        name: list(getattr(made, name)[:3]) for name in ("expected_calibration_error", "brier_score")
    }
    write_header(RunHeader(created="", models=[{"calibration": fields}]), tmp_path / "run.json")
    return read_header(tmp_path / "run.json").models[0]["calibration"]


def test_a_bar_for_each_filled_bin_with_its_count(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []
    original = Axes.bar
    monkeypatch.setattr(
        Axes,
        "bar",
        lambda self, x, height, *rest, **options: (
            bars.append((x, height)),
            original(self, x, height, *rest, **options),
        )[1],
    )
    paths = calibration_chart(tmp_path / "models" / "c", "convnet on phantom", found)
    assert [path.name for path in paths] == ["c.svg", "c.png"]
    (left, accuracy), (below, count) = bars
    np.testing.assert_allclose(left, [9 / 15, 13 / 15])
    np.testing.assert_allclose(below, left)
    np.testing.assert_allclose(accuracy, [1, 0.75])
    assert count.tolist() == [1, 4]


def test_the_figures_are_below(found: dict[str, Any], tmp_path: Path) -> None:
    svg, _ = calibration_chart(tmp_path / "c", "convnet on phantom", found)
    text = svg.read_text()
    assert found["expected_calibration_error"][0] == pytest.approx(0.8 * 0.15 + 0.2 * 0.35)
    for words in ("expected calibration error 0.190", "Brier score 0.19"):
        assert words in text


def test_same_data_same_bytes(found: dict[str, Any], tmp_path: Path) -> None:
    one, other = (calibration_chart(tmp_path / name, "c", found) for name in "ab")
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes()
