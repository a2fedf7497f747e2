"""Rules of layer-wise relevance propagation: how one linear layer passes relevance to its inputs.

A layer is z = W a + b. W may be a convolution, a dense layer, a mean or a diagonal map. A rule chooses contributions:
numbers for each pair of an input and an output, in the simplest case a w. It divides the relevance R of each output
among them in proportion: s = R / (their sum + stabiliser), and the inputs get a * (W^T s). Every rule is linear in R.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

# Added to denominators, with their sign, where a rule has no epsilon of its own; zennit's value.
STABILISER = 1e-6

_POSITIVE = {"min": 0.0}  # for clamp
_NEGATIVE = {"max": 0.0}


@dataclass(frozen=True)
class Layer:
    """z = (scale W) a + bias, as the model computed it.

    Attributes:
        function: (a, W) -> W a, without bias.
        kernel: W as the model holds it.
        bias: Broadcastable to z, or None.
        leaf: The model's own input to this layer, detached.
        edge: Edge of W leaf in torch's autograd graph, which gives W^T s without a second forward pass.
        scale: Factor of each output that belongs to the layer (from a merged batch norm), broadcastable to z, or None.
    """

    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    kernel: torch.Tensor
    bias: torch.Tensor | None
    leaf: torch.Tensor
    edge: torch.autograd.graph.GradientEdge
    scale: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        """Return W, scaled."""
        if self.scale is None:
            return self.kernel
        return self.kernel * self.scale.reshape(-1, *[1] * (self.kernel.ndim - 1))

    def merged(self, scale: torch.Tensor, shift: torch.Tensor) -> Layer:
        """Return the layer that gives scale * z + shift."""
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, bias=bias, scale=scale if self.scale is None else self.scale * scale)

    def negated(self) -> Layer:
        """Return the layer that gives -z."""
        minus = self.kernel.new_full((), -1.0)
        return self.merged(minus, torch.zeros_like(minus))


class Contributions(Protocol):
    """The contributions of the inputs to the outputs of a layer.

    Attributes:
        total: Their sum for each output, the shape of z.
    """

    @property
    def total(self) -> torch.Tensor: ...

    def distribute(self, share: torch.Tensor) -> torch.Tensor:
        """Return each input's contributions weighted with `share` (the shape of z), summed over the outputs."""


class Own:
    """The model's own contributions a w. They cost one data-gradient and no forward pass."""

    def __init__(self, layer: Layer, output: torch.Tensor) -> None:
        self._layer, self._output = layer, output

    @functools.cached_property
    def total(self) -> torch.Tensor:
        """Return z without the bias."""
        bias = self._layer.bias
        return self._output if bias is None else self._output - bias

    def distribute(self, share: torch.Tensor) -> torch.Tensor:
        """Return the inputs times W^T share."""
        layer = self._layer
        # The edge belongs to the layer as the model has it, without the merged batch norm.
        scaled = share if layer.scale is None else share.mul(layer.scale)
        (gradient,) = torch.autograd.grad(layer.edge, layer.leaf, scaled, retain_graph=True)
        return layer.leaf.detach() * gradient


