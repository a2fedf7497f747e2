"""LRP and Deep Taylor: closed forms, axioms, zennit, conservation on timm's networks, and the conformance checks."""

import itertools

import pytest
import timm
import torch
import zennit.canonizers
import zennit.rules
from torch import nn
from torch.nn import functional as F
from zennit.attribution import Gradient as ZennitGradient
from zennit.composites import EpsilonGammaBox, EpsilonPlusFlat, LayerMapComposite, SpecialFirstLayerMapComposite
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, Convolution, Linear

from xbench import Batch, DatasetInfo, ExplainerSpec
from xbench.seeding import sample_seeds
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines import relevance
from xbench_baselines.options import relevance as options

EXPLAINERS = {
    "lrp-epsilon": ("LrpEpsilon", "LrpEpsilonOptions"),
    "lrp-gamma": ("LrpGamma", "LrpGammaOptions"),
    "lrp-alpha-beta": ("LrpAlphaBeta", "LrpAlphaBetaOptions"),
    "lrp-gamma-box": ("LrpGammaBox", "LrpGammaBoxOptions"),
    "lrp-preset-a": ("LrpPresetA", "LrpPresetOptions"),
    "lrp-preset-b": ("LrpPresetB", "LrpPresetOptions"),
    "lrp-preset-a-flat": ("LrpPresetAFlat", "LrpPresetOptions"),
    "lrp-preset-b-flat": ("LrpPresetBFlat", "LrpPresetOptions"),
    "deep-taylor": ("DeepTaylor", "DeepTaylorOptions"),
    "deep-taylor-innvestigate": ("DeepTaylorInnvestigate", "DeepTaylorOptions"),
}
# With biases left out, these conserve relevance; dense layers with epsilon = 0.1 (the presets) do not.
CONSERVING = {"lrp-gamma": False, "lrp-alpha-beta": False, "lrp-gamma-box": False, "deep-taylor": None}


def make(name, **values):
    explainer, declared = EXPLAINERS[name]
    return getattr(relevance, explainer)(getattr(options, declared)(**values))


def conserving(name):
    return make(name) if CONSERVING[name] is None else make(name, bias=CONSERVING[name])


def explain(explainer, model, images, targets):
    ids = tuple(f"sample-{index}" for index in range(len(images)))
    batch = Batch(
        images=images,
        labels=torch.zeros(len(images), dtype=torch.int64),
        ids=ids,
        groups=ids,
        masks=torch.zeros((len(images), *images.shape[2:]), dtype=torch.bool),
        has_mask=torch.zeros(len(images), dtype=torch.bool),
        seeds=torch.from_numpy(sample_seeds(0, ids)),
    )
    return explainer.explain(model, batch, torch.as_tensor(targets), "under test")


def scores(model, images, targets):
    with torch.no_grad():
        logits = model(images)
    logits = torch.cat([-logits, logits], 1) if logits.shape[1] == 1 else logits
    return logits.gather(1, torch.as_tensor(targets)[:, None]).squeeze(1)


def trained_like(model, seed=0):
    """Batch norms and biases as after a training: merging them, or forgetting to, makes a difference."""
    drawn = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=drawn))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=drawn))
            module.weight.data.copy_(1 + 0.3 * torch.randn(module.weight.shape, generator=drawn))
        if getattr(module, "bias", None) is not None:
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=drawn))
    return model.eval().requires_grad_(False)


def network(channels=1, outputs=2, **values):
    torch.manual_seed(0)
    return trained_like(ConvNetwork(channels, outputs, batch_norm=True, **values))


def images_like(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


class Normalised(nn.Module):
    def __init__(self, network, mean, std):
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, images):
        return self.network((images - self.mean) / self.std)


