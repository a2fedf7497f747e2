"""CycleGAN activation maximization: how the generators are judged, and what is made of their images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xbench import Session, Split
from xbench.runtime.seeding import rng
from xbench_cyclegan_am.losses import Dssim
from xbench_cyclegan_am.relevance import relevance
from xbench_cyclegan_am.validation import Trial, blurred, distrust, figures


class BrighterCorner(nn.Module):
    """Two logits: which of two corners is brighter, and how sure."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corners = [images[..., 4 * k : 4 * k + 4, :4].flatten(1).mean(1) for k in (0, 1)]
        return 20 * torch.stack(corners, 1)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path, batch_size=3)


def noise_split(count: int = 8, size: int = 16, channels: int = 1, classes: int = 2) -> Split:
    images = rng(0, "noise").random((count, channels, size, size), dtype="float32")
    ids = [str(index) for index in range(count)]
    return Split.from_arrays(images, torch.arange(count).numpy() % classes, ids, ids)


class Paint(nn.Module):
    """Paints the corner of a class and blackens the other's."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        changed = images.clone()
        for k in (0, 1):
            changed[..., 4 * k : 4 * k + 4, :4] = float(k == self.k)
        return changed


def test_figures_of_identity_and_of_oracle(session: Session) -> None:
    split = noise_split()
    found = figures(Trial([nn.Identity(), nn.Identity()], BrighterCorner(), Dssim()), split, session)
    expected = {"shift": 0, "smoothed_shift": 0, "cycle_l1": 0, "similarity": 0, "ssim": 1, "variety_0": 1}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    found = figures(Trial([Paint(0), Paint(1)], BrighterCorner(), Dssim()), split, session)
    assert found["shift"] > 0.99
    assert found["smoothed_shift"] > 0.99
    assert found["toward_1"] > 0.99
    images = split.batch(range(8)).images
    assert found["variety_0"] == pytest.approx(float(Paint(0)(images).var(0).mean() / images.var(0).mean()), rel=1e-4)


def test_blur_keeps_the_mean_and_spreads_a_point() -> None:
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 1
    spread = blurred(point)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-6)
    assert float(spread.max()) == pytest.approx(0.16, abs=0.005)  # 1 / (2 pi)


class Pattern(nn.Module):
    """A checkerboard that only this classifier sees: what an adversarial generator would add."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
        self.board = strength * (board.float() - 0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.board


class SeesPattern(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        signal = 100 * (images * Pattern(1.0).board).flatten(1).mean(1)
        return torch.stack([-signal, signal], 1)


def test_an_adversarial_pattern_does_not_survive_the_smoothed_classifier(session: Session) -> None:
    smooth = torch.full((6, 1, 16, 16), 0.5) + 0.1 * torch.rand(6, 1, 1, 1)
    split = Split.from_arrays(smooth.numpy(), torch.arange(6).numpy() % 2, list("abcdef"), list("abcdef"))
    found = figures(Trial([Pattern(-0.3), Pattern(0.3)], SeesPattern(), Dssim()), split, session)
    assert found["shift"] > 0.99
    assert found["smoothed_shift"] < 0.75 * found["shift"]


GOOD = {
    "shift": 0.9,
    "smoothed_shift": 0.8,
    "toward_0": 0.9,
    "toward_1": 0.95,
    "variety_0": 0.9,
    "variety_1": 1.1,
    "ssim": 0.9,
    "cycle_l1": 0.02,
}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, ""),
        ({"toward_0": 0.55}, "toward class 0 it hardly moves"),
        ({"variety_1": 0.01}, "toward class 1 images become alike"),
        ({"smoothed_shift": 0.1}, "adversarial"),
        ({"ssim": 0.2}, "beyond recognition"),
        ({"cycle_l1": 0.3}, "no way back"),
    ],
)
def test_what_is_not_to_be_trusted(wrong: dict[str, Any], words: str) -> None:
    found = distrust(GOOD | wrong, [0.5, 0.5])
    assert words in found
    assert bool(found) == bool(words)


def test_a_classifier_that_is_sure_already_leaves_little_to_gain() -> None:
    assert not distrust(GOOD | {"toward_0": 0.999}, [0.99, 0.01])


def test_relevance_is_the_difference_of_the_two_and_the_sum_of_its_parts() -> None:
    images, changed = torch.rand(4, 2, 5, 6), [torch.rand(4, 2, 5, 6) for _ in range(2)]
    ones, zeros = torch.ones(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    r = (changed[1] - changed[0]).sum(1)
    torch.testing.assert_close(relevance(images, changed, ones), r)
    torch.testing.assert_close(relevance(images, changed, zeros), -r)
    changed.append(torch.rand(4, 2, 5, 6))
    targets = torch.tensor([0, 1, 2, 1])
    parts = [relevance(images, changed, targets, variant) for variant in ("toward", "counterfactual")]
    torch.testing.assert_close(sum(parts), relevance(images, changed, targets))
    torch.testing.assert_close(parts[0][2], (changed[2][2] - images[2]).sum(0))
    torch.testing.assert_close(parts[1][2], (images[2] - (changed[0][2] + changed[1][2]) / 2).sum(0))
    torch.testing.assert_close(relevance(images, [images] * 3, targets), torch.zeros(4, 5, 6), atol=1e-6, rtol=0)
    assert not relevance(images, [images] * 2, ones).any()
