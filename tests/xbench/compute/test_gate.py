"""The gate finds rules that do not take effect, in every way in which they don't."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xbench import DatasetInfo
from xbench.compute.gate import MAXIMA, deviation, operations_behind, probe, refusal, unanswered
from xbench.testing.networks import ConvNetwork

INFO = DatasetInfo("toy", ("a", "b"), 1, (16, 16))


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(values > 0)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, signal: torch.Tensor) -> torch.Tensor:
        return signal.clamp(min=0) * ctx.saved_tensors[0]


RULES = {"relu": lambda operation: Guided.apply(operation.input)}


def _relu(found: Counter[str]) -> str | None:
    return None if found["Relu"] else "it has no ReLU"


def _reason(network: nn.Module, rules: Any = RULES, answered: tuple[str, ...] = ("Guided",)) -> str | None:
    return refusal(network.eval(), probe(INFO, network), rules, answered, _relu)


class Network(nn.Module):
    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)
        self.between = between

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(images)).mean((2, 3)))


@pytest.mark.parametrize("style", ["module", "inplace", "reused", "functional"])
def test_rules_fire_in_every_style(style: str) -> None:
    assert _reason(ConvNetwork(1, 2, relu=style, batch_norm=True)) is None


def test_a_model_without_what_the_rules_are_for_is_refused() -> None:
    assert _reason(Network(F.silu)) == "it has no ReLU"


def test_an_activation_without_a_rule_is_named() -> None:
    assert "SiLU" in _reason(Network(lambda x: F.silu(F.relu(x))))
    assert "a product of two activations" in _reason(Network(lambda x: F.relu(x) * x.sigmoid()))
    assert "a softmax" in _reason(Network(lambda x: F.relu(x).softmax(1)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # users still have such modules
def test_a_relu_hidden_in_a_compiled_function_is_found() -> None:
    hidden = torch.jit.script(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()))
    assert _reason(Network(lambda x: F.relu(hidden(x)))) is not None


def test_a_rule_that_is_not_applied_is_found() -> None:
    assert "ReLU" in _reason(ConvNetwork(1, 2), rules={"activation": lambda operation: operation.run()})


def test_a_rule_that_changes_the_logits_is_found() -> None:
    assert "other logits" in _reason(ConvNetwork(1, 2), rules={"relu": lambda op: 2 * Guided.apply(op.input)})


def test_reliance_on_an_in_place_side_effect_is_found() -> None:
    def careless(x: torch.Tensor) -> torch.Tensor:
        F.relu_(x)  # the result is thrown away, the side effect is meant
        return F.relu(1 + x)

    assert "other logits" in _reason(Network(careless))


def test_the_model_is_left_as_it_was() -> None:
    network = ConvNetwork(1, 2, batch_norm=True).train()
    refusal(network, probe(INFO, network), RULES, ("Guided",), _relu)
    assert network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_operations_up_to_a_tensor() -> None:
    images = torch.rand(1, 1, 8, 8, requires_grad=True)
    features = F.relu(images)
    score = (features.sigmoid() * 3).mean()
    assert operations_behind(score)["Relu"] == 1
    assert set(operations_behind(score, [features])) == {"Mean", "MulConstant", "Sigmoid"}
    assert unanswered(operations_behind(score), ["Relu"]) == ["a sigmoid"]


def test_deviation_is_relative_to_the_largest() -> None:
    assert deviation(torch.tensor([1.0, 10.0]), torch.tensor([1.1, 10.0])) == pytest.approx(0.01)
    assert deviation(torch.zeros(2), torch.zeros(2)) == 0


MAXIMUM_OF = {
    "max_pool1d": lambda x: F.max_pool1d(x[0], 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool3d": lambda x: F.max_pool3d(x, (1, 2, 2)),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x[0], 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x, (1, 2, 2)),
    "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(x, 2, output_size=3),
    "fractional_max_pool3d": lambda x: F.fractional_max_pool3d(x, 1, output_size=(1, 3, 3)),
    "amax": lambda x: x.amax((2, 3)),
    "max over an axis": lambda x: x.max(3)[0],
    "max": lambda x: x.max(),
    "mkldnn_max_pool2d": lambda x: F.max_pool2d(x.to_mkldnn(), 2).to_dense(),
    "mkldnn_max_pool3d": lambda x: F.max_pool3d(x[None].to_mkldnn(), (1, 2, 2)).to_dense(),
}


@pytest.mark.parametrize("kind", MAXIMUM_OF)
def test_every_operation_that_picks_a_largest_value_is_found(kind: str) -> None:
    if kind.startswith("mkldnn") and not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without MKL-DNN")
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    found = operations_behind(MAXIMUM_OF[kind](images).sum())
    assert MAXIMA & set(found)
    assert unanswered(found)
    assert unanswered(found, MAXIMA) == []
    if "pool" in kind:
        assert unanswered(found) == ["max pooling"]


def test_every_name_of_a_maximum_is_one_that_torch_knows() -> None:
    assert {f"{name}Backward0" for name in MAXIMA} <= set(dir(torch._C._functions))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without MKL-DNN")
def test_a_max_pooling_of_mkldnn_is_not_taken_for_linear() -> None:
    network = Network(lambda x: F.relu(F.max_pool2d(x.to_mkldnn(), 2).to_dense()))
    assert _reason(network) == "it has no rule for max pooling in this model"
    assert _reason(network, answered=("Guided", *MAXIMA)) is None
