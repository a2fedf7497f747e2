"""LRP and Deep Taylor as a whole: conservation on timm's networks, invariances, refusals, conformance."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import timm
import torch
from torch import nn

import xbench_baselines
from xbench import DatasetInfo
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
EXPLAINERS = [
    "lrp-epsilon",
    "lrp-gamma",
    "lrp-alpha-beta",
    "lrp-gamma-box",
    "lrp-preset-a",
    "lrp-preset-b",
    "lrp-preset-a-flat",
    "lrp-preset-b-flat",
    "deep-taylor",
    "deep-taylor-innvestigate",
]
# With biases left out, these conserve relevance; dense layers with epsilon = 0.1 (the presets) do not.
CONSERVING = {"lrp-gamma": False, "lrp-alpha-beta": False, "lrp-gamma-box": False, "deep-taylor": None}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(name: str, **values: Any) -> Any:
    return SPECS[name].load()(SPECS[name].load_options()(**values))


def conserving(name: str) -> Any:
    return make(name) if CONSERVING[name] is None else make(name, bias=CONSERVING[name])


def scores(model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = model(images)
    logits = torch.cat([-logits, logits], 1) if logits.shape[1] == 1 else logits
    return logits.gather(1, torch.as_tensor(targets)[:, None]).squeeze(1)


@pytest.fixture
def network(trained_like: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def build(channels: int = 1, outputs: int = 2, **values: Any) -> nn.Module:
        torch.manual_seed(0)
        return trained_like(ConvNetwork(channels, outputs, batch_norm=True, **values))

    return build


def images_like(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


# --- conservation ---------------------------------------------------------------------------------------------------


@pytest.fixture
def timm_network(
    trained_like: Callable[..., nn.Module], normalised: Callable[..., nn.Module]
) -> Callable[..., nn.Module]:
    def build(name: str, **values: Any) -> nn.Module:
        torch.manual_seed(0)
        # 99 of its 129 million weights are one layer's
        smaller: dict[str, Any] = {"mlp_ratio": 1 / 64} if name == "vgg11_bn" else {}
        model = trained_like(timm.create_model(name, num_classes=2, in_chans=1, **smaller, **values))
        return normalised(model, 0.5, 0.5).eval()

    return build


TIMM = ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in
        ("resnet50", "seresnet50", "densenet121", "vgg11_bn", "regnety_002", "efficientnet_b0"))]  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_every_rule_accounts_for_all_relevance(timm_network: Callable[..., nn.Module], name: str) -> None:
    """On a ResNet-18, zennit without a canonizer of its own gives 2^8 times what there was."""
    model, info = timm_network(name), DatasetInfo("toy", ("a", "b"), 1, (32, 32))
    refused = {"deep-taylor", "deep-taylor-innvestigate"} if name == "efficientnet_b0" else set()
    assert {each for each in EXPLAINERS if make(each).supports(model, info) is not None} == refused


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("method", ["lrp-alpha-beta", "lrp-gamma", "lrp-gamma-box", "deep-taylor"])
def test_the_sum_of_relevance_is_the_score_without_biases(
    explain: Callable[..., torch.Tensor], timm_network: Callable[..., nn.Module], name: str, method: str
) -> None:
    if name == "regnety_002" and method == "deep-taylor":
        pytest.skip("3 % falls on units that nothing but their bias opens")
    if name == "efficientnet_b0" and method == "deep-taylor":
        pytest.skip("no ReLU")
    model, images = timm_network(name), images_like(2, 1, 32, 32)
    targets = model(images).argmax(1)
    maps = explain(conserving(method), model, images, targets)
    start = scores(model, images, targets)
    start = start.clamp(min=0) if method == "deep-taylor" else start
    torch.testing.assert_close(maps.flatten(1).sum(1), start, rtol=0.01, atol=0.001)


@pytest.mark.parametrize("outputs", [1, 3])
def test_deep_taylor_is_non_negative_and_sums_to_the_positive_score(
    explain: Callable[..., torch.Tensor], network: Callable[..., nn.Module], outputs: int
) -> None:
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


def test_z_plus_on_positive_pixels_is_non_negative_for_a_positive_score(
    explain: Callable[..., torch.Tensor], network: Callable[..., nn.Module]
) -> None:
    model, images = network(), images_like(3, 1, 16, 16)
    model.head.bias.copy_(torch.tensor([9.0, 9.0]))
    maps = explain(make("lrp-alpha-beta", alpha=1, bias=False), model, images, [0, 1, 0])
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.flatten(1).sum(1), scores(model, images, [0, 1, 0]), rtol=1e-3, atol=0)


# --- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLAINERS)
def test_one_logit_is_explained_as_its_two_logits(
    explain: Callable[..., torch.Tensor], network: Callable[..., nn.Module], name: str
) -> None:
    one, two = network(outputs=1), network(outputs=2)
    two.load_state_dict({key: value for key, value in one.state_dict().items() if "head" not in key}, strict=False)
    one.head.bias.zero_()  # so that either class has a score that deep Taylor explains
    two.head.weight.copy_(torch.cat([-one.head.weight, one.head.weight]))  # type: ignore[list-item]
    two.head.bias.zero_()
    images, targets = images_like(4, 1, 12, 12), [0, 1, 1, 0]
    expected = explain(make(name), two, images, targets)
    assert expected.any()
    torch.testing.assert_close(explain(make(name), one, images, targets), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_one_logit_behind_a_convolutional_head(
    explain: Callable[..., torch.Tensor], trained_like: Callable[..., nn.Module], name: str
) -> None:
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
def test_how_the_relu_is_written_does_not_matter(
    explain: Callable[..., torch.Tensor], network: Callable[..., nn.Module], name: str
) -> None:
    images, targets = images_like(2, 1, 12, 12), [0, 1]
    first, *others = (
        explain(make(name), network(relu=relu), images, targets)
        for relu in ("module", "inplace", "reused", "functional")
    )
    for other in others:
        assert torch.equal(other, first)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_map_does_not_depend_on_its_batch(
    explain: Callable[..., torch.Tensor], network: Callable[..., nn.Module], name: str
) -> None:
    model, images = network(channels=3), images_like(4, 3, 12, 12)
    images[2] = 0
    targets = torch.tensor([0, 1, 0, 1])
    together = explain(make(name), model, images, targets)
    alone = torch.cat([explain(make(name), model, images[[i]], targets[[i]]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)


class Gated(nn.Module):
    """Squeeze and excitation; `gate` freezes its value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.squeeze, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 1), nn.Linear(6, 2)
        self.gate = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images).relu()
        gate = self.squeeze(features.mean((2, 3), keepdim=True)).sigmoid() if self.gate is None else self.gate
        return self.head((features * gate).mean((2, 3)))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_gate_takes_no_relevance(
    explain: Callable[..., torch.Tensor], trained_like: Callable[..., nn.Module], name: str
) -> None:
    torch.manual_seed(0)
    model, images = trained_like(Gated()), images_like(1, 1, 8, 8)
    maps = explain(make(name), model, images, [1])
    with torch.no_grad():
        features = model.first(images).relu()
        model.gate = model.squeeze(features.mean((2, 3), keepdim=True)).sigmoid()
    torch.testing.assert_close(explain(make(name), model, images, [1]), maps, rtol=1e-5, atol=1e-7)


