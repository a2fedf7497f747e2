"""Deconvolution and guided backpropagation: closed forms, captum, and proof that their rules fire."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Deconvolution as CaptumDeconvolution
from captum.attr import GuidedBackprop as CaptumGuided
from captum.attr import Saliency
from torch import nn
from torch.nn import functional as F

import xbench_baselines
from xbench import DatasetInfo
from xbench.compute.operations import Rules
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.gradients.backpropagation import Deconvolution, GuidedBackpropagation
from xbench_baselines.gradients.gradient import Gradient
from xbench_baselines.gradients.options import BackpropagationOptions, GradientOptions

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
COLOUR = DatasetInfo("toy", ("a", "b", "c"), 3, (16, 16))
STYLES = ("module", "functional", "inplace", "reused")
NAMED = {"deconvolution": (Deconvolution, CaptumDeconvolution), "guided": (GuidedBackpropagation, CaptumGuided)}
CONFORMING = ["deconvolution", "guided-backpropagation"]


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the largest value, which must not be zero."""
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


class OneLayer(nn.Module):
    """y = v . relu(Wx), W and v given; `relu6` caps the units."""

    def __init__(
        self, weight: torch.Tensor, readout: torch.Tensor, relu: Callable[[torch.Tensor], torch.Tensor] = F.relu
    ) -> None:
        super().__init__()
        self.weight, self.readout, self.relu = weight, readout, relu

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.relu(images.flatten(1) @ self.weight.T) @ self.readout.T


