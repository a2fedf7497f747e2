"""DeepLIFT's multipliers between pairs of images: the rules, and the backward pass that they ride on.

A multiplier m says how a difference in an operation's input becomes a difference in the score: Delta S = sum m Delta z.
Through a linear operation it flows as a gradient does, and needs no activation of either image. Only at the non-linear
ones do the two images meet. So the graph is recorded of some rows (R forwards), of any other image only what goes into
its non-linear operations (one forward each), and a pair costs one backward pass through the row's graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from xbench import class_scores
from xbench.compute.operations import Operation, Rule, Rules

_NEAR = 1e-6  # below such a difference a quotient of differences is the derivative (Shrikumar et al., section 3.5.2)
_BLOCK = 2**17  # activations

Operands = tuple[torch.Tensor, ...]
Other = Callable[[], Operands]  # the other image's operands, known when the backward pass runs


class Record:
    """What goes into the non-linear operations of a model, in order: of N images, without a graph.

    Attributes:
        scores: Class scores (N, K).
        operands: Those of each operation.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        self.operands: list[Operands] = []
        with torch.no_grad(), Rules(watch=self._watch):
            self.scores = class_scores(model(images))

    def _watch(self, operation: Operation, result: Any) -> None:
        del result
        operands = _operands(operation)
        if operands:
            self.operands.append(operands)

    def of(self, operation: int, images: slice) -> Operands:
        """The operands of one operation for some images; a model may fold more than images into the first axis."""

        def rows(tensor: torch.Tensor) -> torch.Tensor:
            each = len(tensor) // len(self.scores)
            return tensor[images.start * each : images.stop * each]

        return tuple(rows(tensor) for tensor in self.operands[operation])


class Contrast:
    """The recorded graph of R rows, through which their multipliers against any other images flow.

    Attributes:
        rows: (R, C, *spatial).
        scores: Class scores (R, K).
    """

    def __init__(self, model: nn.Module, rows: torch.Tensor) -> None:
        self.rows = rows.detach().requires_grad_()
        self._opposite = _Opposite()
        with torch.enable_grad(), Rules(self._opposite.rules()):
            self.scores = class_scores(model(self.rows))

    def multipliers(self, record: Record, images: slice, seeds: torch.Tensor) -> torch.Tensor:
        """Multipliers of every row's input against that of another image.

        Args:
            record: Of the same model.
            images: Whom of it: one image for all rows, or as many as there are rows.
            seeds: (R, K), or (K,) for all rows: one-hot, the class whose score is explained.

        Returns:
            (R, C, *spatial): S_c(image) - S_c(row) = sum m * (image - row).
        """
        if len(record.operands) != self._opposite.count:
            raise ValueError("the model takes other operations for one image than for another")
        if not self.scores.requires_grad:
            return torch.zeros_like(self.rows)
        self._opposite.record, self._opposite.images = record, images
        return torch.autograd.grad(
            self.scores,
            self.rows,
            seeds.expand_as(self.scores),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )[0]


def rules() -> dict[str, Rule]:
    """The rules of one forward pass, for `xbench.compute.gate`."""
    return _Opposite().rules()


class _Opposite:
    """Whom the rows are compared with in the backward pass under way.

    On its own, and not part of `Contrast`: the graph refers to it, and must not refer to whoever holds the graph.
    """

    record: Record
    images: slice

    def __init__(self) -> None:
        self.count = 0

    def rules(self) -> dict[str, Rule]:
        """A rule for each kind of non-linear operation; for one forward pass, as it counts the operations."""
        return {kind: functools.partial(self._apply, function) for kind, function in _FUNCTIONS.items()}

    def _apply(self, function: type[torch.autograd.Function], operation: Operation) -> Any:
        operands = _operands(operation)
        if not operands:
            return operation.run()
        number, self.count = self.count, self.count + 1
        if not all(operand.requires_grad for operand in operands):
            return operation.run()  # of constants, or a product with one: linear
        return function.apply(*operands, operation, lambda: self.record.of(number, self.images))


def _operands(operation: Operation) -> Operands:
    """What the rule of this operation looks at; nothing where it is linear, or of a kind that has no rule."""
    if operation.kind not in _FUNCTIONS:
        return ()
    if operation.kind == "multiply":
        factors = (operation.input, operation.argument(1, "other"))
        return factors if all(isinstance(factor, torch.Tensor) for factor in factors) else ()
    if operation.kind.endswith("max_pool") and operation.argument(_INDICES[operation.kind], "return_indices"):
        return ()  # the positions go elsewhere too: left to autograd, where the gate finds it
    return (operation.input,)


class RescaledRelu(torch.autograd.Function):
    """m = (y - y') / (z - z') of ReLU, which is max(z, z') / |z - z'| cut to [0, 1]; at a tie ReLU's derivative.

    This form needs neither y nor y', nor a threshold: it is exact however near the two are. On its own, as it is most
    of what a pair costs beside the convolutions.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """(..) -> (..)."""
        del operation
        ctx.other = other
        ctx.save_for_backward(row)
        return row.relu()

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Without a mask and without large temporaries."""
        (row,) = ctx.saved_tensors
        (image,) = ctx.other()
        result, least = torch.empty_like(row), torch.finfo(row.dtype).tiny
        for into, here, there, given in _blocks(result, row, _spread(image, row), multipliers[0]):
            apart = (there - here).abs_().add_(least)
            torch.maximum(here, there, out=into).div_(apart).clamp_(0, 1).mul_(given)
        return result, None, None


