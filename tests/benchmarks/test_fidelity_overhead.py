from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from xbench import DatasetInfo, Session


@pytest.fixture
def overhead(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("fidelity_overhead")


class Counted:
    """Logits of noise, and how many images were asked for."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return torch.stack([images.flatten(1).mean(1), images.flatten(1).amax(1)], 1)


def test_every_repeat_makes_all_the_passes_it_is_timed_for(overhead: ModuleType, tmp_path: Path) -> None:
    info, score = DatasetInfo("noise", ("a", "b"), 1, (8, 8)), Counted()
    case, images = overhead.noise_case(score, info, 3, Session(tmp_path, batch_size=2))
    assert images.shape == (3, 1, 8, 8)
    seen = []
    for _ in range(3):
        before = score.images
        overhead.observe(case)
        seen.append(score.images - before)
    assert seen == 3 * [overhead.needed(3)]


def test_bare_passes_are_as_many(overhead: ModuleType) -> None:
    score = Counted()
    score.batch_size = 4
    overhead.bare_passes(score, torch.rand(3, 1, 8, 8), 11)
    assert score.images == 11
