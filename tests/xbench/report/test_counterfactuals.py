"""Counterfactual images on disk and drawn: what is refused, what a row says, and which pixels are shown."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from xbench import UserError
from xbench.report import counterfactual_strips
from xbench.report.canvas import DPI
from xbench.results.counterfactuals import (
    COUNTERFACTUALS,
    CounterfactualArrays,
    read_counterfactuals,
    write_counterfactuals,
)


def arrays(
    samples: int = 2, classes: int = 2, shape: tuple[int, ...] = (1, 16, 16), **changes: Any
) -> CounterfactualArrays:
    rng = np.random.default_rng(0)
    images = rng.random((samples, *shape)).astype(np.float16)
    t = np.linspace(-1, 1, 9, dtype=np.float32) if classes == 2 else np.linspace(0, 1, 5, dtype=np.float32)
    frames = np.clip(images[:, None, None] + 0.3 * t[:, None, None, None].astype(np.float16), -1, 2)
    strips = 1 if classes == 2 else classes
    known = {
        "dataset": "phantom",
        "model": "convnet",
        "explainer": "cyclegan",
        "classes": ("benign", "malignant", "cyst", "artefact")[:classes],
        "ids": tuple(f"nodule-{index}" for index in range(samples)),
        "labels": np.arange(samples) % classes,
        "images": images,
        "t": t,
        "frames": np.repeat(frames, strips, axis=1),
        "probabilities": rng.dirichlet(np.ones(classes), (samples, strips, len(t))).astype(np.float32),
        "relevance": rng.normal(size=(samples, *shape[1:])).astype(np.float32),
        "targets": np.zeros(samples, dtype=np.int64),
    }
    return CounterfactualArrays(**known | changes)


class TestArrays:
    @pytest.mark.parametrize("changes", [{}, {"classes": 3, "shape": (3, 8, 5)}, {"relevance": None, "targets": None}])
    def test_read_as_written(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        written = arrays(**changes)
        write_counterfactuals(written, tmp_path / COUNTERFACTUALS / "a.npz")
        (read,) = read_counterfactuals(tmp_path)
        for field in dataclasses.fields(written):
            one, other = getattr(written, field.name), getattr(read, field.name)
            assert np.array_equal(one, other), field.name
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None), field.name
        assert [path.name for path in (tmp_path / COUNTERFACTUALS).iterdir()] == ["a.npz"]

    def test_same_arrays_same_bytes(self, tmp_path: Path) -> None:
        for name in "ab":
            write_counterfactuals(arrays(), tmp_path / f"{name}.npz")
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_none_in_a_run_without(self, tmp_path: Path) -> None:
        assert read_counterfactuals(tmp_path) == []

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"ids": ("one",)}, "labels has shape"),
            ({"labels": np.array([0, 2])}, "labels is not of classes 0 to 1"),
            ({"t": np.linspace(-1, 1, 8, dtype=np.float32)}, "shape"),
            ({"t": np.linspace(-1, 0.9, 9, dtype=np.float32)}, "does not ascend through 0"),
            ({"relevance": np.full((2, 16, 16), np.nan, np.float32)}, "relevance has NaN"),
            ({"relevance": np.zeros((2, 16, 15), np.float32)}, "relevance has shape"),
            ({"targets": None}, "belong together"),
            ({"frames": np.zeros((2, 2, 9, 1, 16, 16), np.float16)}, "frames has shape"),
            ({"images": np.zeros((2, 16, 16), np.float16)}, "images is float16 of shape"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_the_file(
        self, tmp_path: Path, changes: dict[str, Any], complaint: str
    ) -> None:
        write_counterfactuals(arrays(**changes), tmp_path / COUNTERFACTUALS / "a.npz")
        with pytest.raises(UserError, match=complaint) as caught:
            read_counterfactuals(tmp_path)
        assert "a.npz" in str(caught.value)

    def test_damaged_foreign_and_newer_files_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / COUNTERFACTUALS / "a.npz"
        write_counterfactuals(arrays(), path)
        whole = path.read_bytes()
        with np.load(path) as file:
            stored = dict(file)
        for content, complaint in (
            (lambda: path.write_bytes(whole[:400]), "can't read"),
            (lambda: np.savez(path, a=np.zeros(3)), "can't read"),
            (lambda: np.savez(path, **stored | {"schema": np.array(99)}), "schema 99 is newer"),
            (lambda: np.savez(path, **stored | {"t": np.array([{}], dtype=object)}), "can't read"),
        ):
            content()
            with pytest.raises(UserError, match=complaint):
                read_counterfactuals(tmp_path)


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


class TestStrips:
    def test_two_classes_say_names_probabilities_scales_and_t(self, tmp_path: Path, words: list[str]) -> None:
        given = np.tile(np.array([0.75, 0.25], np.float32), (2, 1, 9, 1))
        given[:, :, 0], given[:, :, -1] = (0.98, 0.02), (0.1, 0.9)
        found = arrays(probabilities=given, relevance=np.full((2, 16, 16), -0.5, np.float32))
        paths = counterfactual_strips(tmp_path / "c", found)
        assert paths == [tmp_path / "c.svg", tmp_path / "c.png"]
        for text in ("x", "G−(x), toward\nbenign", "G+(x), toward\nmalignant", "R, the map", "t = −1", "t = 0.25"):
            assert text in words
        assert words.count("predicted benign 0.75") == 1
        assert words.count("predicted benign 0.75  (wrong)") == 1
        assert words.count("p = 0.02") == words.count("p = 0.90") == 2 * 2  # beside x, and at an end of the strip
        assert words.count("±0.3") == 2 * 2
        assert words.count("±0.5 for benign") == 2
        assert not any("warning" in text for text in words)

    def test_more_classes_say_where_each_strip_goes(self, tmp_path: Path, words: list[str]) -> None:
        counterfactual_strips(tmp_path / "c", arrays(samples=1, classes=4, relevance=None, targets=None))
        assert sum(text.startswith("p = ") for text in words) == 4 * 5
        for name in ("benign", "malignant", "cyst", "artefact"):
            assert f"±0.3 toward {name}" in words
        assert "R, the map" not in words

    def test_a_warning_is_shown(self, tmp_path: Path, words: list[str]) -> None:
        counterfactual_strips(tmp_path / "c", arrays(), warning="both generators give the same image")
        assert "warning: both generators give the same image" in words

    def test_the_pixels_are_those_of_the_images_and_their_differences(self, tmp_path: Path) -> None:
        images = np.zeros((1, 1, 4, 4), np.float16)
        frames = np.repeat(images[:, None, None], 9, axis=2)
        frames[:, :, -1] = 1  # toward class 1: white
        found = arrays(samples=1, images=images, frames=frames, labels=np.array([0]), relevance=None, targets=None)
        _, png = counterfactual_strips(tmp_path / "c", found)
        pixels = np.asarray(Image.open(png).convert("RGB")).astype(int)
        row = pixels[int((0.34 + 0.34 + 0.2 + 0.6) * DPI)]
        x, minus, plus, down, up = (row[int((0.12 + column * 1.24 + 0.6) * DPI)] for column in range(5))
        assert x.tolist() == minus.tolist() == [0, 0, 0]
        assert plus.tolist() == [255, 255, 255]
        assert down.min() > 240  # no change is white
        assert up[0] > up[2] + 50  # brighter is red

    def test_many_rows_make_pages(self, tmp_path: Path, words: list[str]) -> None:
        paths = counterfactual_strips(tmp_path / "c", arrays(samples=8, classes=4))
        names = [path.name for path in paths]
        assert names[:2] == ["c-1.svg", "c-1.png"]
        assert len(names) >= 4
        assert sum(text.startswith("p = ") for text in words) == 8 * 4 * 5

    @pytest.mark.parametrize("shape", [(3, 16, 16), (2, 12, 20), (1, 20, 12)])
    def test_colours_and_oblongs(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        paths = counterfactual_strips(tmp_path / "c", arrays(samples=1, shape=shape))
        assert all(path.stat().st_size > 1000 for path in paths)

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        assert counterfactual_strips(tmp_path / "c", arrays(samples=0)) == []
        assert list(tmp_path.iterdir()) == []

    def test_same_data_same_bytes(self, tmp_path: Path) -> None:
        one, other = (counterfactual_strips(tmp_path / name, arrays(samples=1)) for name in "ab")
        for first, second in zip(one, other, strict=True):
            assert first.read_bytes() == second.read_bytes()
