"""The rules of LRP and Deep Taylor: closed forms, the axioms that fix them, and zennit's."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import zennit.canonizers
import zennit.rules
from torch import nn
from torch.nn import functional as F
from zennit.attribution import Gradient as ZennitGradient
from zennit.composites import EpsilonGammaBox, EpsilonPlusFlat, LayerMapComposite, SpecialFirstLayerMapComposite
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, Convolution, Linear

import xbench_baselines
from xbench.testing.networks import ConvNetwork, LinearNetwork

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
EXPLAINERS = [name for name in SPECS if name.startswith(("lrp-", "deep-taylor"))]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(name: str, **values: Any) -> Any:
    return SPECS[name].load()(SPECS[name].load_options()(**values))


def scores_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def scores(model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor) -> torch.Tensor:
    return scores_of(model, images).gather(1, torch.as_tensor(targets)[:, None]).squeeze(1)


def images_like(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """A residual block; the addition is an operator, in place, or zennit's module."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
        )  # fmt: skip
        self.sum, self.relu = Sum(), nn.ReLU()
        self.pool, self.head, self.style = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 3), style

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shortcut = self.stem(images)
        features = self.block(shortcut)
        if self.style == "module":
            features = self.sum(torch.stack([features, shortcut], -1))
        elif self.style == "operator":
            features = features + shortcut
        else:
            features += shortcut
        return self.head(self.pool(self.relu(features)).flatten(1))


@pytest.fixture
def residual(trained_like: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def build(style: str) -> nn.Module:
        torch.manual_seed(0)
        return trained_like(Residual(style))

    return build


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_epsilon_on_a_linear_model_is_each_pixels_part_of_the_score(outputs: int) -> None:
    model = LinearNetwork(2, (5, 4), outputs).double()
    model.linear.bias.data.zero_()
    images, targets = images_like(2, 2, 5, 4).double(), torch.tensor([0, 1])
    weights = torch.cat([-model.linear.weight, model.linear.weight]) if outputs == 1 else model.linear.weight
    expected = (weights[targets].detach().view(2, 2, 5, 4) * images).sum(1)
    maps = make("lrp-epsilon", epsilon=1e-12).attribute(model, images, targets)
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_epsilon_without_biases_is_input_times_gradient(bias: bool) -> None:
    torch.manual_seed(0)
    model = ConvNetwork(3, 3).eval().requires_grad_(False).double()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    images, targets = images_like(3, 3, 12, 10).double(), torch.tensor([0, 1, 2])
    maps = make("lrp-epsilon", epsilon=1e-12, bias=bias).attribute(model, images, targets)
    expected = input_times_gradient(model, images, targets)
    assert (maps - expected).abs().max() < 1e-6 * expected.abs().max()
    torch.testing.assert_close(maps.flatten(1).sum(1), scores(model, images, targets), rtol=1e-6, atol=0)


class Dense(nn.Module):
    """Pre-activation batch norm, concatenation, two kinds of pooling, one convolution called and one read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.own, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.grow, self.last = nn.Conv2d(6, 6, 3, padding="same"), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem(images)
        features = F.max_pool2d(stem - 0.5 * self.own(stem), 3, 2, 1)
        grown = self.grow(F.relu(self.grow(F.relu(self.norm(features)))))
        features = F.avg_pool2d(torch.cat([features, grown], 1), 2)
        return self.head(self.last(features).relu_().mean((-2, -1)))


@pytest.mark.parametrize("kind", ["batch norm", "residual", "dense"])
def test_epsilon_with_biases_equals_input_times_gradient(
    trained_like: Callable[..., nn.Module], residual: Callable[..., nn.Module], kind: str
) -> None:
    """What Ancona et al. (2018) prove of ReLU networks: no second opinion, and a proof of every operation's step."""
    torch.manual_seed(0)
    models = {
        "batch norm": lambda: trained_like(ConvNetwork(1, 2, batch_norm=True)),
        "residual": lambda: residual("inplace"),
        "dense": lambda: trained_like(Dense()),
    }
    model, images, targets = models[kind](), images_like(2, 1, 16, 12).double(), torch.tensor([0, 1])
    maps = make("lrp-epsilon", epsilon=1e-12).attribute(model.double(), images, targets)
    expected = input_times_gradient(model, images, targets)
    assert (maps - expected).abs().max() < 1e-6 * expected.abs().max()


def input_times_gradient(model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor) -> torch.Tensor:
    images = images.clone().requires_grad_()
    score = model(images).gather(1, torch.as_tensor(targets)[:, None]).sum()
    return (images * torch.autograd.grad(score, images)[0]).detach().sum(1)


def test_innvestigates_deep_taylor_by_matrices(explain: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 2)).requires_grad_(False)
    images = images_like(2, 1, 3, 4)
    first, second = (layer.weight**2 / (layer.weight**2).sum(1, keepdim=True) for layer in (model[1], model[3]))
    open_units = (model[1](images.flatten(1)) > 0).float()
    for target in (0, 1):
        start = scores(model, images, [target] * 2).clamp(min=0)
        expected = (start[:, None] * second[target] * open_units) @ first
        maps = explain(make("deep-taylor-innvestigate"), model, images, [target] * 2)
        torch.testing.assert_close(maps.flatten(1), expected, rtol=1e-4, atol=1e-7)


