"""Class sensitivity: closed forms of linear networks."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from xbench import Batch, Case, DatasetInfo, Session, Split
from xbench.compute.passes import gradients
from xbench.testing import parametrize_with_checks
from xbench.testing.fakes import fake_case
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_metrics import xbench_metrics
from xbench_metrics.checks.class_sensitivity import ClassSensitivity
from xbench_metrics.checks.options import ClassSensitivityOptions

SPECS = {spec.name: spec for spec in xbench_metrics()}


@parametrize_with_checks([SPECS["class_sensitivity"]])
def test_conforms(check: Callable[..., None]) -> None:
    check()


class Explaining:
    """Gradient maps, absolute or not; or the image itself."""

    def __init__(self, model: nn.Module, of: Callable[..., torch.Tensor]) -> None:
        self.model, self._of = model, of

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        return self._of(gradients(model or self.model, batch.images, targets).sum(1), batch.images.sum(1))


def observed(
    tmp_path: Path, model: nn.Module, classes: int, of: Callable[..., torch.Tensor], **options: Any
) -> tuple[Case, dict[str, np.ndarray], float]:
    images = np.random.default_rng(0).random((9, 1, 10, 12), dtype=np.float32)
    names = [str(index) for index in range(9)]
    split = Split.from_arrays(images, np.arange(9) % classes, names, names)
    info, explanation = DatasetInfo("toy", tuple("abc"[:classes]), 1, (10, 12)), Explaining(model.eval(), of)
    session = Session(tmp_path, batch_size=4)
    case = fake_case(info, split, model, np.zeros((9, 10, 12), np.float32), session, explanation=explanation)
    maps = explanation.maps(split.batch(range(9)), torch.from_numpy(case.targets))
    metric = ClassSensitivity(ClassSensitivityOptions(**options))
    case = dataclasses.replace(case, maps=maps.numpy())
    seen = metric.observe(case)
    return case, seen, metric.summarise(seen)


def test_one_neuron_speaks_for_one_class_as_it_speaks_against_the_other(tmp_path: Path) -> None:
    model = ConvNetwork(1, 1)
    assert observed(tmp_path, model, 2, lambda maps, _: maps)[2] == pytest.approx(2)
    assert observed(tmp_path, model, 2, lambda maps, _: maps.abs())[2] == pytest.approx(0, abs=1e-9)


def test_a_map_that_ignores_the_class_has_zero(tmp_path: Path) -> None:
    assert observed(tmp_path, ConvNetwork(1, 2), 2, lambda _, images: images)[2] == pytest.approx(0, abs=1e-9)


def test_a_linear_networks_maps_are_its_weights_and_the_other_class_is_the_runner_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LinearNetwork(1, (10, 12), 3)
    case, seen, value = observed(tmp_path, model, 3, lambda maps, _: maps, limit=None)
    weights, runners = model.linear.weight.detach().numpy(), []
    for target, other, logits in zip(case.targets, seen["other"], case.logits, strict=True):
        assert logits[other] == max(np.delete(logits, target))
        runners.append(spearmanr(weights[target], weights[other]).statistic)
    np.testing.assert_allclose(seen["spearman"], runners, atol=1e-9)
    assert value == pytest.approx(1 - np.mean(runners))


def test_images_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    _, seen, value = observed(tmp_path, ConvNetwork(1, 3), 3, lambda maps, _: maps, limit=4)
    assert np.isfinite(seen["spearman"]).sum() == 4
    assert (seen["other"] >= 0).sum() == 4
    assert np.isfinite(value)