class Terms:
    """The sum of contributions a' w' over several terms. Each term costs one forward pass and one data-gradient.

    Args:
        layer: Layer with the operation.
        terms: Pairs of an input a' and a weight w'.
    """

    def __init__(self, layer: Layer, terms: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        with torch.enable_grad():
            # Each term has its own leaf, so that one call of autograd gives w'^T share of each term separately.
            self._inputs = [inputs.detach().requires_grad_() for inputs, _ in terms]
            weights = [weight for _, weight in terms]
            self._outputs = [layer.function(*pair) for pair in zip(self._inputs, weights, strict=True)]
        sums = [output.detach() for output in self._outputs]
        # Start with the first term. Starting with 0 would cost one more pass over a tensor as large as the layer.
        self.total = sum(sums[1:], sums[0])

    def distribute(self, share: torch.Tensor) -> torch.Tensor:
        """Return the sum over terms of a' * (w'^T share)."""
        gradients = torch.autograd.grad(self._outputs, self._inputs, [share] * len(self._outputs))
        products = [inputs.detach() * gradient for inputs, gradient in zip(self._inputs, gradients, strict=True)]
        return sum(products[1:], products[0])


class Difference:
    """The contributions `first` minus the contributions `second`."""

    def __init__(self, first: Contributions, second: Contributions) -> None:
        self._first, self._second = first, second
        self.total = first.total - second.total

    def distribute(self, share: torch.Tensor) -> torch.Tensor:
        """Return the difference between the two results."""
        return self._first.distribute(share) - self._second.distribute(share)


Shares = list[tuple[Contributions, torch.Tensor]]


class RelevanceRule(Protocol):
    """A rule: the contributions to distribute, each with its share s of the relevance."""

    def __call__(self, layer: Layer, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares: ...


def divided(relevance: torch.Tensor, denominator: torch.Tensor, epsilon: float = STABILISER) -> torch.Tensor:
    """Return the shares s = R / (denominator + epsilon sign(denominator)), where sign(0) = 1 (and sign(-0.0) = -1)."""
    # copysign is many times faster than where on a CPU, and large tensors cost more to allocate than to fill.
    stabilised = torch.copysign(denominator.new_full((), epsilon), denominator).add_(denominator)
    return torch.div(relevance, stabilised, out=stabilised)


@dataclass(frozen=True)
class Epsilon:
    """a w / (z + epsilon sign z) (Bach et al. 2015, eq. 58). Data-gradients: 1; further forward passes: 0.

    Attributes:
        epsilon: Number added to z. The relevance that falls on it is lost.
        bias: Whether z includes the bias, which then takes its part of the relevance. Without it, the sum is conserved.
    """

    epsilon: float = STABILISER
    bias: bool = True

    def __call__(self, layer: Layer, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:  # noqa: ARG002
        """Share the relevance among the model's own contributions."""
        own = Own(layer, output)
        return [(own, divided(relevance, output if self.bias else own.total, self.epsilon))]


@dataclass(frozen=True)
class Gamma:
    """a (w + gamma w+) / sum (Montavon et al. 2019, section 10.2.1), for inputs and outputs of either sign.

    The generalisation is that of Andeol et al. 2021. Where z > 0, contributions above zero are strengthened. Where
    z < 0, contributions below zero are. If a ReLU follows the layer, only outputs with z > 0 have relevance.
    Data-gradients and further forward passes: 1 each for inputs >= 0 if a ReLU follows; 2 each if none does; twice that
    for inputs of both signs.

    Attributes:
        gamma: Strength. 0 gives the epsilon rule, infinity the z+ rule.
        bias: Whether z and the denominators include the bias. (zennit always takes the sign of z with the bias. Its
            denominators without the bias may come near zero.)
    """

    gamma: float = 0.25
    bias: bool = True

    def __call__(self, layer: Layer, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:
        """Share the relevance where z > 0 among one kind of contributions, and where z < 0 among another."""
        parts, shares = _by_sign(inputs), Shares()
        # Each output needs the contributions for the sign of its z. The outputs of one sign lie scattered, and a
        # convolution can't skip the others. So both kinds are computed for all outputs, and the relevance of the
        # outputs that need the other kind is set to zero.
        total = output if self.bias or layer.bias is None else output - layer.bias
        for same, other, here in ((_POSITIVE, _NEGATIVE, total > 0), (_NEGATIVE, _POSITIVE, total < 0)):
            share = relevance * here
            if shares and not bool(share.any()):
                continue  # if a ReLU follows, outputs with z < 0 have no relevance, and half of the work is saved
            # gamma strengthens a w with the sign of z: w of this sign for inputs a+, of the other sign for inputs a-.
            bounds = (same, other)[: len(parts)]
            weights = [layer.weight.add(layer.weight.clamp(**bound), alpha=self.gamma) for bound in bounds]
            terms = Terms(layer, list(zip(parts, weights, strict=True)))
            denominator = terms.total
            if self.bias and layer.bias is not None:
                denominator = denominator + layer.bias + self.gamma * layer.bias.clamp(**same)
            shares.append((terms, divided(share, denominator)))
        return shares


@dataclass(frozen=True)
class AlphaBeta:
    """alpha (a w)+ / sum+ - beta (a w)- / sum-, alpha - beta = 1 (Bach et al. 2015, eq. 60); alpha = 1 is the z+ rule.

    The signs of the inputs count: (a w)+ = a+ w+ + a- w-. An output may have contributions of one sign only, for
    example at the edge of a black background. These then take exactly R, because alpha R would be more relevance than
    there was. Data-gradients and further forward passes: 1 each for beta = 0 and inputs >= 0; 2 each with beta; twice
    that for inputs of both signs.

    Attributes:
        alpha: Weight of contributions above zero.
        beta: Weight of contributions below zero.
        bias: Whether sum+ includes max(b, 0) and sum- includes min(b, 0).
    """

    alpha: float = 2.0
    beta: float = 1.0
    bias: bool = True

    def __call__(self, layer: Layer, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:  # noqa: ARG002
        """Share alpha of the relevance among contributions above zero, and -beta of it among those below."""
        parts = _by_sign(inputs)
        above, positive = self._sum(layer, parts, _POSITIVE, _NEGATIVE)
        if self.beta == 0:
            return [(above, divided(relevance, positive))]
        below, negative = self._sum(layer, parts, _NEGATIVE, _POSITIVE)
        # The weights alpha and -beta, each replaced by alpha - beta = 1 where no contribution has the other sign.
        for_it = (negative == 0).to(relevance.dtype).mul_(-self.beta).add_(self.alpha)
        against = (positive == 0).to(relevance.dtype).mul_(self.alpha).sub_(self.beta)
        return [
            (above, divided(for_it * relevance, positive)),
            (below, divided(against * relevance, negative)),
        ]

    def _sum(
        self, layer: Layer, parts: tuple[torch.Tensor, ...], same: dict[str, float], other: dict[str, float]
    ) -> tuple[Terms, torch.Tensor]:
        """Return the contributions on one side of zero, and their denominator."""
        # (a w) has the sign of w where a > 0, and the opposite one where a < 0.
        weights = [layer.weight.clamp(**bound) for bound in (same, other)[: len(parts)]]
        terms = Terms(layer, list(zip(parts, weights, strict=True)))
        if not self.bias or layer.bias is None:
            return terms, terms.total
        return terms, terms.total + layer.bias.clamp(**same)


@dataclass(frozen=True)
class WSquare:
    """w^2 / sum (Montavon et al. 2017, sec. 4.1), which ignores the inputs. One forward pass, one data-gradient."""

    def __call__(self, layer: Layer, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:  # noqa: ARG002
        """Share the relevance among the contributions with all inputs set to 1."""
        terms = Terms(layer, [(torch.ones_like(inputs), layer.weight**2)])
        return [(terms, divided(relevance, terms.total))]


@dataclass(frozen=True)
class Flat:
    """1 / fan-in (Lapuschkin et al. 2019), which ignores inputs and weights. One forward pass, one data-gradient."""

    def __call__(self, layer: Layer, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:  # noqa: ARG002
        """Share the relevance among the contributions with all inputs and weights set to 1."""
        terms = Terms(layer, [(torch.ones_like(inputs), torch.ones_like(layer.kernel))])
        return [(terms, divided(relevance, terms.total))]


@dataclass(frozen=True)
class Box:
    """z^B: (a w - low w+ - high w-) / sum (Montavon et al. 2017, section 4.2), for inputs in [low, high].

    All contributions are >= 0. The bias takes no part, because it does not depend on the input. Data-gradients: 3;
    further forward passes: 2.

    Attributes:
        low: Lowest value of each input, broadcastable to it.
        high: Highest value of each input, broadcastable to it.
    """

    low: torch.Tensor | float = 0.0
    high: torch.Tensor | float = 1.0

    def __call__(self, layer: Layer, inputs: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> Shares:
        """Share the relevance among the distances from the corner of the box where the layer's output is lowest."""
        # In that corner, an input has its lowest value if its weight is positive, and its highest value if its weight
        # is negative. Each output has another corner, so one image is not enough and two terms are needed.
        weight = layer.weight
        low, high = (torch.as_tensor(bound).to(inputs).expand_as(inputs) for bound in (self.low, self.high))
        corner = Terms(layer, [(low, weight.clamp(min=0)), (high, weight.clamp(max=0))])
        box = Difference(Own(layer, output), corner)
        return [(box, divided(relevance, box.total))]


def _by_sign(inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return a+ and a-, or only a if no input is below zero. This saves half of the convolutions behind a ReLU."""
    if not bool((inputs < 0).any()):
        return (inputs,)
    return inputs.clamp(min=0), inputs.clamp(max=0)
