"""Class views: what a panel says, how values become greys and colours, and that a picture is a function of its data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from xbench.report import class_views
from xbench.report.canvas import DPI
from xbench.report.views import _MARGIN, stretched

RNG = np.random.default_rng(0)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text put on a sheet."""
    written = []
    original = Axes.text

    def remember(self: Any, x: float, y: float, text: str, **options: Any) -> Any:
        written.append(text)
        return original(self, x, y, text, **options)

    monkeypatch.setattr(Axes, "text", remember)
    return written


def draw(
    stem: Path,
    count: int = 2,
    shape: tuple[int, ...] = (1, 16, 16),
    images: np.ndarray | None = None,
    title: str = "Class maximisation: convnet on toy",
) -> Any:
    images = RNG.normal(size=(count, *shape)) if images is None else images
    names = [f"class {index}" for index in range(count)]
    return class_views(stem, title, names, images, np.linspace(-2.5, 40, count), np.linspace(0.25, 1, count))


class TestStretched:
    def test_smallest_black_largest_white(self) -> None:
        picture = stretched(np.array([[[-4.0, 0.0], [2.0, 4.0]]]))
        assert picture.shape == (2, 2, 3)
        np.testing.assert_allclose(picture[..., 0], [[0, 0.5], [0.75, 1]])
        assert (picture[..., 0] == picture[..., 2]).all()

    def test_three_channels_are_colours_on_one_scale(self) -> None:
        image = RNG.normal(size=(3, 4, 5))
        expected = (image - image.min()) / (image.max() - image.min())
        np.testing.assert_allclose(stretched(image), np.moveaxis(expected, 0, -1))

    def test_two_channels_are_averaged(self) -> None:
        image = RNG.normal(size=(2, 4, 5))
        np.testing.assert_allclose(stretched(image), stretched(image.mean(0, keepdims=True)))

    def test_constant_is_grey(self) -> None:
        assert (stretched(np.full((1, 3, 3), 7.0)) == 0.5).all()


class TestClassViews:
    def test_a_panel_says_class_score_probability_and_range(self, tmp_path: Path, words: list[str]) -> None:
        images = np.zeros((2, 1, 8, 8))
        images[0, 0, 0, 0], images[0, 0, 7, 7], images[1, 0, 3, 3] = -1.25, 3.5, 0.5
        assert draw(tmp_path / "v", images=images) == [tmp_path / "v.svg", tmp_path / "v.png"]
        for text in ("class 0", "class 1", "S = -2.5   p = 0.25", "S = 40   p = 1.00", "-1.25", "3.5", "0", "0.5"):
            assert text in words
        assert any("picture of the model" in text for text in words)

    def test_the_pixels_drawn_are_the_images(self, tmp_path: Path) -> None:
        images = np.zeros((2, 1, 2, 2))
        images[0, 0] = [[0, 1], [1, 0]]
        _, png = draw(tmp_path / "v", images=images)
        pixels = np.asarray(Image.open(png).convert("L"))
        column = pixels[:, int((_MARGIN + 0.4) * DPI)]
        panel = np.flatnonzero(column == 0)
        assert len(panel) == pytest.approx(0.95 * DPI, abs=30)  # the black half of the first column of the chequers
        row = pixels[panel[len(panel) // 2]]
        assert (row[int((_MARGIN + 1.1) * DPI) : int((_MARGIN + 1.8) * DPI)] == 255).all()

    @pytest.mark.parametrize("count", [2, 3, 6, 7, 13])
    def test_any_number_of_classes(self, tmp_path: Path, words: list[str], count: int) -> None:
        draw(tmp_path / "v", count=count)
        assert sum(text.startswith("S = ") for text in words) == count

    @pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 16), (1, 12, 20), (1, 20, 12), (1, 5, 8, 8), (1, 30)])
    def test_colour_oblongs_volumes_and_lines(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        paths = draw(tmp_path / "v", shape=shape)
        assert all(path.stat().st_size > 1000 for path in paths)

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        assert class_views(tmp_path / "v", "", [], np.zeros((0, 1, 4, 4)), np.zeros(0), np.zeros(0)) == []
        assert list(tmp_path.iterdir()) == []

    def test_same_data_same_bytes(self, tmp_path: Path) -> None:
        images = RNG.normal(size=(2, 3, 9, 9))
        for first, second in zip(draw(tmp_path / "a", images=images), draw(tmp_path / "b", images=images), strict=True):
            assert first.read_bytes() == second.read_bytes()