def test_alpha_beta_gives_all_to_the_only_side_there_is(explain: Callable[..., torch.Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[1.0, 2.0, 1.0], [-1.0, -3.0, 0.0]]))
    images = torch.tensor([0.5, 0.25, 0.0]).view(1, 1, 1, 3)
    for target, expected in ((0, [0.5, 0.5, 0.0]), (1, [-0.5, -0.75, 0.0])):
        maps = explain(make("lrp-alpha-beta"), model, images, [target])
        torch.testing.assert_close(maps.flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bias", "expected"), [(False, [-0.25, 0.75]), (True, [0.4, -0.3])])
def test_gamma_takes_the_sign_of_what_its_denominators_hold(
    explain: Callable[..., torch.Tensor], bias: bool, expected: list[float]
) -> None:
    """Contributions 1 and -1.5, bias 1: the output is 0.5 with it, -0.5 without."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[1.0, -1.5], [0.0, 0.0]]))
    model[1].bias.copy_(torch.tensor([1.0, 0.0]))
    maps = explain(make("lrp-gamma", gamma=1, bias=bias), model, torch.ones(1, 1, 1, 2), [0])
    torch.testing.assert_close(maps.flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("style", ["module", "operator", "inplace"])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_additions_in_every_style_give_the_same_map(
    explain: Callable[..., torch.Tensor], residual: Callable[..., nn.Module], name: str, style: str
) -> None:
    images, targets = images_like(2, 1, 9, 9), [0, 2]
    expected = explain(make(name), residual("operator"), images, targets)
    torch.testing.assert_close(explain(make(name), residual(style), images, targets), expected, rtol=1e-4, atol=1e-6)


# --- zennit ---------------------------------------------------------------------------------------------------------


def zennit_maps(
    model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor, composite: Any
) -> torch.Tensor:
    one_hot = F.one_hot(torch.as_tensor(targets), scores_of(model, images).shape[1])
    with ZennitGradient(model, composite) as attributor:
        return attributor(images, lambda logits: logits.detach() * one_hot)[1].detach().sum(1)


def without_eps(model: nn.Module) -> nn.Module:
    """zennit's merge leaves the eps of the batch norm that it makes an identity: an error of 5e-6 each."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12
    return model


def zennit_composite(name: str, bias: bool) -> Any:
    zero = None if bias else ["bias"]
    norm = zennit.rules.Norm(1e-7 if name == "lrp-epsilon" else 1e-6)
    base = [(Activation, zennit.rules.Pass()), (Sum, norm), (AvgPool, norm)]
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm()]
    rules = {
        "lrp-epsilon": lambda: zennit.rules.Epsilon(1e-7, zero),
        "lrp-gamma": lambda: zennit.rules.Gamma(0.25, zero_params=zero),
        "lrp-alpha-beta": lambda: zennit.rules.AlphaBeta(2, 1, zero_params=zero),
    }
    if name in rules:
        return LayerMapComposite([*base, (Linear, rules[name]())], canonizers=canonizers)
    if name == "lrp-gamma-box":
        return EpsilonGammaBox(0.0, 1.0, zero_params=zero, canonizers=canonizers)
    return EpsilonPlusFlat(0.1, zero_params=zero, canonizers=canonizers)


