"""Rules that watch and replace the operations of a running model, however the model is written.

Rule-based explainers (guided backpropagation, LRP, DeepLIFT) change what some operations do. Hooks on modules silently
miss a functional ReLU, break on a module called twice, and fail with in-place operations. Here the rule stands at the
operation itself: `torch.nn.functional.relu`, `tensor.relu_()` and `nn.ReLU` all end in the same place (torch's function
dispatch). So the model is neither searched, nor rewritten, nor copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# The name of a torch function -> the kind of operation that rules are written for.
_KINDS = {
    **dict.fromkeys(("relu", "relu_"), "relu"),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "convolution"),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), "max_pool"),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), "average_pool"),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), "average_pool"),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), "adaptive_max_pool"),
    **dict.fromkeys(("amax", "max"), "maximum"),
    **dict.fromkeys(("mean",), "mean"),
    **dict.fromkeys(("sum",), "sum"),
    **dict.fromkeys(("add", "add_", "__radd__", "__iadd__", "__add__"), "add"),
    **dict.fromkeys(("sub", "sub_", "__sub__", "__isub__"), "subtract"),
    **dict.fromkeys(("mul", "mul_", "__rmul__", "__imul__", "__mul__", "multiply"), "multiply"),
    **dict.fromkeys(("div", "div_", "__truediv__", "__itruediv__", "true_divide"), "divide"),
    **dict.fromkeys(("matmul", "__matmul__", "bmm", "mm", "addmm", "einsum", "baddbmm"), "matrix_product"),
    **dict.fromkeys(("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d"), "dropout"),
    **dict.fromkeys(("clamp", "clamp_", "clamp_min", "clamp_min_", "clip", "clip_"), "clamp"),
    **dict.fromkeys(("threshold", "threshold_", "relu6", "hardtanh", "hardtanh_"), "clamp"),
    **dict.fromkeys(("sigmoid", "sigmoid_", "hardsigmoid", "tanh", "tanh_", "softplus", "softsign"), "activation"),
    **dict.fromkeys(("silu", "silu_", "gelu", "hardswish", "mish", "mish_"), "activation"),
    **dict.fromkeys(("elu", "elu_", "selu", "selu_", "celu", "leaky_relu", "leaky_relu_"), "activation"),
    **dict.fromkeys(("group_norm", "instance_norm"), "normalisation"),
    "linear": "linear",
    "batch_norm": "batch_norm",
    "layer_norm": "normalisation",
    "rms_norm": "normalisation",
    "prelu": "prelu",
    "cat": "concatenate",
    "softmax": "softmax",
    "scaled_dot_product_attention": "attention",
}


@dataclass(frozen=True)
class Operation:
    """One operation of a model, with its arguments.

    Attributes:
        kind: Kind of operation: "relu", "convolution", "linear", "batch_norm", "max_pool", "add", ...
        name: Torch's name of the function.
        function: The function to call. It never works in place.
        args: Positional arguments.
        kwargs: Named arguments, without `inplace`.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument, whether it was passed by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    @property
    def input(self) -> torch.Tensor:
        """The first argument."""
        tensor: torch.Tensor = self.argument(0, "input")
        return tensor

    def run(self) -> Any:
        """Return the model's own result, computed out of place."""
        return self.function(*self.args, **self.kwargs)

    def on(self, tensor: torch.Tensor) -> Any:
        """Return the result of the same operation with another first argument."""
        return self.function(tensor, *self.args[1:], **{k: v for k, v in self.kwargs.items() if k != "input"})


Rule = Callable[[Operation], Any]


class Rules(TorchFunctionMode):
    """A context in which rules replace the operations of their kind. All other operations are unchanged.

        with Rules({"relu": lambda operation: GuidedReLU.apply(operation.input)}):
            score = model(images)

    A rule is called with the mode switched off, so it may use any torch function. In-place operations of known kinds
    are run out of place, because the result of a rule or a tensor that a watcher kept must not be overwritten later. (A
    model that relies on the side effect of an in-place call and drops its result then gives other logits.
    `xbench.compute.gate` finds this.)

    Args:
        rules: Kind -> rule.
        watch: Function that is called with every operation of a known kind and its result.
        in_place: Whether operations without a rule may work in place as the model asks. Use it for a watcher that keeps
            no result, and for passes without gradients.

    Attributes:
        fired: Number of replaced operations of each kind.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule] | None = None,
        watch: Callable[[Operation, Any], None] | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        super().__init__()
        self._in_place = in_place
        self.rules = dict(rules or {})
        self.watch = watch
        self.fired: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Handle a call of a torch function. Torch calls this for every function of tensors in the context."""
        del types
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        kind = _KINDS.get(name)
        if kind is None or not _is_on_tensors(args, kwargs):
            return func(*args, **kwargs)
        operation = _out_of_place(kind, name, func, args, kwargs)
        rule = self.rules.get(kind)
        if rule is None:
            result = func(*args, **kwargs) if self._in_place else operation.run()
        else:
            self.fired[kind] += 1
            result = rule(operation)
        if self.watch is not None:
            self.watch(operation, result)
        return result


def _is_on_tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    first = args[0] if args else kwargs.get("input")
    if isinstance(first, list | tuple):  # torch.cat
        first = first[0] if first else None
    tensors = (first, *args[1:2])  # 1 + tensor has its tensor second
    return any(isinstance(tensor, torch.Tensor) and tensor.is_floating_point() for tensor in tensors)


_OPERATORS = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div"}
# Position of the argument `inplace` in functions of torch.nn.functional.
_INPLACE = {
    **dict.fromkeys(("relu", "relu6", "silu", "hardswish", "hardsigmoid", "mish", "selu"), 1),
    **dict.fromkeys(("elu", "celu", "leaky_relu"), 2),
    **dict.fromkeys(("hardtanh", "threshold", "dropout", "dropout1d", "dropout2d", "dropout3d"), 3),
}


def _out_of_place(
    kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Operation:
    plain = _OPERATORS.get(name) or (name[:-1] if name.endswith("_") and not name.endswith("__") else name)
    if plain != name:
        func = getattr(torch.Tensor, plain, None) or getattr(torch.nn.functional, plain)
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    return Operation(kind, plain, func, args[: _INPLACE.get(plain)], kwargs)