class Residual(nn.Module):
    """A residual block; the addition is an operator, in place, or zennit's module."""

    def __init__(self, style):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
        )  # fmt: skip
        self.sum, self.relu = Sum(), nn.ReLU()
        self.pool, self.head, self.style = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 3), style

    def forward(self, images):
        shortcut = self.stem(images)
        features = self.block(shortcut)
        if self.style == "module":
            features = self.sum(torch.stack([features, shortcut], -1))
        elif self.style == "operator":
            features = features + shortcut
        else:
            features += shortcut
        return self.head(self.pool(self.relu(features)).flatten(1))


def residual(style):
    torch.manual_seed(0)
    return trained_like(Residual(style))


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_epsilon_on_a_linear_model_is_each_pixels_part_of_the_score(outputs):
    model = LinearNetwork(2, (5, 4), outputs)
    model.linear.bias.data.zero_()
    images, targets = images_like(2, 2, 5, 4), [0, 1]
    weights = torch.cat([-model.linear.weight, model.linear.weight]) if outputs == 1 else model.linear.weight
    expected = (weights[targets].detach().view(2, 2, 5, 4) * images).sum(1)
    torch.testing.assert_close(explain(make("lrp-epsilon"), model, images, targets), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_epsilon_without_biases_is_input_times_gradient(bias):
    torch.manual_seed(0)
    model = ConvNetwork(3, 3).eval().requires_grad_(False)
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    images, targets = images_like(3, 3, 12, 10), [0, 1, 2]
    maps = explain(make("lrp-epsilon", bias=bias), model, images, targets)
    torch.testing.assert_close(maps, input_times_gradient(model, images, targets), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps.flatten(1).sum(1), scores(model, images, targets), rtol=1e-4, atol=1e-6)


class Dense(nn.Module):
    """Pre-activation batch norm, concatenation, both kinds of pooling, one convolution used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.grow, self.last = nn.Conv2d(6, 6, 3, padding="same"), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 2)

    def forward(self, images):
        features = F.max_pool2d(self.stem(images), 3, 2, 1)
        grown = self.grow(F.relu(self.grow(F.relu(self.norm(features)))))
        features = F.avg_pool2d(torch.cat([features, grown], 1), 2)
        return self.head(self.last(features).relu_().mean((-2, -1)))


@pytest.mark.parametrize("kind", ["batch norm", "residual", "dense"])
def test_epsilon_with_biases_equals_input_times_gradient(kind):
    """What Ancona et al. (2018) prove of ReLU networks: no second opinion, and a proof of every operation's step."""
    torch.manual_seed(0)
    model = {"batch norm": network, "residual": lambda: residual("inplace"), "dense": lambda: trained_like(Dense())}
    model, images, targets = model[kind](), images_like(2, 1, 16, 12), [0, 1]
    maps = explain(make("lrp-epsilon", epsilon=1e-12), model.double(), images.double(), targets)
    expected = input_times_gradient(model, images.double(), targets)
    assert (maps - expected).abs().max() < 1e-4 * expected.abs().max()


def input_times_gradient(model, images, targets):
    images = images.clone().requires_grad_()
    score = model(images).gather(1, torch.as_tensor(targets)[:, None]).sum()
    return (images * torch.autograd.grad(score, images)[0]).detach().sum(1).float()


def test_innvestigates_deep_taylor_by_matrices():
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


def test_alpha_beta_gives_all_to_the_only_side_there_is():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[1.0, 2.0, 1.0], [-1.0, -3.0, 0.0]]))
    images = torch.tensor([0.5, 0.25, 0.0]).view(1, 1, 1, 3)
    for target, expected in ((0, [0.5, 0.5, 0.0]), (1, [-0.5, -0.75, 0.0])):
        maps = explain(make("lrp-alpha-beta"), model, images, [target])
        torch.testing.assert_close(maps.flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


# --- zennit ---------------------------------------------------------------------------------------------------------


def zennit_maps(model, images, targets, composite):
    one_hot = F.one_hot(torch.as_tensor(targets), scores_of(model, images).shape[1])
    with ZennitGradient(model, composite) as attributor:
        return attributor(images, lambda logits: logits.detach() * one_hot)[1].detach().sum(1)


def without_eps(model):
    """zennit's merge leaves the eps of the batch norm that it makes an identity: an error of 5e-6 each."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12
    return model


def scores_of(model, images):
    with torch.no_grad():
        return model(images)


def zennit_composite(name, bias):
    zero = None if bias else ["bias"]
    base = [(Activation, zennit.rules.Pass()), (Sum, zennit.rules.Norm()), (AvgPool, zennit.rules.Norm())]
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
    if name == "lrp-preset-a-flat":
        return EpsilonPlusFlat(0.1, zero_params=zero, canonizers=canonizers)
    first = [(Convolution, zennit.rules.ZBox(0.0, 1.0))]
    z_plus = zennit.rules.ZPlus(zero_params=["bias"])
    return SpecialFirstLayerMapComposite([*base, (Linear, z_plus)], first, canonizers=canonizers)


class Chain(nn.Module):
    """A network in which zennit finds everything: modules in a row."""

    def __init__(self, channels, outputs):
        super().__init__()
        self.all = nn.Sequential(
            nn.Conv2d(channels, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, groups=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, outputs),
        )  # fmt: skip

    def forward(self, images):
        return self.all(images)


ZENNIT = ["lrp-epsilon", "lrp-gamma", "lrp-alpha-beta", "lrp-gamma-box", "lrp-preset-a-flat"]


@pytest.mark.parametrize(("name", "bias"), [*itertools.product(ZENNIT, [True, False]), ("deep-taylor", None)])
@pytest.mark.parametrize("kind", ["chain", "three channels", "residual"])
def test_agrees_with_zennit(name, bias, kind):
    torch.manual_seed(0)
    model = residual("module") if kind == "residual" else trained_like(Chain(3 if kind == "three channels" else 1, 3))
    images = images_like(3, 3 if kind == "three channels" else 1, 12, 12).double()
    # Deep Taylor starts from the positive part of the score: from the largest score.
    best = scores_of(without_eps(model).double(), images).argmax(1)
    targets = best if name == "deep-taylor" else torch.tensor([0, 1, 2])
    explainer = make(name) if bias is None else make(name, bias=bias)
    if kind == "residual" and name == "deep-taylor":
        pytest.skip("zennit splits sums in proportion, Deep Taylor by positive parts")
    expected = zennit_maps(model, images.clone(), targets, zennit_composite(name, bias))
    if name == "deep-taylor":
        expected = expected * (scores(model, images, targets) > 0)[:, None, None]
    maps = explainer.attribute(model, images, targets)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()


def test_w_square_first_layer_agrees_with_zennit():
    torch.manual_seed(0)
    model, images = without_eps(trained_like(Chain(1, 3))).double(), images_like(2, 1, 12, 12).double()
    targets = scores_of(model, images).argmax(1)
    z_plus, square = (rule(zero_params=["bias"]) for rule in (zennit.rules.ZPlus, zennit.rules.WSquare))
    base = [(Activation, zennit.rules.Pass()), (AvgPool, zennit.rules.Norm()), (Linear, z_plus)]
    composite = SpecialFirstLayerMapComposite(
        base, [(Convolution, square)], canonizers=[zennit.canonizers.SequentialMergeBatchNorm()]
    )
    maps = make("deep-taylor", first="w-square").attribute(model, images, targets)
    expected = zennit_maps(model, images.clone(), targets, composite)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_box_is_that_of_the_normalised_input():
    torch.manual_seed(0)
    bare, mean, std = without_eps(trained_like(Chain(1, 3))).double(), 0.4, 0.25
    images = images_like(2, 1, 12, 12).double()
    model = Normalised(bare, mean, std)
    targets = scores_of(model, images).argmax(1)
    composite = EpsilonGammaBox(
        (0 - mean) / std, (1 - mean) / std, canonizers=[zennit.canonizers.SequentialMergeBatchNorm()]
    )
    expected = zennit_maps(bare, (images - mean) / std, targets, composite)
    maps = make("lrp-gamma-box").attribute(model, images, targets)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()