class Chain(nn.Module):
    """A network in which zennit finds everything: modules in a row."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.all = nn.Sequential(
            nn.Conv2d(channels, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, groups=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, outputs),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.all(images)


ZENNIT = [
    *itertools.product(["lrp-epsilon", "lrp-gamma", "lrp-alpha-beta", "lrp-gamma-box", "lrp-preset-a-flat"], [True]),
    *itertools.product(["lrp-epsilon", "lrp-alpha-beta", "lrp-preset-a-flat"], [False]),
]


@pytest.mark.parametrize(("name", "bias"), ZENNIT)
@pytest.mark.parametrize("kind", ["chain", "three channels", "residual"])
def test_agrees_with_zennit(
    trained_like: Callable[..., nn.Module], residual: Callable[..., nn.Module], name: str, bias: bool, kind: str
) -> None:
    torch.manual_seed(0)
    model = residual("module") if kind == "residual" else trained_like(Chain(3 if kind == "three channels" else 1, 3))
    images = images_like(3, 3 if kind == "three channels" else 1, 12, 12).double()
    images = 2 * images - 1 if kind == "three channels" else images  # rules tell apart the signs of inputs
    without_eps(model).double()
    targets = torch.tensor([0, 1, 2])
    expected = zennit_maps(model, images.clone(), targets, zennit_composite(name, bias))
    maps = make(name, bias=bias).attribute(model, images, targets)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("first", ["box", "w-square"])
def test_deep_taylor_agrees_with_zennit(trained_like: Callable[..., nn.Module], first: str) -> None:
    torch.manual_seed(0)
    model, images = without_eps(trained_like(Chain(1, 3))).double(), images_like(2, 1, 12, 12).double()
    model.all[-1].bias.add_(1)  # it starts from the positive part of the score
    targets = torch.tensor([0, 2])
    assert (scores(model, images, targets) > 0).all()
    z_plus, square = (rule(zero_params=["bias"]) for rule in (zennit.rules.ZPlus, zennit.rules.WSquare))
    rule = zennit.rules.ZBox(0.0, 1.0) if first == "box" else square
    base = [(Activation, zennit.rules.Pass()), (AvgPool, zennit.rules.Norm()), (Linear, z_plus)]
    composite = SpecialFirstLayerMapComposite(
        base, [(Convolution, rule)], canonizers=[zennit.canonizers.SequentialMergeBatchNorm()]
    )
    maps = make("deep-taylor", first=first).attribute(model, images, targets)
    expected = zennit_maps(model, images.clone(), targets, composite)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_box_is_that_of_the_normalised_input(
    trained_like: Callable[..., nn.Module], normalised: Callable[..., nn.Module]
) -> None:
    torch.manual_seed(0)
    bare, mean, std = without_eps(trained_like(Chain(1, 3))).double(), 0.4, 0.25
    images = images_like(2, 1, 12, 12).double()
    model = normalised(bare, mean, std)
    targets = scores_of(model, images).argmax(1)
    composite = EpsilonGammaBox(
        (0 - mean) / std, (1 - mean) / std, canonizers=[zennit.canonizers.SequentialMergeBatchNorm()]
    )
    expected = zennit_maps(bare, (images - mean) / std, targets, composite)
    maps = make("lrp-gamma-box").attribute(model, images, targets)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()
