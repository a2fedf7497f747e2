"""Every explainer on the GPU against the CPU."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from xbench import DatasetInfo, MapTransform, Session, Split
from xbench.compute.passes import unchanging
from xbench.registry.discovery import discover
from xbench.registry.references import Choice, choose
from xbench.runtime.devices import float32
from xbench.runtime.randomness import generator

SIDE, IMAGES = 32, 2
SMALL = {
    **{"epochs": 1, "train_batch": 4, "preset": "tiny", "samples": 8, "masks": 16, "background": 4, "pool": 8},
    **{"steps": 4, "iterations": 2},
}
INFO = DatasetInfo("noise", ("a", "b"), 1, (SIDE, SIDE), has_masks=True)


def names() -> list[str]:
    entries = [entry for entry in discover().of_kind("explainer") if entry.distribution == "xbench"]
    # CAM fits neither network, and has a test of its own.
    fitting = [one.spec for one in entries if one.spec.name != "cam"]
    return [f"{spec.name}:gradient" if spec.argument == "explainer" else spec.name for spec in fitting]


@pytest.fixture(scope="module")
def split() -> Split:
    images = torch.rand(16, 1, SIDE, SIDE, generator=generator(0, "images")).numpy()
    masks = images[:, 0] > 0.5
    words = [str(index) for index in range(len(images))]
    return Split.from_arrays(images, torch.arange(len(images)).numpy() % 2, words, words, masks)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return choose("model", name, discover()).create().build(INFO).eval().requires_grad_(False)


def small(reference: str) -> Choice:
    choice = choose("explainer", reference, discover())
    given = {key: value for key, value in SMALL.items() if hasattr(choice.options, key)}
    return choose("explainer", {"name": choice.name, "argument": choice.argument, **given}, discover())


def made(choice: Choice, model: nn.Module, split: Split, place: str, state: Path) -> torch.Tensor:
    """The maps that a device makes, on the CPU."""
    explainer, batch = choice.create(), split.batch(range(IMAGES)).to(place)
    if isinstance(explainer, MapTransform):
        return explainer.checked_transform(split.batch(range(IMAGES)).images[:, 0].to(place), batch, "x").cpu()
    if explainer.trained:
        explainer.restore(state, model, INFO, place)
    with unchanging(model):
        return explainer.explain(model, batch, batch.labels, "x").cpu()


@pytest.mark.parametrize("reference", names())
def test_maps_are_the_cpus(reference: str, split: Split, tmp_path: Path, device: str) -> None:
    model, choice = network("attention" if reference == "attention" else "convnet"), small(reference)
    explainer = choice.create()
    if explainer.supports(model, INFO) is not None:
        model = network("timm:test_resnet")
    assert explainer.supports(model, INFO) is None
    with float32("32"):
        if explainer.trained:
            explainer.fit(model, split, split, INFO, Session(tmp_path, batch_size=8))
        one = made(choice, model, split, "cpu", tmp_path)
        other = made(choice, copy.deepcopy(model).to(device), split, device, tmp_path)
    assert torch.isfinite(other).all()
    largest = one.flatten(1).abs().amax(1).clamp_min(1e-12)
    assert ((one - other).flatten(1).abs().amax(1) / largest).max() < 1e-3


@pytest.mark.parametrize("reference", ["deeplift", "deepshap:background=4", "lrp-epsilon"])
def test_what_proves_its_rules_is_accepted(reference: str, device: str) -> None:
    with float32("32"):
        model = network("timm:resnet18").to(device)
        assert choose("explainer", reference, discover()).create().supports(model, INFO) is None


def test_cam_is_the_cpus_on_a_network_with_global_pooling(split: Split, tmp_path: Path, device: str) -> None:
    model, choice = Pooled().eval().requires_grad_(False), choose("explainer", "cam", discover())
    assert choice.create().supports(model, INFO) is None
    with float32("32"):
        one = made(choice, model, split, "cpu", tmp_path)
        other = made(choice, copy.deepcopy(model).to(device), split, device, tmp_path)
    assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


class Pooled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
        self.pool, self.head = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.features(images)).flatten(1))
