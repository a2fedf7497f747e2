"""Friedman's test and Nemenyi's critical difference: Demsar's tables, scipy, exact permutation."""

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from xbench.comparison import friedman, nemenyi


def test_critical_difference_of_demsars_table() -> None:
    """Table 5: q at 5 % for 2 to 10 classifiers."""
    table = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)
    for count, q in enumerate(table, start=2):
        assert nemenyi(count, 10) == pytest.approx(q * math.sqrt(count * (count + 1) / 60), abs=2e-3)
    assert nemenyi(5, 10) == pytest.approx(2.728 * math.sqrt(5 * 6 / (6 * 10)), abs=1e-3)


def test_demsars_example() -> None:
    """Table 6 of Demsar 2006: AUC of C4.5 and its variants on 14 datasets; chi-square 9.28, CD 1.25."""
    values = np.array(
        [
            [0.763, 0.768, 0.771, 0.798],
            [0.599, 0.591, 0.590, 0.569],
            [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657],
            [0.882, 0.888, 0.886, 0.898],
            [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685],
            [0.583, 0.583, 0.563, 0.625],
            [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000],
            [0.940, 0.962, 0.965, 0.962],
            [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.9751, 0.975],
            [0.957, 0.978, 0.946, 0.970],
        ]
    )
    found = friedman(("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"), values)
    assert dict(zip(found.explainers, found.average_ranks, strict=True)) == pytest.approx(
        {"C4.5+m+cf": 1.964, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5": 3.143}, abs=1e-3
    )
    correction = 1 - (3 * 6 + 60) / (14 * 60)  # three pairs and one four tie; the paper's 9.28 is without it
    assert found.statistic * correction == pytest.approx(9.28, abs=0.01)
    assert found.critical_difference == pytest.approx(1.25, abs=0.01)
    assert found.p_permutation == pytest.approx(found.p, abs=0.01)
    assert found.not_worse(0) == ("C4.5+m", "C4.5+cf", "C4.5")


def test_scipy_agrees() -> None:
    values = np.random.default_rng(0).normal(size=(12, 6))
    found = friedman(tuple("abcdef"), values)
    assert (found.statistic, found.p) == pytest.approx(tuple(friedmanchisquare(*values.T)))


def test_perfect_order_in_few_blocks() -> None:
    """Three blocks, three explainers, one order: 6 of the 6^3 permutations are as extreme, p = 1/36."""
    found = friedman(tuple("abc"), np.tile([3.0, 2.0, 1.0], (3, 1)))
    assert found.explainers == ("a", "b", "c")
    assert found.statistic == pytest.approx(6)
    assert found.p_permutation == pytest.approx(1 / 36, abs=0.006)


def test_ties_everywhere_and_two_explainers() -> None:
    same = friedman(tuple("abc"), np.ones((4, 3)))
    assert (same.statistic, same.p, same.p_permutation) == (0, 1, 1)
    assert math.isnan(friedman(tuple("ab"), np.eye(2)).statistic)
