"""Which feature map is explained, who is refused why, and what every explainer of feature maps promises."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn
from torch.nn import functional as F

import xbench_baselines
from xbench import DatasetInfo, Explainer, PluginError, UserError
from xbench.compute.gate import operations_behind
from xbench.runtime.seeding import rng
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.cams.explainers import enlarged
from xbench_baselines.cams.features import traced

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
NAMES = ["cam", "gradcam", "gradcam-plus-plus", "guided-gradcam", "respond-cam", "layercam", "visualbackprop"]


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def pooled(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(2).mean(2)


def make(name: str, **values: Any) -> Any:
    return SPECS[name].load()(SPECS[name].load_options()(**values))


def refused(
    explainer: Explainer, model: nn.Module, channels: int = 1, spatial: tuple[int, ...] = (32, 32)
) -> str | None:
    return explainer.supports(model, DatasetInfo("toy", ("a", "b", "c"), channels, spatial))


def network(channels: int = 1, outputs: int = 3, relu: str = "module", seed: int = 0, **options: Any) -> ConvNetwork:
    torch.manual_seed(seed)
    return ConvNetwork(channels, outputs, relu=relu, **options).eval()


# --- which feature map ----------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """Two branches that are put together, then pooled; with `beside`, one of them reaches the head alone."""

    def __init__(self, beside: bool = False) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(5, 3)
        self.beside = beside

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem(images).relu()
        left, right = self.left(stem).relu(), torch.sigmoid(self.right(stem))
        if self.beside:
            return self.head(torch.cat([left.mean((2, 3)), right.amax((2, 3))], 1))
        return self.head(torch.cat([left, right], 1).mean((2, 3)))


class ChannelsLast(nn.Module):
    """A block in channels-last layout with a shortcut, like ConvNeXt's; every side and the channels are 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(1, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.dense, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        start = self.norm(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        inner = F.gelu(self.dense(self.depthwise(start).permute(0, 2, 3, 1)))
        return self.head((start + inner.permute(0, 3, 1, 2)).mean((2, 3)))


class Tokens(nn.Module):
    """A patch embedding, then a mixer of tokens or attention."""

    def __init__(self, attention: bool) -> None:
        super().__init__()
        self.embedding, self.mix, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(64, 64), nn.Linear(8, 3)
        self.attention = attention

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embedding(images).flatten(2).transpose(1, 2)
        if self.attention:
            tokens = tokens + (tokens @ tokens.mT).softmax(-1) @ tokens
        else:
            tokens = tokens + F.gelu(self.mix(tokens.mT)).mT
        return self.head(tokens.mean(1))


def test_the_feature_map_is_where_branches_have_met() -> None:
    structure = traced(Branches().eval(), noise(2, 1, 10, 10))
    assert structure.feature().kind == "concatenate"
    assert traced(Branches(beside=True).eval(), noise(2, 1, 10, 10)).feature().kind == "relu"


def test_branches_that_reach_the_head_alone_are_explained_where_they_part(explain: Callable[..., torch.Tensor]) -> None:
    assert refused(make("cam"), Branches()) is None
    reason = refused(make("cam"), Branches(beside=True))
    assert "not linear" in reason
    assert "ReLU" in reason
    model, images = Branches(beside=True).eval(), noise(2, 1, 10, 10)
    stem = model.stem(images).relu().detach().requires_grad_()
    left, right = model.left(stem).relu(), torch.sigmoid(model.right(stem))
    score = model.head(torch.cat([left.mean((2, 3)), right.amax((2, 3))], 1))[:, 1].sum()
    alpha = torch.autograd.grad(score, stem)[0].mean((2, 3), keepdim=True)
    expected = (alpha * stem).sum(1).relu().detach()
    torch.testing.assert_close(explain(make("gradcam"), model, images, [1, 1]), enlarged(expected, (10, 10)))


def test_channels_last_blocks_are_not_mistaken_for_features() -> None:
    model, images = ChannelsLast().eval(), noise(2, 1, 16, 16)
    structure = traced(model, images)
    assert structure.feature().kind == "add"
    assert refused(make("cam"), model, spatial=(16, 16)) is None


