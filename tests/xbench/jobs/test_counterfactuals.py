"""Which samples a run shows, and their counterfactual images, from the explainer to the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xbench.jobs.gallery import GALLERY, gallery_samples
from xbench.results.counterfactuals import read_counterfactuals
from xbench.results.observations import observations_path, read_observations
from xbench.results.rows import read_header, read_scores

if TYPE_CHECKING:
    from tests.conftest import Shelf


LOST = """
from xbench import Explainer, ExplainerSpec, hookimpl

@hookimpl
def xbench_explainers():
    yield ExplainerSpec("lost", "images of another size", factory="lost:Lost")
    yield ExplainerSpec("burst", "raises", factory="lost:Burst")

class Lost(Explainer):
    def attribute(self, model, images, targets):
        return images[:, 0]

    def transfer(self, model, images, toward):
        return images[..., 1:]

class Burst(Lost):
    def transfer(self, model, images, toward):
        raise ValueError("inside transfer")
"""

DICE = """
import torch
from xbench import Explainer, ExplainerSpec, hookimpl

@hookimpl
def xbench_explainers():
    yield ExplainerSpec("dice", "brighter or darker, nobody knows by how much", factory="dice:Dice")

class Dice(Explainer):
    def attribute(self, model, images, targets):
        return images[:, 0]

    def transfer(self, model, images, toward):
        amount = torch.rand(len(images), device=images.device) * (2 * toward - 1)
        return images + amount.view(-1, *[1] * (images.ndim - 1))
