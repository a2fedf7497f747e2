"""Classifier shift: closed forms, t tests held against scipy, other judges."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn

from xbench import Case, DatasetInfo, PluginError, Session, Split
from xbench.runtime.seeding import rng
from xbench.testing import default_scenarios, metric_checks
from xbench.testing.fakes import fake_case
from xbench_metrics.options import ShiftOptions
from xbench_metrics.shift import ClassifierShift, shift_report


class Brightness(nn.Module):
    """One logit: how bright the upper left corner is."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * (images[..., :4, :4].flatten(1).mean(1, keepdim=True) - 0.5)


class BrightestCorner(nn.Module):
    """Three logits: how bright each of three corners is."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corners = images[..., :4, :4], images[..., :4, -4:], images[..., -4:, :4]
        return 20 * torch.stack([corner.flatten(1).mean(1) for corner in corners], 1)


class Patch:
    """Adds a bright patch for class 1, takes it away for class 0; `strength` 1 is an oracle, 0 the identity."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def transfer(self, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        aim = toward.float()[:, None, None, None].expand(-1, images.shape[1], 4, 4)
        moved = images.clone()
        moved[..., :4, :4] += self.strength * (aim - moved[..., :4, :4])
        return moved


class Corners:
    """Lights the corner of the class and darkens the others."""

    def transfer(self, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        moved = images.clone()
        places = (slice(None, 4), slice(None, 4)), (slice(None, 4), slice(-4, None)), (slice(-4, None), slice(None, 4))
        for index, (rows, columns) in enumerate(places):
            moved[:, :, rows, columns] = (toward == index).float()[:, None, None, None]
        return moved


def case_of(
    tmp_path: Path,
    explanation: Any,
    module: nn.Module | None = None,
    n: int = 13,
    classes: int = 2,
    channels: int = 1,
    spatial: tuple[int, ...] = (16, 14),
    batch_size: int = 5,
) -> Case:
    images = rng(0, "images").random((n, channels, *spatial), dtype=np.float32)
    ids = [f"sample-{index}" for index in range(n)]
    split = Split.from_arrays(images, np.arange(n) % classes, ids, [f"patient-{index // 2}" for index in range(n)])
    info = DatasetInfo("toy", tuple("abc"[:classes]), channels, spatial)
    maps = np.zeros((n, *spatial), dtype=np.float32)
    session = Session(tmp_path, batch_size=batch_size)
    return fake_case(info, split, module or Brightness(), maps, session, explanation=explanation)


def observed(case: Case) -> tuple[Any, dict[str, np.ndarray]]:
    metric = ClassifierShift()
    return metric, metric.observe(case)


def test_the_identity_shifts_nothing(tmp_path: Path) -> None:
    metric, seen = observed(case_of(tmp_path, Patch(0.0)))
    assert metric.summarise(seen) == pytest.approx(0, abs=1e-15)
    assert not seen["l1"].any()
    np.testing.assert_allclose(seen["dssim"], 0, atol=1e-12)
    for name in ("plus", "minus"):
        row = shift_report(seen)[name]
        assert (row["t"], row["p"], row["d_z"], row["df"], row["flipped"]) == (0, 1, 0, 12, 0)


def test_an_oracle_shifts_everything(tmp_path: Path) -> None:
    metric, seen = observed(case_of(tmp_path, Patch(1.0)))
    assert metric.summarise(seen) == pytest.approx(1, abs=1e-4)
    report = shift_report(seen)
    assert report["plus"]["mean"] == pytest.approx(1, abs=1e-4)
    assert report["minus"]["mean"] == pytest.approx(0, abs=1e-4)
    assert report["plus"]["flipped"] == report["minus"]["flipped"] == 1
    assert report["plus"]["t"] > 0 > report["minus"]["t"]


def test_a_transfer_the_wrong_way_round_has_the_negative_value(tmp_path: Path) -> None:
    class Reversed(Patch):
        def transfer(self, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
            return super().transfer(images, 1 - toward)

    values = [
        metric.summarise(seen) for metric, seen in (observed(case_of(tmp_path, t(0.3))) for t in (Patch, Reversed))
    ]
    assert values[0] > 0
    assert values[1] == pytest.approx(-values[0], abs=1e-12)


def test_two_classes_are_the_difference_of_the_two_means(tmp_path: Path) -> None:
    case = case_of(tmp_path, Patch(0.4), channels=2)
    metric, seen = observed(case)
    images = case.split.batch(range(13)).images
    after = {
        sign: torch.sigmoid(Brightness()(Patch(0.4).transfer(images, torch.full((13,), sign)))).flatten().numpy()
        for sign in (0, 1)
    }
    assert metric.summarise(seen) == pytest.approx(after[1].mean() - after[0].mean(), abs=1e-6)
    np.testing.assert_allclose(seen["toward"][:, 1, 1], after[1], atol=1e-6)
    np.testing.assert_allclose(seen["toward"][:, 0, 1], after[0], atol=1e-6)
    np.testing.assert_allclose(seen["toward"].sum(2), 1)
    change = (Patch(0.4).transfer(images, torch.ones(13)) - images).abs().mean((1, 2, 3))
    np.testing.assert_allclose(seen["l1"][:, 1], change, atol=1e-6)


def test_three_classes(tmp_path: Path) -> None:
    case = case_of(tmp_path, Corners(), BrightestCorner(), classes=3)
    metric, seen = observed(case)
    assert metric.summarise(seen) == pytest.approx(1, abs=1e-6)
    report = shift_report(seen)
    assert set(report) == {f"{name} {index}" for name in ("original", "toward") for index in range(3)}
    for index in range(3):
        assert report[f"toward {index}"]["mean"] == pytest.approx(1, abs=1e-6)
        assert report[f"toward {index}"]["flipped"] == 1
    metric, seen = observed(case_of(tmp_path, Patch(0.0), BrightestCorner(), classes=3))
    assert metric.summarise(seen) == pytest.approx(0, abs=1e-12)


def test_flips_count_only_what_could_flip(tmp_path: Path) -> None:
    _, seen = observed(case_of(tmp_path, Patch(0.2)))
    already = seen["original"][:, 1] >= 0.5
    assert 0 < already.sum() < len(already)
    np.testing.assert_array_equal(np.isnan(seen["flipped"][:, 1]), already)
    np.testing.assert_array_equal(np.isnan(seen["flipped"][:, 0]), ~already)
    could = ~already
    np.testing.assert_array_equal(seen["flipped"][could, 1], seen["toward"][could, 1, 1] > 0.5)


def test_t_tests_agree_with_scipy(tmp_path: Path) -> None:
    _, seen = observed(case_of(tmp_path, Patch(0.3)))
    report = shift_report(seen)
    for name, aim in (("plus", 1), ("minus", 0)):
        after, before = seen["toward"][:, aim, 1], seen["original"][:, 1]
        expected = ttest_rel(after, before)
        assert report[name]["t"] == pytest.approx(expected.statistic, rel=1e-9)
        assert report[name]["p"] == pytest.approx(expected.pvalue, rel=1e-9)
        assert report[name]["df"] == expected.df == 12
        difference = after - before
        assert report[name]["d_z"] == pytest.approx(difference.mean() / difference.std(ddof=1), rel=1e-9)


def table(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Observations of two classes with these probabilities of class 1, the same after both transfers."""
    both = np.stack([1 - after, after], 1)
    nothing = np.zeros((len(before), 2))
    return {
        "original": np.stack([1 - before, before], 1),
        "toward": np.stack([both, both], 1),
        **dict.fromkeys(("flipped", "l1", "dssim"), nothing),
    }


def test_equal_differences_have_no_spread() -> None:
    before = np.full(6, 0.25)
    row = shift_report(table(before, before + 0.5))["plus"]
    assert (row["t"], row["d_z"], row["p"]) == (math.inf, math.inf, 0)
    row = shift_report(table(before, before - 0.125))["minus"]
    assert (row["t"], row["d_z"], row["p"]) == (-math.inf, -math.inf, 0)
    assert math.isnan(shift_report(table(before[:1], before[:1]))["plus"]["t"])


def test_intervals_are_resampled_by_patient() -> None:
    draw = rng(0, "probabilities")
    before, groups = np.repeat(draw.random(20), 5), np.repeat(np.arange(20), 5).astype(str)
    seen = table(before, before**2)
    of_samples, of_patients = shift_report(seen)["original"], shift_report(seen, groups)["original"]  # type: ignore[arg-type]
    assert of_samples["mean"] == of_patients["mean"] == pytest.approx(before.mean())
    # Five equal samples a patient: the standard error is sqrt(5) times as large.
    ratio = (of_patients["high"] - of_patients["low"]) / (of_samples["high"] - of_samples["low"])
    assert ratio == pytest.approx(math.sqrt(5), rel=0.15)


def test_without_an_explainer_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no explainer"):
        ClassifierShift().observe(case_of(tmp_path, None))


class Given:
    """A metric under check whose case brings an explainer."""

    def __init__(self, metric: Any, explanation: Any) -> None:
        class Bound(metric):
            def observe(self, case: Case) -> dict[str, np.ndarray]:
                return super().observe(dataclasses.replace(case, explanation=explanation))

        self.metric = Bound


@pytest.mark.parametrize("check", [pytest.param(run, id=name) for name, run in metric_checks(default_scenarios())])
def test_shift_conforms(check: Callable[..., None]) -> None:
    check(Given(ClassifierShift, Patch(0.5)).metric)


# --- other judges -----------------------------------------------------------------------------------------------------


class Checkerboard(nn.Module):
    """Two logits from a pattern of single pixels that means nothing: what an attack would find."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        signal = 60 * (images * _board(images)).flatten(1).mean(1)
        return torch.stack([-signal, signal], 1)


def _board(images: torch.Tensor) -> torch.Tensor:
    rows, columns = (torch.arange(side) for side in images.shape[-2:])
    return 2.0 * ((rows[:, None] + columns) % 2) - 1


class Attack:
    def transfer(self, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        return images + 0.1 * (2 * toward.float() - 1)[:, None, None, None] * _board(images)


def judged(case: Case, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    metric = ClassifierShift(ShiftOptions(**options))
    return metric, metric.observe(dataclasses.replace(case, prepared=metric.prepare(case)))


def test_an_attack_does_not_survive_a_blur(tmp_path: Path) -> None:
    case = case_of(tmp_path, Attack(), Checkerboard())
    values = {
        sigma: metric.summarise(seen)
        for sigma, (metric, seen) in ((sigma, judged(case, blur=sigma)) for sigma in (0, 1))
    }
    assert values[0] > 0.99
    assert values[1] < 0.2


def test_the_original_is_blurred_alike_and_gets_the_same_noise(tmp_path: Path) -> None:
    case = case_of(tmp_path, Patch(0.0))
    metric, seen = judged(case, blur=1.5, noise=0.3)
    np.testing.assert_allclose(seen["toward"][:, 0], seen["original"], atol=1e-6)
    assert metric.summarise(seen) == pytest.approx(0, abs=1e-6)
    plain = judged(case)[1]
    assert np.abs(seen["original"] - plain["original"]).max() > 0.01
    assert not seen["l1"].any()


def test_noise_is_an_images_own(tmp_path: Path) -> None:
    alone, together = (judged(case_of(tmp_path, Patch(0.4), batch_size=size), noise=0.2)[1] for size in (1, 5))
    np.testing.assert_allclose(alone["toward"], together["toward"], atol=1e-6)


def test_another_judge_learns_the_classes_and_does_not_fall_for_an_attack(tmp_path: Path) -> None:
    images = rng(0, "judged").random((48, 1, 16, 14), dtype=np.float32) * 0.5
    labels = np.arange(48) % 2
    images[labels == 1, :, :4, :4] += 0.5
    ids = [str(index) for index in range(48)]
    training = Split.from_arrays(images, labels, ids, [str(index // 2 % 12) for index in range(48)])
    values = {}
    for name, explanation, module in (("real", Patch(1.0), Brightness()), ("attack", Attack(), Checkerboard())):
        case = dataclasses.replace(case_of(tmp_path, explanation, module), training=training)
        for judge in ("explained", "tiny"):
            metric, seen = judged(case, judge=judge, epochs=25)
            values[name, judge] = metric.summarise(seen)
        assert set(metric.prepare(dataclasses.replace(case, training=training))) > {"judge.head.weight"}
    assert values["real", "explained"] > 0.99
    assert values["attack", "explained"] > 0.99
    assert values["real", "tiny"] > 0.7
    assert abs(values["attack", "tiny"]) < 0.3


def test_a_judge_that_can_not_be_is_refused_before_the_run() -> None:
    info = DatasetInfo("toy", ("a", "b"), 1, (32, 32))
    assert ClassifierShift().supports(info) is None
    assert ClassifierShift(ShiftOptions(judge="timm:resnet18")).supports(info) is None
    assert "did you mean" in ClassifierShift(ShiftOptions(judge="timm:resnet1000")).supports(info)
    with pytest.raises(ValueError, match="judge"):
        ShiftOptions(judge="convnet")
