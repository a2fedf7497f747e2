"""One operation's backward step each: relevance in the place of the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from xbench_baselines.relevance.rules import Layer, RelevanceRule, Shares, divided

# What autograd calls the steps defined here.
STEPS = ("Propagated", "Passed", "Masked", "Shared")


class Ledger:
    """Relevance that left on the way: to biases, to stabilisers, to units that have nothing to give it to.

    Attributes:
        taken: (N,).
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.taken = images.new_zeros(len(images))

    def enter(self, relevance: torch.Tensor, given: torch.Tensor) -> None:
        """What came, less what was given on; both sum to one number an image."""
        rows = len(self.taken)
        self.taken += relevance.reshape(rows, -1).sum(1) - given.reshape(rows, -1).sum(1)


@dataclass
class Call:
    """One call of a linear operation."""

    layer: Layer
    rule: RelevanceRule
    output: torch.Tensor | None
    ledger: Ledger | None
    trained: bool = True  # has weights: a layer of the network, not a mean
    negative: torch.Tensor | None = None  # (N,) bool: images that explain minus what the layer gives

    def shares(self, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:
        """What the rule distributes."""
        if self.negative is None:
            return self.rule(self.layer, inputs, output, relevance)
        negative = self.negative.view(-1, *[1] * (relevance.ndim - 1))
        return self.rule(self.layer, inputs, output, relevance * ~negative) + self.rule(
            self.layer.negated(), inputs, -output, relevance * negative
        )


class Propagated(torch.autograd.Function):
    """A linear operation: relevance by its rule."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, call: Call) -> torch.Tensor:
        output, call.output = call.output, None
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
    """An elementwise operation: relevance as it is."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, run: Callable[[], torch.Tensor]) -> torch.Tensor:  # noqa: ARG004
        return run()

    @staticmethod
    def backward(ctx: Any, relevance: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ARG004
        return relevance, None


class Masked(torch.autograd.Function):
    """A ReLU: relevance where it is open."""

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
    """x + factor y: relevance in proportion to the summands, or to their positive parts."""

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
