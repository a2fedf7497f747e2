"""Rules stand at the operation, however a network is written."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xbench.compute.operations import Rules
from xbench.testing.networks import ConvNetwork

STYLES = ("module", "inplace", "reused", "functional")


def _count(style: str) -> list[str]:
    seen = []
    with Rules(watch=lambda operation, result: seen.append(operation.kind)):
        ConvNetwork(1, 2, relu=style, batch_norm=True).eval()(torch.rand(2, 1, 16, 16))
    return seen


@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_relu_is_the_same_operation(style: str) -> None:
    seen = _count(style)
    assert [seen.count(kind) for kind in ("relu", "convolution", "batch_norm", "linear")] == [3, 3, 3, 1]


@pytest.mark.parametrize(
    "call",
    [
        torch.relu,
        torch.relu_,
        F.relu,
        F.relu_,
        lambda x: F.relu(x, True),
        lambda x: F.relu(x, inplace=True),
        lambda x: F.relu(input=x),
        torch.Tensor.relu,
        torch.Tensor.relu_,
        nn.ReLU(),
        nn.ReLU(inplace=True),
    ],
)
def test_a_rule_takes_the_place_of_every_spelling_of_relu(call: Callable[..., Any]) -> None:
    values = torch.tensor([-1.0, 2.0], requires_grad=True)
    with Rules({"relu": lambda operation: operation.input * 10}) as rules:
        result = call(values * 1)
    assert result.tolist() == [-10.0, 20.0]
    assert rules.fired["relu"] == 1


@pytest.mark.parametrize("in_place", [True, False])
def test_a_watcher_may_let_activations_overwrite_what_they_get(in_place: bool) -> None:
    names, kept = [], []

    def watch(operation: Any, result: torch.Tensor) -> None:
        names.append(operation.name)
        kept.append((result, result.clone()))

    with Rules(watch=watch, in_place=in_place):
        F.relu(torch.tensor([-1.0, 2.0]) * 3, inplace=True)
    assert names == ["mul", "relu"]
    assert [torch.equal(result, then) for result, then in kept] == [not in_place, True]


def test_in_place_operations_leave_what_a_rule_gave() -> None:
    given = []

    def rule(operation: Any) -> torch.Tensor:
        given.append(operation.run())
        return given[-1]

    def network(x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        x += 1
        x.mul(2)
        x *= 2
        return F.relu(x, inplace=True)

    with Rules({"relu": rule}):
        result = network(torch.tensor([-1.0, 1.0]))
    assert given[0].tolist() == [0.0, 1.0]
    assert result.tolist() == [2.0, 4.0]


def test_arguments_are_found_however_they_were_passed() -> None:
    seen = {}

    def watch(operation: Any, result: torch.Tensor) -> None:
        seen[operation.name] = (operation.argument(3, "stride", 1), operation.argument(2, "bias"))

    weight = torch.ones(1, 1, 2, 2)
    with Rules(watch=watch):
        F.conv2d(torch.ones(1, 1, 4, 4), weight, None, 2)
    assert seen["conv2d"] == (2, None)
    with Rules(watch=watch):
        F.conv2d(torch.ones(1, 1, 4, 4), weight, stride=2, bias=torch.ones(1))
    assert seen["conv2d"][0] == 2
    assert seen["conv2d"][1] is not None


def test_operation_on_another_input() -> None:
    results = []
    with Rules({"convolution": lambda operation: results.append(operation.on(2 * operation.input)) or operation.run()}):
        plain = F.conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(results[0], 2 * plain)


def test_integers_and_sizes_are_left_alone() -> None:
    with Rules({"add": lambda operation: pytest.fail("not an operation of the network")}):
        assert (torch.arange(3) + 1).tolist() == [1, 2, 3]


def test_the_right_operand_counts_as_well() -> None:
    with Rules({"add": lambda operation: "ruled"}):
        assert torch.add(torch.ones(2), 1) == "ruled"
        assert 1 + torch.ones(2) == "ruled"


def test_nothing_is_left_behind() -> None:
    network = ConvNetwork(1, 2)
    images = torch.rand(1, 1, 16, 16)
    before = network(images)
    with Rules({"relu": lambda operation: operation.input}):
        network(images)
    torch.testing.assert_close(network(images), before, rtol=0, atol=0)
