import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xbench import DatasetInfo, Session, Split
from xbench.compute.scorer import Scorer, ScoringRecipe, calibrate
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.runtime.devices import float32
from xbench.testing.fakes import FakeDataset, FakeOptions, TinyModel, TinyOptions, fake_case

ROOM = 5


@pytest.fixture
def data(tmp_path: Path) -> tuple[DatasetInfo, Split]:
    dataset = FakeDataset(FakeOptions(test=32))
    dataset.prepare(tmp_path, Session(tmp_path))
    return dataset.info, dataset.open("test", tmp_path)


class Greedy(nn.Module):
    """Asks for more memory than any device has, where a batch has more than `ROOM` images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > ROOM:
            torch.empty(2**50, device=x.device)
        return x.flatten(1)[:, :2]


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("model", ["convnet", "timm:resnet18"])
def test_a_folded_copy_is_accepted(model: str, precision: str, data: tuple[DatasetInfo, Split], device: str) -> None:
    info, split = data
    module = choose("model", model, discover()).create().build(info).to(device).eval().requires_grad_(False)
    with float32("32"):
        recipe = calibrate(module, split.batch(range(8)).images, device, precision)
    assert recipe.folded


def test_the_logits_are_the_cpus(data: tuple[DatasetInfo, Split], device: str) -> None:
    info, split = data
    module = choose("model", "convnet", discover()).create().build(info).eval().requires_grad_(False)
    images = split.batch(range(len(split))).images
    with float32("32"):
        recipe = calibrate(module, images, device, "32")
        logits = Scorer(module, recipe, device)(images.to(device)).cpu()
    assert torch.allclose(logits, module(images), rtol=1e-4, atol=1e-5)


def test_batches_are_halved_when_the_devices_memory_runs_out(device: str) -> None:
    recipe = ScoringRecipe(32, folded=False, channels_last=False, precision="32", max_difference=0.0, milliseconds=1.0)
    scorer, images = Scorer(Greedy(), recipe, device), torch.rand(37, 1, 8, 8, device=device)
    assert torch.equal(scorer(images), images.flatten(1)[:, :2])
    assert scorer.batch_size == 4


def test_fidelity_makes_the_host_wait_at_most_twice_a_batch(
    data: tuple[DatasetInfo, Split], tmp_path: Path, device: str
) -> None:
    info, split = data
    module = TinyModel(TinyOptions()).build(info).to(device).eval()
    maps = np.random.default_rng(0).standard_normal((len(split), *info.spatial), dtype=np.float32)
    size = 8
    session = Session(tmp_path, device, batch_size=size)
    recipe = ScoringRecipe(
        size, folded=False, channels_last=False, precision="32", max_difference=0.0, milliseconds=1.0
    )
    score = Scorer(module, recipe, device)
    case = fake_case(info, split, module, maps, session, logits_of=score)
    metric = choose("metric", "fidelity", discover()).create()
    case = fake_case(info, split, module, maps, session, logits_of=score, prepared=metric.prepare(case))
    choose("metric", "fidelity", discover()).create().observe(case)  # what torch sets up once is not counted
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz"):
            torch.ones(1, device=device).item()  # which is one, and said so
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            metric.observe(case)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(one.message) for one in heard if "synchroniz" in str(one.message)]
    assert len(waits) <= 2 * len(split) // size
