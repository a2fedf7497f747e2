"""Fidelity under other conventions: probabilities and scores instead of accuracy, one curve instead of two."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Case, DatasetInfo, Session, Split
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case
from xbench_metrics.fidelity.fidelity import Fidelity
from xbench_metrics.fidelity.options import FidelityOptions

INFO = DatasetInfo("toy", ("a", "b", "c"), 1, (8, 8))


def case_of(module: nn.Module, maps: np.ndarray, tmp_path: Path, batch_size: int = 32, **replaced: Any) -> Case:
    """Noise images of two classes in turn."""
    images = rng(0, "images").random((len(maps), 1, 8, 8), dtype=np.float32)
    ids = [f"sample-{index}" for index in range(len(maps))]
    split = Split.from_arrays(images, np.arange(len(maps)) % 2, ids, ids)
    return fake_case(INFO, split, module, maps.astype(np.float32), Session(tmp_path, batch_size=batch_size), **replaced)


def test_probabilities_and_scores_of_the_explained_class_step_by_step(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval().requires_grad_(False)
    maps = rng(6, "maps").random((7, 8, 8)).astype(np.float32)
    targets = np.array([0, 1, 2, 0, 1, 2, 0])
    case = case_of(network, maps, tmp_path, batch_size=3, targets=targets)
    found = {}
    for score in ("logit", "probability"):
        metric = Fidelity(FidelityOptions(score=score, step=0.25, removal="zero"))
        found[score] = metric.observe(dataclasses.replace(case, prepared=metric.prepare(case)))
    pixels = case.split.batch(range(7)).images.flatten(1)
    for index in range(7):
        order = np.argsort(-maps[index].ravel())
        for name, removed in (("mif", order), ("lif", order[::-1])):
            for step in range(5):
                image = pixels[index].clone()
                image[torch.from_numpy(removed[: 16 * step].copy())] = 0
                logits = network(image.view(1, 1, 8, 8))[0]
                assert found["logit"][name][index, step] == pytest.approx(float(logits[targets[index]]), abs=1e-5)
                chance = float(logits.softmax(0)[targets[index]])
                assert found["probability"][name][index, step] == pytest.approx(chance, abs=1e-6)


@pytest.mark.parametrize("score", ["accuracy", "logit"])
def test_one_curve_alone(tmp_path: Path, score: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval().requires_grad_(False)
    case = case_of(network, rng(7, "maps").random((9, 8, 8)), tmp_path)
    areas = {}
    for curve in ("difference", "mif", "lif"):
        metric = Fidelity(FidelityOptions(score=score, curve=curve))
        seen = metric.observe(dataclasses.replace(case, prepared=metric.prepare(case)))
        areas[curve] = seen["fidelity"]
    ends = seen["mif"][:, 0].astype(float) - seen["lif"][:, -1]
    np.testing.assert_allclose(areas["mif"] + areas["lif"] - areas["difference"], ends, atol=1e-5)
    np.testing.assert_allclose(areas["mif"], seen["mif"][:, 0] - np.trapezoid(seen["mif"].astype(float), dx=1 / 40))


def test_other_conventions_are_other_cards() -> None:
    info = DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    cards = [
        Fidelity(FidelityOptions(**options)).card(info)
        for options in ({}, {"score": "logit"}, {"score": "probability"}, {"curve": "mif"}, {"curve": "lif"})
    ]
    assert len({str(card) for card in cards}) == len(cards)
