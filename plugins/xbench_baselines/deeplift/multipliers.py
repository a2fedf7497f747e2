"""DeepLIFT's multipliers between pairs of images: the rules of operations, and the backward pass that applies them.

A multiplier m says how a difference in an operation's input changes the score: Delta S = sum m Delta z. Through a
linear operation it flows like a gradient, without the activations of either image. Only non-linear operations need
those of both images. So the graph is recorded only for some images, the rows (R forward passes). For any other image,
only the inputs of its non-linear operations are recorded (one forward pass each). A pair then costs one backward pass
through the row's graph.

In comments and formulas, z and y are an operation's input and output. A dash (or an underscore in code) marks those of
the other image.
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

_NEAR = 1e-6  # smaller differences use the derivative, not the quotient (Shrikumar et al., section 3.5.2)
_BLOCK = 2**17  # activations in a block that a CPU's cache holds

Operands = tuple[torch.Tensor, ...]
Other = Callable[[], Operands]  # returns the other image's operands, which are known when the backward pass runs


class Record:
    """The operands of a model's non-linear operations for N images, in order and without a graph.

    Attributes:
        scores: Class scores, (N, K).
        operands: Operands of each operation.
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
        """Return the operands of one operation for some images."""

        def rows(tensor: torch.Tensor) -> torch.Tensor:
            each = len(tensor) // len(self.scores)  # a model may fold other axes into the first, such as positions
            return tensor[images.start * each : images.stop * each]

        return tuple(rows(tensor) for tensor in self.operands[operation])


class Contrast:
    """The recorded graph of R images (rows), which gives their multipliers against any other images.

    Attributes:
        rows: The images, (R, C, *spatial).
        scores: Class scores, (R, K).
    """

    def __init__(self, model: nn.Module, rows: torch.Tensor) -> None:
        self.rows = rows.detach().requires_grad_()
        self._opposite = _Opposite()
        with torch.enable_grad(), Rules(self._opposite.rules()):
            self.scores = class_scores(model(self.rows))

    def multipliers(self, record: Record, images: slice, seeds: torch.Tensor) -> torch.Tensor:
        """Return the multipliers of every row against another image.

        Args:
            record: Record of the other images by the same model.
            images: Slice of the record to compare with: one image for all rows, or one per row.
            seeds: One-hot classes whose score is explained, (R, K), or (K,) for all rows.

        Returns:
            Multipliers m, (R, C, *spatial), such that S_c(image) - S_c(row) = sum m * (image - row).

        Raises:
            ValueError: The model ran other operations for the rows than for the recorded images.
        """
        if len(record.operands) != self._opposite.count:
            raise ValueError("the model runs other operations for one image than for another")
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
    """Return the rules of one forward pass, for `xbench.compute.gate`."""
    return _Opposite().rules()


class _Opposite:
    """The images that the rows are compared with in the current backward pass.

    This is not part of `Contrast`, because the graph refers to it. If the graph referred to the object that holds it,
    the cycle would keep the memory.
    """

    record: Record
    images: slice

    def __init__(self) -> None:
        self.count = 0

    def rules(self) -> dict[str, Rule]:
        """Return the rule of each kind of non-linear operation, for one forward pass: they count its operations."""
        return {kind: functools.partial(self._apply, function) for kind, function in _FUNCTIONS.items()}

    def _apply(self, function: type[torch.autograd.Function], operation: Operation) -> Any:
        operands = _operands(operation)
        if not operands:
            return operation.run()
        number, self.count = self.count, self.count + 1
        if not all(operand.requires_grad for operand in operands):
            return operation.run()  # with a constant operand, the operation is constant or linear
        return function.apply(*operands, operation, lambda: self.record.of(number, self.images))


def _operands(operation: Operation) -> Operands:
    """Return the operands that the rule of this operation needs, or none if it is linear or its kind has no rule."""
    if operation.kind not in _FUNCTIONS:
        return ()
    if operation.kind == "multiply":
        factors = (operation.input, operation.argument(1, "other"))
        return factors if all(isinstance(factor, torch.Tensor) for factor in factors) else ()
    if operation.kind.endswith("max_pool") and operation.argument(_INDICES[operation.kind], "return_indices"):
        return ()  # the positions may be used elsewhere, so this is left to autograd, and the gate finds it there
    return (operation.input,)


class RescaledRelu(torch.autograd.Function):
    """m = (y - y') / (z - z') for ReLU, computed as max(z, z') / |z - z'| cut to [0, 1]. At a tie, ReLU's derivative.

    This form needs neither y nor y', and no threshold. It is exact however close the two inputs are. It has its own
    rule because, beside the convolutions, ReLUs take most of the time of a pair.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """Return ReLU of the row, of any shape."""
        del operation
        ctx.other = other
        ctx.save_for_backward(row)
        return row.relu()

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the multipliers of the input, computed without a mask and without large temporaries."""
        (row,) = ctx.saved_tensors
        (image,) = ctx.other()
        result, least = torch.empty_like(row), torch.finfo(row.dtype).tiny
        for into, here, there, given in _blocks(result, row, _spread(image, row), multipliers[0]):
            apart = (there - here).abs_().add_(least)
            torch.maximum(here, there, out=into).div_(apart).clamp_(0, 1).mul_(given)
        return result, None, None