"""


class TestGallerySamples:
    def drawn(self, classes: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(classes)
        return rng.integers(classes, size=count), rng.dirichlet(np.ones(classes), count)

    @pytest.mark.parametrize("classes", [2, 3, 6])
    def test_as_many_of_each_class_from_surest_to_most_wrong(self, classes: int) -> None:
        labels, given = self.drawn(classes)
        chosen = gallery_samples(labels, given, 12)
        assert labels[chosen].tolist() == np.repeat(np.arange(classes), 12 // classes).tolist()
        for label in range(classes):
            of_class = given[labels == label, label]
            shown = given[chosen[labels[chosen] == label], label]
            assert shown[0] == of_class.max()
            assert shown[-1] == of_class.min()
            assert (np.diff(shown) < 0).all()

    @pytest.mark.parametrize("classes", [2, 3])
    def test_fewer_are_among_the_more(self, classes: int) -> None:
        labels, given = self.drawn(classes)
        more = gallery_samples(labels, given)
        assert len(set(more.tolist())) == len(more) == GALLERY
        for most in (6, 8, 12):
            assert set(gallery_samples(labels, given, most)) <= set(more)

    def test_a_rare_class_is_there_and_nothing_twice(self) -> None:
        labels = np.array([0] * 30 + [1])
        chosen = gallery_samples(labels, self.drawn(2, 31)[1], 8)
        assert labels[chosen].tolist() == [0, 0, 0, 0, 1]

    def test_more_classes_than_places(self) -> None:
        labels, given = self.drawn(40, 400)
        assert gallery_samples(labels, given, 8).shape == (8,)
        assert len(set(labels[gallery_samples(labels, given, 8)].tolist())) == 8


@pytest.mark.slow
def test_a_run_leaves_the_way_from_each_image_to_its_counterfactuals(
    tiny: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    words = ("--dataset", "fake:classes=3,channels=2,width=20", "--limit", "6", "--no-controls", "--out", "run")
    done = tiny("--explainer", "collapsed", *words, pictures=True)
    assert done.returncode == 0, done.stderr
    two, three = read_counterfactuals(tmp_path / "run")
    _check_two_classes(two)
    _check_three_classes(three)
    stem = tmp_path / "run" / "counterfactuals" / "fake--tiny-epochs-3--collapsed"
    assert all(stem.with_suffix(kind).stat().st_size > 1000 for kind in (".png", ".svg", ".npz"))
    model = read_header(tmp_path / "run" / "run.json").models[0]
    assert sum(model["calibration"]["count"]) == 6
    right = two.probabilities[:, 0, two.start].argmax(1) == two.labels
    assert model["metrics"]["accuracy"][0] == pytest.approx(right.mean())
    assert len(list((tmp_path / "run" / "models").glob("*calibration.svg"))) == 2


def _check_two_classes(found: Any) -> None:
    assert (found.dataset, found.model, found.explainer) == ("fake", "tiny:epochs=3", "collapsed")
    assert found.classes == ("disk", "ring")
    np.testing.assert_allclose(found.t, np.linspace(-1, 1, 9))
    images = found.images.astype(np.float64)
    assert images.shape == (6, 1, 32, 32)
    ends = np.clip(images - 0.2, 0, 1), np.clip(images + 0.2, 0, 1)
    for index, t in enumerate(found.t):
        expected = images + abs(t) * (ends[int(t > 0)] - images)
        np.testing.assert_allclose(found.frames[:, 0, index], expected, atol=2e-3)
    assert np.array_equal(found.frames[:, 0, found.start], found.images)
    np.testing.assert_allclose(found.relevance, images.mean(1), atol=1e-3)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, atol=1e-6)
    assert np.array_equal(found.targets, found.probabilities[:, 0, found.start].argmax(1))


def _check_three_classes(found: Any) -> None:
    assert found.frames.shape == (6, 3, 5, 2, 32, 20)
    np.testing.assert_allclose(found.t, np.linspace(0, 1, 5))
    images = found.images.astype(np.float64)
    for aim, change in enumerate((-0.2, 0.2, 0.6)):
        np.testing.assert_allclose(found.frames[:, aim, -1], np.clip(images + change, 0, 1), atol=2e-3)
        assert np.array_equal(found.frames[:, aim, 0], found.images)


@pytest.mark.slow
def test_strips_show_the_images_that_were_scored_sample_by_sample(
    tiny: Callable[..., CompletedProcess[str]], shelf: Shelf, tmp_path: Path
) -> None:
    """By an explainer that draws how far each image moves: the size of each change was observed."""
    shelf.install("dice", DICE)
    words = ("--explainer", "dice", "--metric", "classifier_shift", "--limit", "12", "--batch-size", "5")
    done = tiny(*words, "--no-controls", "--out", "run")
    assert done.returncode == 0, done.stderr
    (shown,) = read_counterfactuals(tmp_path / "run")
    cell, *others = read_observations(observations_path(tmp_path / "run", "classifier_shift"))
    scored = cell.observations["l1"]
    assert len(set(scored[:5, 0].round(6).tolist())) == 5
    assert all(np.array_equal(other.observations["l1"], scored) for other in others)
    places = [list(cell.ids).index(name) for name in shown.ids]
    assert len({place // 5 for place in places}) > 1
    for place, images, frames in zip(places, shown.images, shown.frames[:, 0], strict=True):
        for aim, end in enumerate((frames[0], frames[-1])):
            size = np.abs(end.astype(np.float64) - images).mean()
            assert size == pytest.approx(scored[place, aim], abs=2e-3)


@pytest.mark.slow
def test_an_explainer_that_fails_to_transfer_keeps_its_scores(
    tiny: Callable[..., CompletedProcess[str]], shelf: Shelf, tmp_path: Path
) -> None:
    shelf.install("lost", LOST)
    done = tiny("--explainer", "lost", "--explainer", "burst", "--no-controls", "--out", "run")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stderr.split())
    assert "lost (lost 1.0) gave counterfactual images of shape (12, 1, 32, 31), expected (12, 1, 32, 32)" in words
    assert "burst (lost 1.0) raised ValueError: inside transfer" in words
    assert {row.status for row in read_scores(tmp_path / "run" / "scores.csv")} == {"ok"}
    assert read_counterfactuals(tmp_path / "run") == []
