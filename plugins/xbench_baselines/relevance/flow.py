"""Relevance through a whole model: autograd's backward pass with relevance in the place of gradients.

Each linear operation, activation, addition, product and mean that the model calls (`xbench.compute.operations`) gets a
backward step that passes relevance on. All other operations (views, concatenation, slicing, max pooling) are left to
autograd, which routes relevance like gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from xbench import class_scores
from xbench.compute.operations import Operation, Rule, Rules
from xbench_baselines.relevance.rules import STABILISER, AlphaBeta, Box, Epsilon, Layer, RelevanceRule
from xbench_baselines.relevance.steps import Call, Ledger, Masked, Passed, Propagated, Shared

# Elementwise activations that are zero at zero, so that their whole output comes from their input.
_ZERO_AT_ZERO = frozenset(
    ["silu", "gelu", "hardswish", "mish", "tanh", "softsign", "elu", "selu", "celu", "leaky_relu", "prelu"]
)
_GATES = ("Sigmoid", "Hardsigmoid", "Softmax")
_RESHAPES = ("View", "ReshapeAlias", "UnsafeView", "Expand", "Unsqueeze", "Squeeze", "Clone", "Alias")


@dataclass(frozen=True)
class Composite:
    """The rule for each kind of operation.

    Attributes:
        convolution: Rule of convolutions, with the batch norm behind them merged in.
        dense: Rule of linear layers, with the batch norm behind them merged in.
        first: Rule of every layer that sees the image itself, or None for the rule of the other layers.
        mean: Rule of average pooling and means, or None to treat them like additions.
        batch_norm: Rule of batch norms with no linear layer right before them, which are diagonal maps. With None, they
            pass relevance on as it is, and their bias takes none.
        positive: Whether additions split relevance by the positive parts of the summands instead of the summands.
        masks: Whether a ReLU stops the relevance of units at zero. Only rules that ignore activations give them any.
        activations: Whether activations other than ReLU that are zero at zero pass relevance on.
        stabiliser: Stabiliser of additions and means.
    """

    convolution: RelevanceRule
    dense: RelevanceRule
    first: RelevanceRule | None = None
    mean: RelevanceRule | None = None
    batch_norm: RelevanceRule | None = None
    positive: bool = False
    masks: bool = False
    activations: bool = True
    stabiliser: float = STABILISER


class Flow:
    """The rules for one pass of one batch through a model.

    Args:
        composite: Rule for each kind of operation.
        ledger: Ledger that records relevance lost on the way, if given.

    Attributes:
        first: Number of a call of a layer that sees the image itself -> the call, without and with a merged batch norm.
    """

    def __init__(self, composite: Composite, ledger: Ledger | None = None) -> None:
        self._composite = composite
        self._ledger = ledger
        self._calls = 0
        self._made: Any = WeakTensorKeyDictionary()  # output of a layer -> (number, input, call)
        self.first: dict[int, list[Call]] = {}

    def rules(self) -> dict[str, Rule]:
        """Return the rules for `xbench.compute.operations.Rules`."""
        rules: dict[str, Rule] = {
            **dict.fromkeys(("convolution", "linear"), self._layer),
            **dict.fromkeys(("average_pool", "mean", "sum"), self._mean),
            **dict.fromkeys(("add", "subtract"), self._add),
            **dict.fromkeys(("multiply", "divide"), self._scale),
            "batch_norm": self._batch_norm,
            "relu": self._relu,
        }
        if self._composite.activations:
            rules |= dict.fromkeys(("activation", "clamp", "prelu"), self._activation)
        return rules

    def _layer(self, operation: Operation) -> torch.Tensor:
        # Calls without relevance are counted too, because `_fit_boxes` finds the layers again by their numbers.
        number, self._calls = self._calls, self._calls + 1
        inputs = operation.input
        if not inputs.requires_grad:
            return _plain(operation)
        layer, output = _layer_of(operation)
        rule = self._composite.convolution if operation.kind == "convolution" else self._composite.dense
        # A layer sees the image itself if no other layer lies between them. Normalisation of the input may.
        if self._composite.first is not None and not any(_nearest_calls(inputs)):
            rule, self.first[number] = self._composite.first, []
        return self._called(number, inputs, Call(layer, rule, output, self._ledger))

    def _called(self, number: int, inputs: torch.Tensor, call: Call) -> torch.Tensor:
        if number in self.first:
            self.first[number].append(call)
        result = _propagated(inputs, call)
        self._made[result] = number, inputs, call
        return result

    def _batch_norm(self, operation: Operation) -> torch.Tensor:
        inputs = operation.input
        affine = _affine(operation) if inputs.requires_grad else None
        if affine is None:
            return _plain(operation)
        scale, shift = affine
        output = operation.on(inputs.detach())
        if inputs in self._made:
            # It follows a layer, so both become one layer with the input of the first. The graph then goes around the
            # first layer's own backward step.
            number, before, call = self._made[inputs]
            return self._called(number, before, replace(call, layer=call.layer.merged(scale, shift), output=output))
        if self._composite.batch_norm is None:
            return _passed(inputs, operation)
        # Elsewhere it is a layer with a diagonal W. Autograd has to record a product for it.
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_()
            edge = torch.autograd.graph.get_gradient_edge(leaf * scale)
        layer = Layer(torch.mul, scale, shift, leaf, edge)
        return _propagated(inputs, Call(layer, self._composite.batch_norm, output, self._ledger, trained=False))

    def _mean(self, operation: Operation) -> torch.Tensor:
        inputs = operation.input
        if not inputs.requires_grad:
            return _plain(operation)
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_()
            output = operation.on(leaf)
        edge = torch.autograd.graph.get_gradient_edge(output)
        # A mean has no weights for a rule to work on. So its W is the number 1, which multiplies the operation. It is
        # positive, and rules that clamp or square weights treat it like those of any layer.
        layer = Layer(lambda a, w: operation.on(a) * w, leaf.new_ones(()), None, leaf, edge)
        composite = self._composite
        rule: RelevanceRule = AlphaBeta(1.0, 0.0) if composite.positive else Epsilon(composite.stabiliser)
        if operation.kind != "sum":  # a sum always follows the rule of additions
            rule = composite.mean or rule
        return _propagated(inputs, Call(layer, rule, output.detach(), self._ledger, trained=False))

    def _add(self, operation: Operation) -> torch.Tensor:
        first, second = operation.input, operation.argument(1, "other")
        if _carries(first) and _carries(second):
            # x - y and x + alpha y are both x + factor y.
            factor = float(operation.kwargs.get("alpha", 1)) * (-1 if operation.kind == "subtract" else 1)
            how = factor, self._composite.positive, self._composite.stabiliser, self._ledger
            return _applied(Shared, first, second, *how)
        return _passed(first if _carries(first) else second, operation)

    def _scale(self, operation: Operation) -> torch.Tensor:
        first, second = operation.input, operation.argument(1, "other")
        # The signal is the factor that takes the relevance. The other is a constant or a gate. A divisor is never it.
        if _carries(first) and _carries(second):
            signal = _signal(first, second) if operation.kind == "multiply" else None
        elif operation.kind == "multiply":
            signal = first if _carries(first) else second
        else:
            signal = first
        return _passed(signal, operation)

    def _relu(self, operation: Operation) -> torch.Tensor:
        if self._composite.masks:
            return _applied(Masked, operation.input, self._ledger)
        return _passed(operation.input, operation)

    def _activation(self, operation: Operation) -> torch.Tensor:
        zero_at_zero = operation.name in _ZERO_AT_ZERO or (
            operation.kind == "clamp" and not bool(operation.on(operation.input.new_zeros(1)))
        )
        return _passed(operation.input if zero_at_zero else None, operation)


def relevance(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    composite: Composite,
    start: Callable[[torch.Tensor], torch.Tensor],
    ledger: Ledger | None = None,
) -> torch.Tensor:
    """Compute the relevance of each input of the model.

    A model with one output neuron z has the score -z for class 0. To explain it, the signs of the last layer are
    reversed. Otherwise, rules that treat evidence for and against differently would confuse the two.

    Args:
        model: Model in eval mode with frozen parameters.
        images: Images, (N, C, *spatial).
        targets: Classes, int64 (N,).
        composite: Rule for each kind of operation.
        start: Function from scores S_c of the targets, (N,), to the relevance at the output, (N,).
        ledger: Ledger that records relevance lost on the way, if given.

    Returns:
        The relevance, (N, C, *spatial).
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        flow = Flow(composite, ledger)
        with Rules(flow.rules()):
            logits = model(images)
    if not logits.requires_grad:
        return torch.zeros_like(images).detach()
    begin = start(class_scores(logits.detach()).gather(1, targets[:, None]).squeeze(1))
    single = logits.shape[1] == 1
    if single:
        # The forward pass is the same for both classes. The backward pass, which follows, reads the sign from here.
        for call in _nearest_calls(logits):
            call.negative = targets == 0
    if isinstance(composite.first, Box):
        _fit_boxes(model, images.detach(), flow)
    column = torch.zeros_like(targets) if single else targets
    at_output = torch.zeros_like(logits).scatter(1, column[:, None], begin[:, None])
    return torch.autograd.grad(logits, images, at_output, allow_unused=True, materialize_grads=True)[0]


