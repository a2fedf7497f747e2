"""The gallery: pages, scaling, colours that mean the sign, and pictures that keep the anatomy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from xbench.report import GalleryItem, Overlay, gallery
from xbench.report.overlays import blended
from xbench.results.gallery import robust_scale

RNG = np.random.default_rng(0)
GREY = np.full((8, 8, 3), 0.4)


def item(
    maps: int = 2, shape: tuple[int, ...] = (16, 16), channels: int = 1, mask: bool = True, **changes: Any
) -> GalleryItem:
    overlays = [Overlay(f"e{i}", RNG.normal(size=shape), signed=i % 2 == 0, control=i > 3) for i in range(maps)]
    outline = np.zeros(shape, dtype=bool)
    outline[..., 4:9, 0:6] = True
    fields: dict[str, Any] = {
        "id": "LIDC-0001",
        "image": RNG.random((channels, *shape)),
        "mask": outline if mask else None,
        "label": "benign",
        "predicted": "malignant",
        "probability": 0.75,
        "overlays": overlays,
    }
    return GalleryItem(**fields | changes)


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


class TestBlended:
    def test_red_is_for_blue_is_against(self) -> None:
        values = np.zeros((8, 8))
        values[0, 0], values[7, 7] = 1, -1
        mixed = blended(GREY, values, signed=True)
        assert mixed[0, 0].argmax() == 0
        assert mixed[7, 7].argmax() == 2
        assert np.array_equal(mixed[3, 3], GREY[3, 3])  # nothing said, nothing drawn

    def test_unsigned_maps_never_look_like_evidence_against(self) -> None:
        mixed = blended(GREY, np.linspace(0, 1, 64).reshape(8, 8), signed=False)
        assert (mixed[..., 0] >= mixed[..., 2] - 1e-9).all()

    def test_opacity_grows_with_the_value(self) -> None:
        mixed = blended(GREY, np.linspace(0, 1, 64).reshape(8, 8), signed=True).reshape(64, 3)
        away = np.abs(mixed - 0.4).sum(1)
        assert (np.diff(away) > -1e-3).all()
        assert away[-1] > 0.5

    def test_one_outlier_does_not_blank_the_map(self) -> None:
        values = np.full((100, 100), 0.5)
        plain = blended(np.full((100, 100, 3), 0.4), values, signed=True)
        values[0, 0] = 1e6
        assert np.allclose(blended(np.full((100, 100, 3), 0.4), values, signed=True)[1:], plain[1:])

    def test_colours_do_not_depend_on_the_scale_of_the_map(self) -> None:
        values = RNG.normal(size=(8, 8))
        assert np.allclose(blended(GREY, values, True), blended(GREY, 1e-7 * values, True))

    def test_scale_of_sparse_and_empty_maps(self) -> None:
        sparse = np.zeros((100, 100))
        assert robust_scale(sparse) == 1
        sparse[0, 0] = -3
        assert robust_scale(sparse) == 3
        assert robust_scale(np.arange(101.0)) == pytest.approx(99)


class TestGallery:
    @pytest.mark.parametrize(("maps", "pages"), [(0, 1), (1, 1), (6, 1), (7, 2), (12, 2), (13, 3)])
    def test_pages_of_at_most_eight_columns(self, tmp_path: Path, words: list[str], maps: int, pages: int) -> None:
        paths = gallery(tmp_path / "g", [item(maps)], "convnet")
        assert len(paths) == 2 * pages
        assert all(path.exists() for path in paths)
        names = ["g"] if pages == 1 else [f"g-{page + 1}" for page in range(pages)]
        assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in ("svg", "png")]
        assert words.count("image") == words.count("expert outline") == pages
        assert [word for word in words if word.startswith("e") and word[1:].isdigit()] == [f"e{i}" for i in range(maps)]

    def test_caption_names_truth_prediction_and_error(self, tmp_path: Path, words: list[str]) -> None:
        gallery(tmp_path / "g", [item(), item(predicted="benign")])
        assert words.count("benign") == 2
        assert "predicted malignant 0.75  (wrong)" in words
        assert "predicted benign 0.75" in words

    def test_scale_bars_of_the_kinds_on_the_page(self, tmp_path: Path, words: list[str]) -> None:
        gallery(tmp_path / "g", [item(maps=1)])
        assert "for the target" in words
        assert "most (unsigned map)" not in words

    def test_a_map_of_zeros_is_said_to_be_one(self, tmp_path: Path, words: list[str]) -> None:
        gallery(tmp_path / "g", [item(overlays=[Overlay("constant", np.zeros((16, 16)), signed=True)])])
        assert "map is zero" in words

    def test_long_names_are_wrapped(self, tmp_path: Path, words: list[str]) -> None:
        overlay = Overlay("blurred:integrated-gradients", np.ones((16, 16)), signed=True)
        gallery(tmp_path / "g", [item(overlays=[overlay])])
        title = next(word for word in words if word.startswith("blurred"))
        assert title.replace("\n", "") == overlay.name
        assert max(map(len, title.splitlines())) <= 15

    def test_the_anatomy_is_in_the_picture(self, tmp_path: Path) -> None:
        """A black image with one white pixel stays so in the first cell."""
        image = np.zeros((1, 16, 16))
        image[0, 8, 8] = 1
        _, png = gallery(tmp_path / "g", [item(image=image, mask=None)])
        picture = np.asarray(Image.open(png).convert("RGB"), dtype=float)
        inch = 144
        top = int(0.24 * inch)
        cell = picture[top : top + int(1.1 * inch), int(0.14 * inch) : int(1.28 * inch)]
        assert np.median(cell) == 0
        assert cell.max() == 255

    @pytest.mark.parametrize("changes", [{"channels": 3}, {"mask": False}, {"shape": (5, 16, 16)}, {"shape": (12, 20)}])
    def test_colour_no_mask_volumes_and_oblongs(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        paths = gallery(tmp_path / "g", [item(**changes)])
        assert len(paths) == 2

    def test_nothing_to_show(self, tmp_path: Path) -> None:
        assert gallery(tmp_path / "g", []) == []

    def test_same_items_same_bytes(self, tmp_path: Path) -> None:
        one = item()
        for first, second in zip(gallery(tmp_path / "a", [one]), gallery(tmp_path / "b", [one]), strict=True):
            assert first.read_bytes() == second.read_bytes()