@pytest.mark.parametrize(("attention", "what"), [(True, "attention over tokens"), (False, "gelu over tokens")])
@pytest.mark.parametrize("name", NAMES)
def test_transformers_are_refused(name: str, attention: bool, what: str) -> None:
    assert what in refused(make(name), Tokens(attention))


@pytest.mark.parametrize("name", NAMES)
def test_models_without_feature_maps_are_refused(explain: Callable[..., torch.Tensor], name: str) -> None:
    assert "no feature map" in refused(make(name), LinearNetwork(1, (32, 32), 3))
    with pytest.raises(UserError, match="no feature map"):
        explain(make(name), LinearNetwork(1, (6, 6), 3), noise(1, 1, 6, 6), [0])


@pytest.mark.parametrize(
    ("features", "between", "reason"),
    [
        ([], lambda values: values.flatten(1)[:, :6], "weighs every position"),
        ([], lambda values: F.max_pool2d(values, 2).mean((2, 3)), None),  # the pooled map is linear in the head
        ([], lambda values: pooled(values) + values.amax((2, 3)), "neither by the global average nor"),
        ([], lambda values: pooled(values).relu(), "not linear in the pooled feature maps: ReLU"),
        ([nn.AvgPool2d(2)], pooled, None),
        ([nn.BatchNorm2d(6)], pooled, None),
    ],
)
def test_cam_proves_that_the_head_is_linear_in_the_pooled_maps(
    chain: Callable[..., nn.Module], features: list[nn.Module], between: Callable[..., Any], reason: str | None
) -> None:
    model = chain([nn.Conv2d(1, 6, 3), nn.ReLU(), *features], between, nn.Linear(6, 3))
    found = refused(make("cam"), model, spatial=(10, 10))
    assert found is None if reason is None else reason in found


class Rewriting(nn.Module):
    """Works in place on its feature map: by an operation that rules make out of place, or by one they do not know."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.convolution, self.head, self.how = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), how

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.convolution(images).relu()
        if self.how == "known":
            values *= 2.0
        elif self.how == "index":
            values[:, :, 0] = 0
        else:
            values.mul_(2.0)  # its result is thrown away
        return self.head(values.mean((2, 3)))


def test_what_works_in_place_on_the_feature_map_is_followed_or_refused() -> None:
    assert refused(make("gradcam"), Rewriting("known")) is None
    assert "in place" in refused(make("gradcam"), Rewriting("index"))
    assert "in place unseen" in refused(make("gradcam"), Rewriting("discarded"))
    assert "in place unseen" in refused(make("visualbackprop"), Rewriting("discarded"))


# --- option layer ---------------------------------------------------------------------------------------------------


def test_a_layer_can_be_named(explain: Callable[..., torch.Tensor]) -> None:
    images, targets, model = noise(3, 1, 20, 16), torch.tensor([0, 2, 1]), network()
    layer = LayerGradCam(model, model.activations[1])
    expected = LayerAttribution.interpolate(
        layer.attribute(images.clone(), target=targets, relu_attributions=True), (20, 16), "bilinear"
    )[:, 0].detach()
    explainer = make("gradcam", layer="activations.1")
    assert refused(explainer, model) is None
    maps = explain(explainer, model, images, targets)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5 * expected.max().item())
    assert not any(module._forward_hooks for module in model.modules())
    assert "not linear" in refused(make("cam", layer="activations.1"), model)


def test_a_layer_that_is_not_there_is_named_with_its_neighbours(explain: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(UserError, match=r"layer='activation\.1'.*activations\.1"):
        refused(make("gradcam", layer="activation.1"), network())
    model = network()
    with pytest.raises(UserError, match="no such module"):
        explain(make("gradcam", layer="nonsense"), model, noise(1, 1, 8, 8), [0])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_without_feature_maps_is_refused() -> None:
    assert "layer head" in refused(make("gradcam", layer="head"), network())
    reason = refused(make("gradcam", layer="dense"), ChannelsLast(), spatial=(16, 16))
    assert "its channels are not the second axis" in reason


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_maps_do_not_depend_on_the_batch(explain: Callable[..., torch.Tensor], name: str) -> None:
    model, images, targets = network(2, 3, "inplace", batch_norm=True), noise(5, 2, 20, 14), [0, 1, 2, 1, 0]
    whole = explain(make(name), model, images, targets)
    assert whole.flatten(1).any(1).sum() >= 3
    for index in range(5):
        alone = explain(make(name), model, images[index : index + 1], targets[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_volumes(explain: Callable[..., torch.Tensor], chain: Callable[..., nn.Module], name: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv3d(1, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv3d(4, 6, 3, 2, 1), nn.BatchNorm3d(6), nn.ReLU()]
    model, images = chain(layers, pooled, nn.Linear(6, 2)).eval(), noise(2, 1, 8, 10, 12)
    explainer = make(name)
    assert refused(explainer, model, spatial=(8, 10, 12)) is None
    maps = explain(explainer, model, images, [0, 1])
    assert maps.shape == (2, 8, 10, 12)
    assert maps.any()


def test_nothing_of_the_network_before_the_feature_map_is_recorded() -> None:
    """The backward pass ends at the features: the first convolution must not be in autograd's graph."""
    model, images = network(relu="inplace").requires_grad_(False), noise(2, 1, 16, 16)
    head = make("gradcam")._head(model, images, torch.tensor([0, 1]))
    assert head.features.is_leaf
    assert not any("Conv" in name for name in operations_behind(head.logits))
    assert not images.requires_grad


