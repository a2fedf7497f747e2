"""The backward steps of single operations, with relevance in the place of the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from xbench_baselines.relevance.rules import Layer, RelevanceRule, Shares, divided

# Autograd's names of the steps defined here.
STEPS = ("Propagated", "Passed", "Masked", "Shared")


class Ledger:
    """Record of the relevance lost on the way: to biases, to stabilisers and to units that can't pass it on.

    Attributes:
        taken: Lost relevance of each image, (N,).
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.taken = images.new_zeros(len(images))

    def enter(self, relevance: torch.Tensor, given: torch.Tensor) -> None:
        """Add the relevance that an operation received minus what it passed on, each summed per image."""
        rows = len(self.taken)
        self.taken += relevance.reshape(rows, -1).sum(1) - given.reshape(rows, -1).sum(1)


@dataclass
class Call:
    """One call of a linear operation.

    Attributes:
        layer: The operation as a layer.
        rule: Rule that shares the relevance.
        output: Output z, until `Propagated` has taken it.
        ledger: Ledger that records lost relevance, if any.
        trained: Whether the operation is a layer of the network with weights, not a mean or a batch norm.
        negative: Images whose maps explain the negated output -z, bool (N,), or None if there are none.
    """

    layer: Layer
    rule: RelevanceRule
    output: torch.Tensor | None
    ledger: Ledger | None
    trained: bool = True
    negative: torch.Tensor | None = None

    def shares(self, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:
        """Return the contributions that the rule distributes, with their shares."""
        if self.negative is None:
            return self.rule(self.layer, inputs, output, relevance)
        negative = self.negative.view(-1, *[1] * (relevance.ndim - 1))
        return self.rule(self.layer, inputs, output, relevance * ~negative) + self.rule(
            self.layer.negated(), inputs, -output, relevance * negative
        )


class Propagated(torch.autograd.Function):
    """A linear operation, which passes relevance on by its rule."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, call: Call) -> torch.Tensor:
        output, call.output = call.output, None  # only autograd keeps it from here on, and frees it with the graph
        assert output is not None
        ctx.call = call
        ctx.save_for_backward(inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, relevance: torch.Tensor) -> tuple[torch.Tensor, None]:
        call: Call = ctx.call
        inputs, output = ctx.saved_tensors
        shares = call.shares(inputs, output, relevance)
        if call.ledger is not None:
            call.ledger.enter(relevance, sum((terms.total * share for terms, share in shares[1:]), _given(shares[0])))
        parts = [terms.distribute(share) for terms, share in shares]
        return sum(parts[1:], parts[0]), None


class Passed(torch.autograd.Function):
    """An elementwise operation, which passes relevance on as it is."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, run: Callable[[], torch.Tensor]) -> torch.Tensor:  # noqa: ARG004
        return run()

    @staticmethod
    def backward(ctx: Any, relevance: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ARG004
        return relevance, None


class Masked(torch.autograd.Function):
    """A ReLU, which passes relevance on where it is open."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, ledger: Ledger | None) -> torch.Tensor:
        output = inputs.relu()
        ctx.ledger = ledger
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, relevance: torch.Tensor) -> tuple[torch.Tensor, None]:
        (output,) = ctx.saved_tensors
        given = relevance * (output > 0)
        if ctx.ledger is not None:
            ctx.ledger.enter(relevance, given)
        return given, None


class Shared(torch.autograd.Function):
    """x + factor y, which splits relevance in proportion to the summands, or to their positive parts."""

    @staticmethod
    def forward(ctx: Any, first: torch.Tensor, second: torch.Tensor, factor: float, *how: Any) -> torch.Tensor:
        total = first + second if factor == 1 else torch.add(first, second, alpha=factor)
        ctx.how = factor, *how
        ctx.save_for_backward(first, second, total)
        return total

    @staticmethod
    def backward(ctx: Any, relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None, None]:
        factor, positive, epsilon, ledger = ctx.how
        first, second, total = ctx.saved_tensors
        second = second if factor == 1 else second * factor
        if positive:
            first, second = first.clamp(min=0), second.clamp(min=0)
            total = first + second
        share = divided(relevance, total, epsilon)
        if ledger is not None:
            ledger.enter(relevance, total * share)
        return (
            (first * share).sum_to_size(first.shape),
            (second * share).sum_to_size(second.shape),
            None,
            None,
            None,
            None,
        )


def _given(share: tuple[Any, torch.Tensor]) -> torch.Tensor:
    product: torch.Tensor = share[0].total * share[1]
    return product
