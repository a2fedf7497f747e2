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
    "deep-taylor-innvestigate": ("DeepTaylorInnvestigate", "Options"),
}
# With biases left out, these conserve relevance; dense layers with epsilon = 0.1 (the presets) do not.
CONSERVING = {"lrp-gamma": False, "lrp-alpha-beta": False, "lrp-gamma-box": False, "deep-taylor": None}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


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
    model = LinearNetwork(2, (5, 4), outputs).double()
    model.linear.bias.data.zero_()
    images, targets = images_like(2, 2, 5, 4).double(), torch.tensor([0, 1])
    weights = torch.cat([-model.linear.weight, model.linear.weight]) if outputs == 1 else model.linear.weight
    expected = (weights[targets].detach().view(2, 2, 5, 4) * images).sum(1)
    maps = make("lrp-epsilon", epsilon=1e-12).attribute(model, images, targets)
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_epsilon_without_biases_is_input_times_gradient(bias):
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

    def __init__(self):
        super().__init__()
        self.stem, self.own, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.grow, self.last = nn.Conv2d(6, 6, 3, padding="same"), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 2)

    def forward(self, images):
        stem = self.stem(images)
        features = F.max_pool2d(stem - 0.5 * self.own(stem), 3, 2, 1)
        grown = self.grow(F.relu(self.grow(F.relu(self.norm(features)))))
        features = F.avg_pool2d(torch.cat([features, grown], 1), 2)
        return self.head(self.last(features).relu_().mean((-2, -1)))


@pytest.mark.parametrize("kind", ["batch norm", "residual", "dense"])
def test_epsilon_with_biases_equals_input_times_gradient(kind):
    """What Ancona et al. (2018) prove of ReLU networks: no second opinion, and a proof of every operation's step."""
    torch.manual_seed(0)
    model = {"batch norm": network, "residual": lambda: residual("inplace"), "dense": lambda: trained_like(Dense())}
    model, images, targets = model[kind](), images_like(2, 1, 16, 12), [0, 1]
    images, targets = images.double(), torch.tensor(targets)
    maps = make("lrp-epsilon", epsilon=1e-12).attribute(model.double(), images, targets)
    expected = input_times_gradient(model, images, targets)
    assert (maps - expected).abs().max() < 1e-6 * expected.abs().max()


def input_times_gradient(model, images, targets):
    images = images.clone().requires_grad_()
    score = model(images).gather(1, torch.as_tensor(targets)[:, None]).sum()
    return (images * torch.autograd.grad(score, images)[0]).detach().sum(1)


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


