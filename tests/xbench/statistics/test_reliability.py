"""Calibration: closed forms, and the figures of torchmetrics and scikit-learn."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from xbench.runtime.seeding import rng
from xbench.statistics.reliability import calibration
from xbench.statistics.resampling import interval, resamples


def drawn(classes: int, count: int = 200) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels and over-confident probabilities of a classifier that is sometimes right."""
    draw = rng(classes, "calibration")
    labels = draw.integers(classes, size=count)
    given = draw.dirichlet(np.ones(classes), count) + 0.7 * np.eye(classes)[labels] * draw.integers(2, size=(count, 1))
    return labels, given / given.sum(1, keepdims=True), [str(name) for name in draw.integers(90, size=count)]


def two(positive: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.stack([1 - np.asarray(positive), positive], 1)


class TestClosedForms:
    def test_a_sure_and_right_classifier(self) -> None:
        found = calibration(np.array([0, 1, 1]), two([0.0, 1.0, 1.0]), list("abc"), count=50)
        assert found.expected_calibration_error == found.brier_score == (0, 0, 0, 0)
        assert found.count.tolist() == [0] * 14 + [3]
        assert found.accuracy[-1] == found.confidence[-1] == 1
        assert np.isnan(found.accuracy[:-1]).all()
        assert np.isnan(found.confidence[:-1]).all()

    def test_a_sure_and_wrong_one(self) -> None:
        for classes, brier in ((2, 1), (3, 2)):
            found = calibration(np.array([0, 0]), np.eye(classes)[[1, 1]], list("ab"), count=20)
            assert found.expected_calibration_error[:3] == (1, 1, 1)
            assert found.brier_score[:3] == (brier, brier, brier)

    def test_right_as_often_as_it_says_is_no_error(self) -> None:
        labels = np.repeat([1, 0], [4, 1])
        found = calibration(labels, two([0.8] * 5), [str(index) for index in range(5)], count=10)
        assert found.expected_calibration_error.value == pytest.approx(0)
        assert found.brier_score.value == pytest.approx(0.8 * 0.2)

    def test_each_bin_counts_by_its_share(self) -> None:
        """Three of confidence 0.9, of which two right, and one of 0.6, which is right: 3/4 x .2333 + 1/4 x .4."""
        found = calibration(np.array([1, 1, 0, 0]), two([0.9, 0.9, 0.9, 0.4]), list("abcd"), count=10)
        assert found.expected_calibration_error.value == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.4)
        filled = found.count > 0
        assert found.count[filled].tolist() == [1, 3]
        np.testing.assert_allclose(found.confidence[filled], [0.6, 0.9])
        np.testing.assert_allclose(found.accuracy[filled], [1, 2 / 3])

    def test_a_bin_holds_its_right_edge(self) -> None:
        found = calibration(np.array([0, 0, 1]), two([0.5, 0.25, 0.75]), list("abc"), count=5, bins=4)
        assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert found.count.tolist() == [0, 1, 2, 0]

    def test_patients_are_resampled(self) -> None:
        labels, given, groups = drawn(2)
        found = calibration(labels, given, groups, seed=4, count=60)
        alone = [
            calibration(labels[rows], given[rows], ["one"] * len(rows), count=1) for rows in resamples(groups, 60, 4)
        ]
        for name in ("expected_calibration_error", "brier_score"):
            expected = interval(np.array([getattr(one, name).value for one in alone]))
            assert getattr(found, name)[1:3] == pytest.approx(expected, abs=1e-12)


class TestAgreement:
    @pytest.mark.parametrize("classes", [2, 3, 6])
    @pytest.mark.parametrize("bins", [10, 15])
    def test_torchmetrics(self, classes: int, bins: int) -> None:
        labels, given, groups = drawn(classes)
        expected = multiclass_calibration_error(
            torch.from_numpy(given), torch.from_numpy(labels), num_classes=classes, n_bins=bins, norm="l1"
        )
        found = calibration(labels, given, groups, count=1, bins=bins)
        assert found.expected_calibration_error.value == pytest.approx(float(expected), abs=1e-6)

    @pytest.mark.parametrize("classes", [2, 3])
    def test_scikit_learn(self, classes: int) -> None:
        labels, given, groups = drawn(classes)
        found = calibration(labels, given, groups, count=1)
        right, sure = calibration_curve(given.argmax(1) == labels, given.max(1), n_bins=15)
        filled = found.count > 0
        np.testing.assert_allclose(found.accuracy[filled], right)
        np.testing.assert_allclose(found.confidence[filled], sure)
        expected = brier_score_loss(labels, given[:, 1] if classes == 2 else given)
        assert found.brier_score.value == pytest.approx(expected)


def test_refuses_what_are_no_predictions() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        calibration(np.array([0, 1]), np.full((2, 1), 0.5), list("ab"))