class Rescaled(torch.autograd.Function):
    """m = (y - y') / (z - z') for any other elementwise function; where |z - z'| < 1e-6 the derivative.

    The derivative is the mean of those at z and z', which the quotient equals up to (z - z')^2. Clamps (ReLU6) do
    without: below and above they are constant, between they keep every bit, and a kink has no derivative.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """(..) -> (..)."""
        output, derivative = _with_derivative(operation, row)
        ctx.other, ctx.operation = other, operation
        ctx.near = torch.finfo(row.dtype).tiny if operation.kind == "clamp" else _NEAR
        ctx.save_for_backward(row, output, derivative)
        return output

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """By the quotient."""
        saved, result = ctx.saved_tensors, torch.empty_like(ctx.saved_tensors[0])
        (image,) = ctx.other()
        opposite = [_spread(part, result) for part in (image, *_with_derivative(ctx.operation, image))]
        for into, z, y, slope, z_, y_, slope_, given in _blocks(result, *saved, *opposite, multipliers[0]):
            apart = z_ - z
            torch.sub(y_, y, out=into).div_(apart)
            # A mask costs a CPU more than the rest, and few blocks need it; a GPU should not wait to be asked.
            if apart.abs_().device.type != "cpu" or apart.amin() < ctx.near:
                torch.where(apart < ctx.near, (slope + slope_).div_(2), into, out=into)
            into.mul_(given)
        return result, None, None


class RescaledMaxPool(torch.autograd.Function):
    """All of y - y' goes to where the larger of the two maxima stood: m = (y - y') / (z - z') there, 0 elsewhere.

    Lundberg's rule for pools (shap) cuts y - y' at max(y, y') into a part for each of the two positions; one part is
    always zero. Where windows overlap, a position adds up what it gets from each (captum and shap let them overwrite
    each other). |y - y'| <= |z - z'| at that position, so that no quotient is large.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """(N, C, *spatial) -> (N, C, *pooled)."""
        output, where = _pooled(operation, row)
        ctx.other, ctx.operation, ctx.axes = other, operation, int(operation.name[-2])
        ctx.save_for_backward(row, output, where)
        return output

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Scatter-add."""
        row, output, where = ctx.saved_tensors
        (image,) = ctx.other()
        image_output, image_where = (_spread(part, output) for part in _pooled(ctx.operation, image))
        difference = image_output - output
        flat = torch.where(difference > 0, image_where, where).flatten(-ctx.axes)
        values = row.flatten(-ctx.axes)
        apart = _spread(image, row).flatten(-ctx.axes).gather(-1, flat) - values.gather(-1, flat)
        # Not apart at the winner's position: both maxima stand there, and the pool is the identity.
        quotient = difference.flatten(-ctx.axes).div_(apart).nan_to_num_(nan=1.0)
        quotient.mul_(multipliers[0].flatten(-ctx.axes))
        return torch.zeros_like(values).scatter_add_(-1, flat, quotient).view_as(row), None, None


class RescaledProduct(torch.autograd.Function):
    """Delta(ab) = (b + b')/2 Delta a + (a + a')/2 Delta b: exact, and the Shapley values of the two factors.

    DeepLIFT has no rule for products; captum and shap let the gradient pass, and lose completeness at every gate.
    """

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """Of any two shapes that broadcast."""
        del operation
        ctx.other = other
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        """By the mean of the other factor."""
        a, b = ctx.saved_tensors
        mean_a, mean_b = ((_spread(image, row) + row).mul_(0.5) for image, row in zip(ctx.other(), (a, b), strict=True))
        (multiplier,) = multipliers
        return (multiplier * mean_b).sum_to_size(a.shape), (multiplier * mean_a).sum_to_size(b.shape), None, None


def _with_derivative(operation: Operation, tensor: torch.Tensor) -> Operands:
    with torch.enable_grad():
        leaf = tensor.detach().requires_grad_()
        output: torch.Tensor = operation.on(leaf)
        (derivative,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    return output.detach(), derivative


def _pooled(operation: Operation, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    pool = getattr(functional, operation.name)
    arguments = {key: value for key, value in operation.kwargs.items() if key not in ("input", "return_indices")}
    pooled: Sequence[torch.Tensor] = pool(tensor, *operation.args[1:], **arguments, return_indices=True)
    return pooled


def _blocks(*tensors: torch.Tensor) -> Iterator[Operands]:
    """Some rows of each at a time: on a CPU as many as its cache holds, as fresh memory costs more than arithmetic."""
    rows = len(tensors[0])
    size = max(1, _BLOCK * rows // tensors[0].numel()) if tensors[0].device.type == "cpu" else rows
    return zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


def _spread(image: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One image's activations for each of the rows they are compared with, or as many as rows as they are."""
    if len(image) == len(like):
        return image
    return image.expand(len(like) // len(image), *image.shape).reshape(like.shape)


_FUNCTIONS: dict[str, type[torch.autograd.Function]] = {
    "relu": RescaledRelu,
    **dict.fromkeys(("activation", "clamp", "prelu"), Rescaled),
    **dict.fromkeys(("max_pool", "adaptive_max_pool"), RescaledMaxPool),
    "multiply": RescaledProduct,
}
_INDICES = {"max_pool": 6, "adaptive_max_pool": 2}  # where `return_indices` stands
ANSWERED = tuple({function.__name__ for function in _FUNCTIONS.values()})