@pytest.mark.parametrize(("bias", "expected"), [(False, [-0.25, 0.75]), (True, [0.4, -0.3])])
def test_gamma_takes_the_sign_of_what_its_denominators_hold(bias, expected):
    """Contributions 1 and -1.5, bias 1: the output is 0.5 with it, -0.5 without."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[1.0, -1.5], [0.0, 0.0]]))
    model[1].bias.copy_(torch.tensor([1.0, 0.0]))
    maps = explain(make("lrp-gamma", gamma=1, bias=bias), model, torch.ones(1, 1, 1, 2), [0])
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

    def __init__(self, channels, outputs):
        super().__init__()
        self.all = nn.Sequential(
            nn.Conv2d(channels, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, groups=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, outputs),
        )  # fmt: skip

    def forward(self, images):
        return self.all(images)


ZENNIT = [
    *itertools.product(["lrp-epsilon", "lrp-gamma", "lrp-alpha-beta", "lrp-gamma-box", "lrp-preset-a-flat"], [True]),
    *itertools.product(["lrp-epsilon", "lrp-alpha-beta", "lrp-preset-a-flat"], [False]),
]


@pytest.mark.parametrize(("name", "bias"), ZENNIT)
@pytest.mark.parametrize("kind", ["chain", "three channels", "residual"])
def test_agrees_with_zennit(name, bias, kind):
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
def test_deep_taylor_agrees_with_zennit(first):
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


# --- conservation ---------------------------------------------------------------------------------------------------


def timm_network(name, **values):
    torch.manual_seed(0)
    network = trained_like(timm.create_model(name, num_classes=2, in_chans=1, **values))
    return Normalised(network, 0.5, 0.5).eval()


TIMM = ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in
        ("resnet50", "seresnet50", "densenet121", "vgg11_bn", "regnety_002", "efficientnet_b0"))]  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_every_rule_accounts_for_all_relevance(name):
    """On a ResNet-18, zennit without a canonizer of its own gives 2^8 times what there was."""
    model, info = timm_network(name), DatasetInfo("toy", ("a", "b"), 1, (32, 32))
    refused = {"deep-taylor", "deep-taylor-innvestigate"} if name == "efficientnet_b0" else set()
    assert {each for each in EXPLAINERS if make(each).supports(model, info) is not None} == refused


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("method", ["lrp-alpha-beta", "lrp-gamma", "lrp-gamma-box", "deep-taylor"])
def test_the_sum_of_relevance_is_the_score_without_biases(name, method):
    if name == "regnety_002" and method == "deep-taylor":
        pytest.skip("3 % falls on units that nothing but their bias opens")
    if name == "efficientnet_b0" and method == "deep-taylor":
        pytest.skip("no ReLU")
    model, images = timm_network(name), images_like(2, 1, 32, 32)
    targets = scores_of(model, images).argmax(1)
    maps = explain(conserving(method), model, images, targets)
    start = scores(model, images, targets)
    start = start.clamp(min=0) if method == "deep-taylor" else start
    torch.testing.assert_close(maps.flatten(1).sum(1), start, rtol=0.01, atol=0.001)


@pytest.mark.parametrize("style", ["module", "operator", "inplace"])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_additions_in_every_style_give_the_same_map(name, style):
    images, targets = images_like(2, 1, 9, 9), [0, 2]
    expected = explain(make(name), residual("operator"), images, targets)
    torch.testing.assert_close(explain(make(name), residual(style), images, targets), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_deep_taylor_is_non_negative_and_sums_to_the_positive_score(outputs):
    model, images = network(3, outputs), images_like(6, 3, 16, 16)
    model.head.bias.copy_(torch.tensor([0.3, -3.0, 0.1])[:outputs])
    targets = torch.arange(6) % max(outputs, 2)
    start = scores(model, images, targets).clamp(min=0)
    assert (start == 0).any()
    assert (start > 0).any()
    maps = explain(make("deep-taylor"), model, images, targets)
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.flatten(1).sum(1), start, rtol=0.01, atol=1e-6)
    spread = explain(make("deep-taylor-innvestigate"), model, images, targets)
    assert (spread >= 0).all()
    assert (spread.flatten(1).sum(1) <= start + 1e-6).all()
    assert (spread.flatten(1).sum(1) > 0).equal(start > 0)


def test_z_plus_on_positive_pixels_is_non_negative_for_a_positive_score():
    model, images = network(), images_like(3, 1, 16, 16)
    model.head.bias.copy_(torch.tensor([9.0, 9.0]))
    maps = explain(make("lrp-alpha-beta", alpha=1, bias=False), model, images, [0, 1, 0])
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.flatten(1).sum(1), scores(model, images, [0, 1, 0]), rtol=1e-3, atol=0)


# --- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLAINERS)
def test_one_logit_is_explained_as_its_two_logits(name):
    one, two = network(outputs=1), network(outputs=2)
    two.load_state_dict({key: value for key, value in one.state_dict().items() if "head" not in key}, strict=False)
    one.head.bias.zero_()  # so that either class has a score that deep Taylor explains
    two.head.weight.copy_(torch.cat([-one.head.weight, one.head.weight]))
    two.head.bias.zero_()
    images, targets = images_like(4, 1, 12, 12), [0, 1, 1, 0]
    expected = explain(make(name), two, images, targets)
    assert expected.any()
    torch.testing.assert_close(explain(make(name), one, images, targets), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_one_logit_behind_a_convolutional_head(name):
    torch.manual_seed(0)
    head = nn.Conv2d(6, 1, 1, bias=False)
    stem = trained_like(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()))
    twin = nn.Conv2d(6, 2, 1, bias=False)
    twin.weight.data.copy_(torch.cat([-head.weight, head.weight]))
    rest = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    one, two = (nn.Sequential(stem, last, *rest).requires_grad_(False) for last in (head, twin))
    images, targets = images_like(2, 1, 8, 8), [0, 1]
    expected = explain(make(name), two, images, targets)
    torch.testing.assert_close(explain(make(name), one, images, targets), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_how_the_relu_is_written_does_not_matter(name):
    images, targets = images_like(2, 1, 12, 12), [0, 1]
    first, *others = (
        explain(make(name), network(relu=relu), images, targets)
        for relu in ("module", "inplace", "reused", "functional")
    )
    for other in others:
        assert torch.equal(other, first)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_map_does_not_depend_on_its_batch(name):
    model, images = network(channels=3), images_like(4, 3, 12, 12)
    images[2] = 0
    targets = torch.tensor([0, 1, 0, 1])
    together = explain(make(name), model, images, targets)
    alone = torch.cat([explain(make(name), model, images[[i]], targets[[i]]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)


class Gated(nn.Module):
    """Squeeze and excitation; `gate` freezes its value."""

    def __init__(self):
        super().__init__()
        self.first, self.squeeze, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 1), nn.Linear(6, 2)
        self.gate = None

    def forward(self, images):
        features = self.first(images).relu()
        gate = self.squeeze(features.mean((2, 3), keepdim=True)).sigmoid() if self.gate is None else self.gate
        return self.head((features * gate).mean((2, 3)))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_gate_takes_no_relevance(name):
    torch.manual_seed(0)
    model, images = trained_like(Gated()), images_like(1, 1, 8, 8)
    maps = explain(make(name), model, images, [1])
    with torch.no_grad():
        features = model.first(images).relu()
        model.gate = model.squeeze(features.mean((2, 3), keepdim=True)).sigmoid()
    torch.testing.assert_close(explain(make(name), model, images, [1]), maps, rtol=1e-5, atol=1e-7)


def test_volumes():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(32, 2)
    )
    model.eval().requires_grad_(False)
    info = DatasetInfo("toy", ("a", "b"), 1, (6, 6, 6))
    for name in EXPLAINERS:
        assert make(name).supports(model, info) is None
        assert explain(make(name), model, images_like(2, 1, 6, 6, 6), [0, 1]).shape == (2, 6, 6, 6)


# --- refusals -------------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """A network with one step that rules can't answer, or that multiplies relevance."""

    def __init__(self, step):
        super().__init__()
        self.first, self.head, self.step = nn.Conv2d(1, 8, 3), nn.Linear(8, 2), step

    def forward(self, images):
        return self.head(self.step(self.first(images).relu()).mean((2, 3)))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (nn.GroupNorm(2, 8), "group normalisation"),
        (torch.sigmoid, "a sigmoid"),
        (lambda x: x * x, "a product of two activations"),
        (torch.neg, "relevance"),
        (lambda x: torch.logaddexp(x, x.new_zeros(())), "no rule for Logaddexp"),
    ],
)
@pytest.mark.parametrize("name", EXPLAINERS)
def test_refuses_what_it_has_no_rule_for(name, step, reason):
    model, info = Odd(step).eval(), DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    assert reason in make(name).supports(model, info)


@pytest.mark.parametrize("step", [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.LeakyReLU(), nn.ReLU6(), nn.PReLU()])
def test_other_activations_are_for_lrp_alone(step):
    model, info = Odd(step).eval(), DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    refusing = {name for name in EXPLAINERS if make(name).supports(model, info) is not None}
    assert refusing == {"deep-taylor", "deep-taylor-innvestigate"}


def test_deep_taylor_needs_a_relu():
    info = DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    assert "it has no ReLU" in make("deep-taylor").supports(LinearNetwork(1, (8, 8), 2), info)


def test_leaves_the_model_as_it_was():
    model = ConvNetwork(1, 2, batch_norm=True)
    assert make("lrp-gamma-box").supports(model, DatasetInfo("toy", ("a", "b"), 1, (8, 8))) is None
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


SPECS = [
    ExplainerSpec(
        name, name, f"xbench_baselines.relevance:{explainer}", f"xbench_baselines.options.relevance:{declared}"
    )
    for name, (explainer, declared) in EXPLAINERS.items()
]


@parametrize_with_checks(SPECS)
def test_conformance(check):
    check()