class _Enough(Exception):  # noqa: N818  (not an error: it ends a pass early)
    pass


def _fit_boxes(model: nn.Module, images: torch.Tensor, flow: Flow) -> None:
    """Give each first layer the box of its own input, found by passing a black and a white image to it."""
    corners = torch.stack([torch.zeros_like(images[0]), torch.ones_like(images[0])])
    # The model is the same, so its calls come in the order in which `Flow` counted them. The pass ends after the last
    # of the first layers.
    last, count = max(flow.first, default=-1), 0

    def record(operation: Operation) -> torch.Tensor:
        nonlocal count
        number, count = count, count + 1
        if number in flow.first:
            low, high = operation.input.aminmax(dim=0, keepdim=True)
            for call in flow.first[number]:
                call.rule = Box(low, high)
        if number == last:
            raise _Enough
        return _plain(operation)

    try:
        with torch.no_grad(), Rules({"convolution": record, "linear": record}):
            model(corners)
    except _Enough:
        pass


def _nearest_calls(result: torch.Tensor) -> Iterator[Call]:
    """Yield the layers from which `result` can be reached without passing another layer."""
    waiting, seen = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        call = getattr(node, "call", None)
        if isinstance(call, Call) and call.trained:
            yield call
        else:
            waiting += [following for following, _ in node.next_functions]