class Rescaled(torch.autograd.Function):
    """m = (y - y') / (z - z') for any other elementwise function, or the derivative where |z - z'| < 1e-6.

    The derivative is the mean of those at z and z', which equals the quotient up to (z - z')^2. Clamps (ReLU6) use the
    quotient unless z = z'. They are constant outside of their bounds and exact between them, so the quotient has no
    rounding. At a kink there is no derivative.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """Return the function of the row, of any shape."""
        output, derivative = _with_derivative(operation, row)
        ctx.other, ctx.operation = other, operation
        ctx.near = torch.finfo(row.dtype).tiny if operation.kind == "clamp" else _NEAR
        ctx.save_for_backward(row, output, derivative)
        return output

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the multipliers of the input."""
        saved, result = ctx.saved_tensors, torch.empty_like(ctx.saved_tensors[0])
        (image,) = ctx.other()
        opposite = [_spread(part, result) for part in (image, *_with_derivative(ctx.operation, image))]
        for into, z, y, slope, z_, y_, slope_, given in _blocks(result, *saved, *opposite, multipliers[0]):
            apart = z_ - z
            torch.sub(y_, y, out=into).div_(apart)
            # On a CPU, the mask costs more than the rest, and few blocks need it. On a GPU, asking would make it wait.
            if apart.abs_().device.type != "cpu" or apart.amin() < ctx.near:
                torch.where(apart < ctx.near, (slope + slope_).div_(2), into, out=into)
            into.mul_(given)
        return result, None, None


class RescaledMaxPool(torch.autograd.Function):
    """Max pooling: m = (y - y') / (z - z') at the position of the larger of the two maxima, and 0 elsewhere.

    So all of y - y' goes to that position. Lundberg's rule for pools (shap) cuts y - y' at max(y, y') into one part for
    each of the two positions, but one of the parts is always zero. Where windows overlap, a position gets the sum over
    its windows (captum and shap let the windows overwrite each other). At that position |y - y'| <= |z - z'|, so no
    quotient is large.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """Return the pooled row: (N, C, *spatial) -> (N, C, *pooled)."""
        output, where = _pooled(operation, row)
        ctx.other, ctx.operation, ctx.axes = other, operation, int(operation.name[-2])
        ctx.save_for_backward(row, output, where)
        return output

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the multipliers of the input, added up over overlapping windows."""
        row, output, where = ctx.saved_tensors
        (image,) = ctx.other()
        image_output, image_where = (_spread(part, output) for part in _pooled(ctx.operation, image))
        difference = image_output - output
        flat = torch.where(difference > 0, image_where, where).flatten(-ctx.axes)
        values = row.flatten(-ctx.axes)
        apart = _spread(image, row).flatten(-ctx.axes).gather(-1, flat) - values.gather(-1, flat)
        # 0 / 0: both maxima are at the winner's position and equal, where the pool is the identity.
        quotient = difference.flatten(-ctx.axes).div_(apart).nan_to_num_(nan=1.0)
        quotient.mul_(multipliers[0].flatten(-ctx.axes))
        return torch.zeros_like(values).scatter_add_(-1, flat, quotient).view_as(row), None, None


class RescaledProduct(torch.autograd.Function):
    """Delta(ab) = (b + b')/2 Delta a + (a + a')/2 Delta b. This is exact, and the Shapley values of the two factors.

    DeepLIFT has no rule for products. captum and shap let the gradient pass, and so lose completeness at every gate.
    """

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, operation: Operation, other: Other) -> torch.Tensor:
        """Return the product of two tensors of any shapes that broadcast."""
        del operation
        ctx.other = other
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, *multipliers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        """Return the multipliers of both factors: that of the product times the mean of the other factor."""
        a, b = ctx.saved_tensors
        mean_a, mean_b = ((_spread(image, row) + row).mul_(0.5) for image, row in zip(ctx.other(), (a, b), strict=True))
        (multiplier,) = multipliers
        return (multiplier * mean_b).sum_to_size(a.shape), (multiplier * mean_a).sum_to_size(b.shape), None, None


def _with_derivative(operation: Operation, tensor: torch.Tensor) -> Operands:
    """Return the output of an elementwise operation and its derivative, both of the shape of `tensor`."""
    with torch.enable_grad():
        leaf = tensor.detach().requires_grad_()
        output: torch.Tensor = operation.on(leaf)
        (derivative,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    return output.detach(), derivative


def _pooled(operation: Operation, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return the maxima of a pooling, and their positions."""
    pool = getattr(functional, operation.name)
    arguments = {key: value for key, value in operation.kwargs.items() if key not in ("input", "return_indices")}
    pooled: Sequence[torch.Tensor] = pool(tensor, *operation.args[1:], **arguments, return_indices=True)
    return pooled


def _blocks(*tensors: torch.Tensor) -> Iterator[Operands]:
    """Yield the tensors in blocks of rows. On a CPU, a block fits its cache: new memory costs more than arithmetic."""
    rows = len(tensors[0])
    size = max(1, _BLOCK * rows // tensors[0].numel()) if tensors[0].device.type == "cpu" else rows
    return zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


def _spread(image: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Repeat the activations of one image for every row that it is compared with, or return those of one per row."""
    if len(image) == len(like):
        return image
    return image.expand(len(like) // len(image), *image.shape).reshape(like.shape)


_FUNCTIONS: dict[str, type[torch.autograd.Function]] = {
    "relu": RescaledRelu,
    **dict.fromkeys(("activation", "clamp", "prelu"), Rescaled),
    **dict.fromkeys(("max_pool", "adaptive_max_pool"), RescaledMaxPool),
    "multiply": RescaledProduct,
}
_INDICES = {"max_pool": 6, "adaptive_max_pool": 2}  # position of the argument `return_indices`
ANSWERED = tuple({function.__name__ for function in _FUNCTIONS.values()})
