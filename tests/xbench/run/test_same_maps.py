"""Which maps are one method's under two names."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xbench.run import same_maps as likeness
from xbench.run.same_maps import TOLERANCE, same_maps


def _job(name: str, maps: np.ndarray, targets: np.ndarray | None = None) -> Any:
    info = SimpleNamespace(spatial=maps.shape[1:])
    targets = np.zeros(len(maps), dtype=np.int64) if targets is None else targets
    return SimpleNamespace(fingerprint=name, targets=targets, maps=lambda: maps, data=SimpleNamespace(info=info))


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((100, 6, 5)).astype(np.float32)


def test_a_factor_per_image_makes_no_other_method(maps: np.ndarray) -> None:
    scale = np.random.default_rng(1).uniform(1e-6, 1e6, (100, 1, 1)).astype(np.float32)
    assert same_maps([_job("a", maps), _job("b", maps * scale)]) == {"b": "a"}


def test_the_sign_does(maps: np.ndarray) -> None:
    assert same_maps([_job("a", maps), _job("b", -maps), _job("c", np.abs(maps))]) == {}


def test_one_image_that_differs_is_enough_wherever_it_stands(maps: np.ndarray) -> None:
    for place in (0, 5, 99):
        other = maps.copy()
        other[place, 0, 0] += 10 * TOLERANCE * np.linalg.norm(maps[place])
        assert same_maps([_job("a", maps), _job("b", other)]) == {}
    near = maps.copy()
    near[5, 0, 0] += 0.1 * TOLERANCE * np.linalg.norm(maps[5])
    assert same_maps([_job("a", maps), _job("b", near)]) == {"b": "a"}


def test_the_first_of_several_stands_for_all(maps: np.ndarray) -> None:
    other = maps[::-1].copy()
    jobs = [_job("a", maps), _job("x", other), _job("b", 2 * maps), _job("y", 3 * other), _job("c", 4 * maps)]
    assert same_maps(jobs) == {"b": "a", "c": "a", "y": "x"}


def test_maps_for_other_targets_are_never_compared(maps: np.ndarray) -> None:
    assert same_maps([_job("a", maps), _job("b", maps, np.ones(100, dtype=np.int64))]) == {}


def test_empty_maps_are_like_empty_maps_only(maps: np.ndarray) -> None:
    zero = np.zeros_like(maps)
    assert same_maps([_job("zero", zero), _job("a", maps), _job("nothing", zero)]) == {"nothing": "zero"}


def test_nearly_flat_maps_are_told_apart_by_what_differs(maps: np.ndarray) -> None:
    flat, others = 1 + 1e-3 * maps, 1 + 1e-3 * maps[::-1]
    assert same_maps([_job("a", flat), _job("b", others.copy())]) == {}
    assert same_maps([_job("a", flat), _job("b", 3 * flat)]) == {"b": "a"}


def test_only_candidates_are_read_to_the_end(maps: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    plain = likeness._normalised
    monkeypatch.setattr(
        likeness,
        "_normalised",
        lambda job, start, stop: read.append((job.fingerprint, start)) or plain(job, start, stop),
    )
    same_maps([_job("a", maps), _job("b", maps[::-1].copy())])
    assert read == [("a", 0), ("b", 0)]