def test_volumes(explain: Callable[..., torch.Tensor]) -> None:
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

    def __init__(self, step: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.head, self.step = nn.Conv2d(1, 8, 3), nn.Linear(8, 2), step

    def forward(self, images: torch.Tensor) -> torch.Tensor:
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
def test_refuses_what_it_has_no_rule_for(name: str, step: Callable[..., Any], reason: str) -> None:
    model, info = Odd(step).eval(), DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    assert reason in make(name).supports(model, info)


@pytest.mark.parametrize("step", [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.LeakyReLU(), nn.ReLU6(), nn.PReLU()])
def test_other_activations_are_for_lrp_alone(step: nn.Module) -> None:
    model, info = Odd(step).eval(), DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    refusing = {name for name in EXPLAINERS if make(name).supports(model, info) is not None}
    assert refusing == {"deep-taylor", "deep-taylor-innvestigate"}


def test_deep_taylor_needs_a_relu() -> None:
    info = DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    assert "it has no ReLU" in make("deep-taylor").supports(LinearNetwork(1, (8, 8), 2), info)


def test_leaves_the_model_as_it_was() -> None:
    model = ConvNetwork(1, 2, batch_norm=True)
    assert make("lrp-gamma-box").supports(model, DatasetInfo("toy", ("a", "b"), 1, (8, 8))) is None
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


@parametrize_with_checks([SPECS[name] for name in EXPLAINERS])
def test_conformance(check: Callable[..., None]) -> None:
    check()