def _layer_of(operation: Operation) -> tuple[Layer, torch.Tensor]:
    """Return the layer that a call stands for, and its output."""
    kernel = operation.argument(1, "weight").detach()
    bias = operation.argument(2, "bias")
    rest = {key: value for key, value in operation.kwargs.items() if key not in ("input", "weight", "bias")}
    if bias is not None:  # give it the shape in which it is added to (N, K, *spatial) or (N, ..., K)
        bias = bias.detach().view(-1, *[1] * (kernel.ndim - 2))
    with torch.enable_grad():
        leaf = operation.input.detach().requires_grad_()
        output = operation.on(leaf)
    layer = Layer(
        lambda a, w: operation.function(a, w, None, *operation.args[3:], **rest),
        kernel,
        bias,
        leaf,
        torch.autograd.graph.get_gradient_edge(output),
    )
    return layer, output.detach()


def _affine(operation: Operation) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return scale and shift of a batch norm in eval mode, broadcastable to its output; None for any other call."""
    names = ("running_mean", "running_var", "weight", "bias", "training")
    mean, variance, weight, bias, training = (operation.argument(i, name) for i, name in enumerate(names, 1))
    if operation.function is not F.batch_norm or training or mean is None:
        return None
    scale = (variance + operation.argument(7, "eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight.detach()
    shift = -mean * scale if bias is None else bias.detach() - mean * scale
    shape = (-1, *[1] * (operation.input.ndim - 2))
    return scale.view(shape), shift.view(shape)


def _carries(value: Any) -> bool:
    """Return whether a value depends on the image."""
    return isinstance(value, torch.Tensor) and value.requires_grad


def _signal(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor | None:
    """Return the factor that is not the gate, or None if neither or both could be the gate."""
    # Squeeze-and-excitation has one gate per channel, so the gate is the smaller factor. A gate as large as the signal
    # is recognised by the activation that made it.
    if first.numel() != second.numel():
        return first if first.numel() > second.numel() else second
    gates = [_is_gate(factor) for factor in (first, second)]
    return (second if gates[0] else first) if sum(gates) == 1 else None


def _is_gate(factor: torch.Tensor) -> bool:
    """Return whether a factor is the result of a gate's activation, up to changes of shape."""
    node = factor.grad_fn
    while node is not None and node.name().removesuffix("Backward0") in _RESHAPES:
        node = node.next_functions[0][0]
    return node is not None and node.name().removesuffix("Backward0") in _GATES


def _plain(operation: Operation) -> torch.Tensor:
    result: torch.Tensor = operation.run()
    return result


def _passed(signal: torch.Tensor | None, operation: Operation) -> torch.Tensor:
    """Pass relevance on to `signal` as it is.

    Without a signal, or with one of another shape than the result, the operation is left to autograd.
    `xbench.compute.gate` finds it there and refuses the model.
    """
    if signal is None or not _carries(signal):
        return _plain(operation)
    with torch.no_grad():
        result = _plain(operation)
    return _applied(Passed, signal, lambda: result) if result.shape == signal.shape else _plain(operation)


def _propagated(inputs: torch.Tensor, call: Call) -> torch.Tensor:
    return _applied(Propagated, inputs, call)


def _applied(function: type[torch.autograd.Function], *arguments: Any) -> torch.Tensor:
    result: torch.Tensor = function.apply(*arguments)
    return result