@pytest.mark.parametrize("relu", [F.relu, torch.Tensor.relu, F.relu_, nn.ReLU(), nn.ReLU(inplace=True)])
def test_one_layer_has_a_closed_form(explain: Callable[..., torch.Tensor], relu: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    weight, readout, images = torch.randn(7, 20), torch.randn(3, 7), noise(4, 1, 5, 4)
    model, targets = OneLayer(weight, readout, relu), torch.tensor([0, 1, 2, 2])
    positive = readout[targets].clamp(min=0)
    active = (images.flatten(1) @ weight.T > 0).float()
    assert 0 < active.mean() < 1
    close(explain(Deconvolution(BackpropagationOptions()), model, images, targets).flatten(1), positive @ weight, 1e-6)
    guided = explain(GuidedBackpropagation(BackpropagationOptions()), model, images, targets).flatten(1)
    close(guided, (positive * active) @ weight, 1e-6)


@pytest.mark.parametrize("relu", [F.relu6, nn.ReLU6(inplace=True), lambda x: F.hardtanh(x, 0.0, 6.0)])
def test_relu6_passes_nothing_beyond_its_cap(explain: Callable[..., torch.Tensor], relu: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    weight, readout, images = 6 * torch.randn(9, 20), torch.randn(2, 9), noise(4, 1, 5, 4)
    model, targets = OneLayer(weight, readout, relu), torch.tensor([0, 1, 0, 1])
    units = images.flatten(1) @ weight.T
    active = ((units > 0) & (units < 6)).float()
    assert (units > 6).any()
    expected = (readout[targets].clamp(min=0) * active) @ weight
    guided = GuidedBackpropagation(BackpropagationOptions())
    close(explain(guided, model, images, targets).flatten(1), expected, 1e-6)
    assert guided.supports(model, DatasetInfo("toy", ("a", "b"), 1, (5, 4))) is None


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("relu", STYLES)
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_every_style_gives_what_captum_gives_for_modules(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork], name: str, relu: str
) -> None:
    kind, reference = NAMED[name]
    images, targets = noise(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    expected = reference(styled_network("module")).attribute(images.clone().requires_grad_(), target=targets).sum(1)
    explainer = kind(BackpropagationOptions())
    assert explainer.supports(styled_network(relu), COLOUR) is None
    close(explain(explainer, styled_network(relu), images, targets), expected)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_captum_gives_the_plain_gradient_of_a_functional_network(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork], name: str
) -> None:
    """Why captum is not used: a rule that never fires, without a word."""
    kind, reference = NAMED[name]
    model, images, targets = styled_network("functional"), noise(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    theirs = reference(model).attribute(images.clone().requires_grad_(), target=targets).sum(1)
    plain = Saliency(model).attribute(images.clone().requires_grad_(), target=targets, abs=False).sum(1)
    close(theirs, plain, 1e-6)
    ours = explain(kind(BackpropagationOptions()), model, images, targets)
    assert (ours - plain).abs().max() > 0.1 * plain.abs().max()


class Squeezed(nn.Module):
    """Max pooling, squeeze and excitation, a skip connection; `gate` is what the excitation ends in."""

    def __init__(self, gate: Callable[[torch.Tensor], torch.Tensor] = torch.sigmoid) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite, self.head = nn.Linear(8, 4), nn.Linear(4, 8), nn.Linear(8, 3)
        self.gate = gate

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = F.max_pool2d(F.relu(self.stem(images)), 3, stride=2, padding=1)
        weight = self.gate(self.excite(F.relu(self.squeeze(features.mean((2, 3))))))
        features = F.relu_(features + self.inner(features) * weight[:, :, None, None])
        return self.head(F.adaptive_max_pool2d(features, 1).flatten(1))


@pytest.mark.parametrize("name", NAMED)
def test_gates_and_max_pooling_pass_the_gradient_as_it_is(explain: Callable[..., torch.Tensor], name: str) -> None:
    torch.manual_seed(0)
    kind, _ = NAMED[name]
    model, images, targets = Squeezed().eval(), noise(2, 3, 16, 16), torch.tensor([0, 2])
    explainer = kind(BackpropagationOptions())
    assert explainer.supports(model, COLOUR) is None
    # By hand: the rule as surrogates whose plain gradient is the rule's.
    images.requires_grad_()
    features = [model.stem(images)]
    clamped = {"guided": lambda g, z: g.clamp(min=0) * (z > 0), "deconvolution": lambda g, z: g.clamp(min=0)}[name]

    def ruled(features: torch.Tensor) -> torch.Tensor:
        rectified = features.relu()
        if name == "deconvolution":  # the value of relu, the derivative of the identity
            rectified = features + (rectified - features).detach()
        rectified.register_hook(lambda given: clamped(given, features))
        return rectified

    features = F.max_pool2d(ruled(features[0]), 3, stride=2, padding=1)  # type: ignore[assignment]
    weight = torch.sigmoid(model.excite(ruled(model.squeeze(features.mean((2, 3))))))
    features = ruled(features + model.inner(features) * weight[:, :, None, None])  # type: ignore[assignment]
    score = model.head(F.adaptive_max_pool2d(features, 1).flatten(1)).gather(1, targets[:, None]).sum()  # type: ignore[call-overload]
    (expected,) = torch.autograd.grad(score, images)
    close(explain(explainer, model, images.detach(), targets), expected.sum(1))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (LinearNetwork(3, (16, 16), 3), "it has no ReLU"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(784, 3)), "it has no ReLU"),
        (Squeezed(torch.tanh), "no rule for tanh"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.SiLU(), nn.Flatten(), nn.Linear(784, 3)), "no rule for SiLU"),
        (Squeezed(lambda features: features * torch.sigmoid(features)), "no rule for SiLU"),
        (nn.Sequential(nn.ReLU(), nn.Hardtanh(-1, 1), nn.Flatten(), nn.Linear(768, 3)), "no rule for a clamp"),
    ],
)
def test_other_models_are_refused_with_the_reason(name: str, model: nn.Module, reason: str) -> None:
    assert reason in NAMED[name][0](BackpropagationOptions()).supports(model, COLOUR)


@pytest.mark.parametrize("name", NAMED)
def test_a_rule_that_does_not_fire_is_found(
    styled_network: Callable[..., ConvNetwork], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lines of defence: the recorded graph, and hooks on autograd's own nodes."""
    explainer = NAMED[name][0](BackpropagationOptions())
    with monkeypatch.context() as patch:
        patch.setattr(
            Rules, "__torch_function__", lambda self, func, types, args=(), kwargs=None: func(*args, **kwargs or {})
        )
        assert "no rule for ReLU" in explainer.supports(styled_network(), COLOUR)
        assert "hooks on the model's own ReLUs" in explainer._unproven(styled_network(), noise(2, 3, 16, 16))


@pytest.mark.parametrize("training", [True, False])
def test_supports_leaves_the_model_as_it_was(styled_network: Callable[..., ConvNetwork], training: bool) -> None:
    model = styled_network().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for kind, _ in NAMED.values():
        assert kind(BackpropagationOptions(score="class")).supports(model, COLOUR) is None
    assert Gradient(GradientOptions(score="neuron")).supports(model, COLOUR)
    assert all(module.training == training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@parametrize_with_checks([SPECS[name] for name in CONFORMING])
def test_conformance(check: Callable[..., None]) -> None:
    check()
