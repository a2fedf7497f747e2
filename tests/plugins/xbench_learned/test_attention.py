"""The attention that a classifier reads through: its formula, its model, its maps, and what its plugin promises."""

import copy
import functools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xbench_learned
from xbench import DatasetInfo, Session, Split, UserError
from xbench.compute.folding import fold_batch_norms
from xbench.compute.training import predict, train_classifier
from xbench.contracts.options import parse_options
from xbench.runtime.seeding import rng
from xbench.testing import Scenario, explainer_checks, model_checks, parametrize_with_checks
from xbench.testing.fakes import FakeDataset, FakeOptions
from xbench.testing.networks import ConvNetwork
from xbench_learned.attention import Attention, AttentionGate, AttentionModel
from xbench_learned.options import AttentionModelOptions, AttentionOptions

SIZE = 32
SPECS = {spec.name: spec for spec in xbench_learned.xbench_explainers()}
TRAINED = ["autoencoder", "vae", "vae-perturbation"]


def info(channels: int = 1, classes: int = 2, spatial: tuple[int, ...] = (SIZE, SIZE)) -> DatasetInfo:
    return DatasetInfo("blobs", tuple(f"class {index}" for index in range(classes)), channels, spatial, has_masks=True)


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def built(
    channels: int = 1, classes: int = 2, spatial: tuple[int, ...] = (SIZE, SIZE), seed: int = 0, **options: Any
) -> nn.Module:
    torch.manual_seed(seed)
    model = AttentionModel(AttentionModelOptions(**{"widths": "4,8,12", **options}))
    return model.build(info(channels, classes, spatial)).eval()


# --- the gate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
@pytest.mark.parametrize("stage", [(7,), (5, 6), (3, 4, 2)])
def test_attention_is_the_papers_formula_position_by_position(compatibility: str, stage: tuple[int, ...]) -> None:
    gate = AttentionGate(3, 5, compatibility, len(stage)).double()
    local, described = noise(2, 3, *stage).double(), noise(2, 5).double()
    pooled, attention = gate(local, described)
    for image in range(2):
        vectors = [gate.project.weight.flatten(1) @ column for column in local[image].flatten(1).T]
        if compatibility == "pc":  # with g, which the gate leaves out because the softmax does not see it
            scores = [(gate.u.weight[0] @ (vector + described[image])).item() for vector in vectors]
        else:
            scores = [(vector @ described[image]).item() for vector in vectors]
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))
        np.testing.assert_allclose(attention[image].flatten().detach(), weights, rtol=1e-9)
        torch.testing.assert_close(pooled[image], expected)


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_constant_local_features_get_uniform_attention(compatibility: str) -> None:
    gate = AttentionGate(3, 3, compatibility, 2)
    vectors = noise(2, 3)
    pooled, attention = gate(vectors[:, :, None, None].expand(2, 3, 4, 5), noise(2, 3))
    torch.testing.assert_close(attention, torch.full((2, 4, 5), 1 / 20))
    torch.testing.assert_close(pooled, vectors)


def test_local_features_as_long_as_the_global_ones_are_not_projected() -> None:
    assert isinstance(AttentionGate(5, 5, "pc", 2).project, nn.Identity)
    assert isinstance(AttentionGate(3, 5, "pc", 2).project, nn.Conv2d)


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
@pytest.mark.parametrize(("channels", "classes", "spatial"), [(1, 2, (64, 64)), (3, 5, (33, 27)), (1, 2, (8, 10, 9))])
def test_attention_sums_to_one_at_each_of_three_stages(
    compatibility: str, channels: int, classes: int, spatial: tuple[int, ...]
) -> None:
    network = built(channels, classes, spatial, compatibility=compatibility)
    images = noise(3, channels, *spatial)
    logits, maps = network.attend(images)
    assert logits.shape == (3, classes)
    assert torch.equal(network(images), logits)
    for level, attention in enumerate(maps):
        assert attention.shape == (3, *(math.ceil(side / 2**level) for side in spatial))
        assert (attention > 0).all()
        torch.testing.assert_close(attention.flatten(1).sum(1), torch.ones(3))


def test_only_the_last_three_stages_have_attention() -> None:
    maps = built(widths="4,4,8,8,8").attend(noise(1, 1, SIZE, SIZE))[1]
    assert [tuple(attention.shape[1:]) for attention in maps] == [(8, 8), (4, 4), (2, 2)]


def test_the_classifier_sees_nothing_but_what_was_attended_to() -> None:
    network = built().double()
    seen = []
    network.classifier.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    locals_ = []
    for stage in network.stages:
        stage.register_forward_hook(lambda layer, args, output: locals_.append(output))
    maps = network.attend(noise(2, 1, SIZE, SIZE).double())[1]
    pooled = [
        (gate.project(local) * attention[:, None]).flatten(2).sum(2)
        for gate, local, attention in zip(network.gates, locals_, maps, strict=True)  # type: ignore[arg-type]
    ]
    torch.testing.assert_close(seen[0], torch.cat(pooled, 1))


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_every_weight_can_learn(compatibility: str) -> None:
    network = built(compatibility=compatibility).train()
    F.cross_entropy(network(noise(6, 1, SIZE, SIZE)), torch.arange(6) % 2).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 1e-7, name