def test_a_model_that_was_changed_is_looked_at_again(explain: Callable[..., torch.Tensor]) -> None:
    explainer, model, images = make("cam"), network(), noise(2, 1, 16, 16)
    explain(explainer, model, images, [0, 1])
    model.norms[2] = nn.BatchNorm2d(32).eval()
    model.activations[2] = nn.Sigmoid()
    model.norms[2].running_mean.fill_(0.1)
    fresh = explain(make("cam"), model, images, [0, 1])
    assert torch.equal(explain(explainer, model, images, [0, 1]), fresh)


def test_a_model_that_runs_other_operations_each_time_is_an_error(explain: Callable[..., torch.Tensor]) -> None:
    class Restless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = network(), 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            for _ in range(self.calls):
                images = images + 0.0
            return self.inner(images)

    with pytest.raises((UserError, PluginError), match="other operations"):
        explain(make("gradcam"), Restless(), noise(1, 1, 8, 8), [0])


REFUSALS = {
    "resnet18": {},
    "densenet121": {},
    "vgg11": {"cam": "not linear in the pooled feature maps: ReLU"},
    "efficientnet_b0": {"guided-gradcam": "ReLU"},
    "convnext_atto": {"cam": "layer normalisation", "guided-gradcam": "ReLU"},
    "vit_tiny_patch16_224": dict.fromkeys(NAMES, "attention over tokens follows"),
    "inception_v3": {},
}


LARGE = {"inception_v3", "densenet121", "vgg11"}


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in REFUSALS]
)
def test_timm_classifiers(explain: Callable[..., torch.Tensor], architecture: str) -> None:
    torch.manual_seed(0)
    side = 128 if architecture == "inception_v3" else 64
    sizes: dict[str, Any] = {"vit_tiny_patch16_224": {"img_size": 64}, "vgg11": {"mlp_ratio": 1 / 64}}
    model = timm.create_model(architecture, num_classes=3, in_chans=1, **sizes.get(architecture, {}))
    for name in NAMES:
        explainer = make(name)
        reason = refused(explainer, model, spatial=(side, side))
        expected = REFUSALS[architecture].get(name)
        assert (reason is None) if expected is None else (expected in (reason or "")), (name, reason)
        if reason is None:
            maps = explain(explainer, model, noise(2, 1, side, side), [0, 1])
            assert maps.shape == (2, side, side)
    assert model.training
