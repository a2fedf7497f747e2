from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture
def maps(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("maps_by_device")


def test_maps_are_compared_by_the_worst_image(maps: ModuleType) -> None:
    one = np.random.default_rng(0).standard_normal((3, 8, 8), dtype=np.float32)
    seeds = torch.arange(3)
    same = {"difference": 0.0, "spearman": 1.0, "same_places": 1.0}
    assert maps.compared(one, one.copy(), seeds) == same
    other = one.copy()
    other[1, 0, 0] += 0.5 * np.abs(one[1]).max()
    assert maps.compared(one, other, seeds)["difference"] == pytest.approx(0.5)
    other[1] = -one[1]
    found = maps.compared(one, other, seeds)
    assert found["spearman"] == pytest.approx(-1)
    assert found["same_places"] < 0.1


def test_constant_maps_are_alike(maps: ModuleType) -> None:
    flat = np.ones((2, 4, 4), dtype=np.float32)
    assert maps.compared(flat, flat.copy(), torch.arange(2))["spearman"] == 1


def test_what_raises_is_named_and_what_does_not_fit_gives_its_reason(maps: ModuleType) -> None:
    given = maps.setting(16, 1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2)).eval().requires_grad_(False)
    models = {"cpu": model, "device": model}
    assert maps.row("gradient", "linear", models, given, "cpu")["difference"] == 0
    assert "error" in maps.row("gradient", "linear", models | {"device": torch.nn.Identity()}, given, "cpu")
    assert "refused" in maps.row("gradcam", "linear", models, given, "cpu")