def test_every_batch_norm_can_be_folded_for_scoring() -> None:
    network = built(compatibility="dp")
    folded = copy.deepcopy(network)
    assert fold_batch_norms(folded) == 4
    torch.testing.assert_close(folded(noise(2, 1, SIZE, SIZE)), network(noise(2, 1, SIZE, SIZE)), rtol=1e-5, atol=1e-6)


def test_it_is_about_as_large_as_the_convnet() -> None:
    network = built(spatial=(64, 64), widths="32,64,128,256")
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(421_570, rel=0.05)


@pytest.mark.parametrize("widths", ["4,8", "4,8,0", "4,8,x", ""])
def test_widths_must_be_three_or_more_numbers(widths: str) -> None:
    with pytest.raises(UserError, match="widths"):
        parse_options(AttentionModelOptions, {"widths": widths}, "model attention")


def test_images_without_room_for_attention_are_refused() -> None:
    with pytest.raises(UserError, match="15 x 64 pixels are too small for 4 stages"):
        AttentionModel(AttentionModelOptions()).build(info(spatial=(15, 64)))
    with pytest.raises(UserError, match="4 axes"):
        AttentionModel(AttentionModelOptions()).build(info(spatial=(16, 16, 16, 16)))


# --- its maps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["mean", "first", "second", "third"])
@pytest.mark.parametrize("spatial", [(SIZE, SIZE), (33, 27)])
def test_the_map_is_the_enlarged_attention(
    explain: Callable[..., torch.Tensor], stage: str, spatial: tuple[int, ...]
) -> None:
    network, images = built(3, 3, spatial), noise(2, 3, *spatial)
    enlarged = []
    for attention in network.attend(images)[1]:
        relative = attention / attention.mean((1, 2), keepdim=True)  # 1 where evenly spread
        enlarged.append(F.interpolate(relative[:, None], spatial, mode="bilinear")[:, 0])
    expected = sum(enlarged) / 3 if stage == "mean" else enlarged[["first", "second", "third"].index(stage)]
    maps = explain(Attention(AttentionOptions(stage=stage)), network, images)
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-5, atol=1e-6)


def test_the_map_is_the_same_for_every_target_and_unsigned(explain: Callable[..., torch.Tensor]) -> None:
    network, images = built(), noise(4, 1, SIZE, SIZE)
    explainer = Attention(AttentionOptions())
    assert not explainer.signed
    first, second = (explain(explainer, network, images, torch.full((4,), target)) for target in (0, 1))
    assert torch.equal(first, second)
    assert (first > 0).all()


def test_other_models_are_refused() -> None:
    reason = Attention(AttentionOptions()).supports(ConvNetwork(1, 2), info())
    assert reason == "needs the model `attention`, whose classifier reads through its own attention maps"
    assert Attention(AttentionOptions()).supports(built(), info()) is None


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_it_learns_and_looks_at_the_object(
    explain: Callable[..., torch.Tensor], blobs: Callable[..., Split], tmp_path: Path, compatibility: str
) -> None:
    network = built(compatibility=compatibility, widths="8,16,16")
    options = AttentionModelOptions(epochs=8, patience=8, learning_rate=3e-3, train_batch=16)
    train_classifier(network, blobs(96, "train"), blobs(32, "validation"), options, Session(tmp_path))
    test = blobs(40, "test")
    logits, labels = predict(network, test, Session(tmp_path))
    assert float((logits.argmax(1) == labels).float().mean()) > 0.9
    batch = test.batch(np.flatnonzero(test.labels == 1))
    maps = explain(Attention(AttentionOptions()), network, batch.images)
    inside = (maps * batch.masks).sum((1, 2)) / maps.sum((1, 2))
    evenly = batch.masks.float().mean((1, 2))
    assert float((inside / evenly).mean()) > 2


# --- the plugin -----------------------------------------------------------------------------------------------------


def test_the_plugin_imports_no_torch() -> None:
    code = """if True:
        import sys, xbench_learned
        items = [*xbench_learned.xbench_explainers(), *xbench_learned.xbench_models()]
        [spec.load_options() for spec in items]
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_it_needs_of_a_model_is_said() -> None:
    assert SPECS["attention"].model == "the model `attention`"
    assert not any(SPECS[name].model for name in TRAINED)


@parametrize_with_checks(xbench_learned.xbench_models(), widths="4,8,8")
def test_the_model_conforms(check: Callable[..., None]) -> None:
    check()


def test_the_model_conforms_with_dot_products() -> None:
    for _, check in model_checks():
        check(functools.partial(AttentionModel, AttentionModelOptions(widths="4,8,8", compatibility="dp")))


ATTENTIVE = [
    Scenario(
        name, FakeDataset(fake), AttentionModel(AttentionModelOptions(widths="4,8,8", compatibility=compatibility))
    )
    for name, fake, compatibility in [
        ("pc", FakeOptions(), "pc"),
        ("dp_three_channels_odd_size", FakeOptions(size=33, width=27, channels=3, classes=3), "dp"),
    ]
]


@pytest.mark.parametrize(("name", "check"), list(explainer_checks(ATTENTIVE)))
def test_attention_conforms(name: str, check: Callable[..., None]) -> None:
    check(functools.partial(Attention, AttentionOptions()))
