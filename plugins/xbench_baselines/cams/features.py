"""The feature maps of a running model: which ones it has, which one its head reads, and their values.

They are found at the operations (`xbench.compute.operations`) and in the graph that autograd recorded, not by the names
or classes of modules. So a functional ReLU, a module that is used twice and a custom block are all treated alike.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from xbench import UserError
from xbench.compute.gate import deviation
from xbench.compute.operations import Operation, Rules

Node = torch.autograd.graph.Node
Keep = Callable[["FeatureMap", torch.Tensor], torch.Tensor]

ACTIVATIONS = frozenset({"relu", "activation", "clamp", "prelu"})
POOLS = frozenset({"max_pool", "average_pool", "adaptive_max_pool"})

# By torch's definition, channels are the second axis of the results of these operations ...
_CHANNELS_FIRST = POOLS | {"batch_norm"}
_CHANNELS_FIRST_NORMS = frozenset({"group_norm", "instance_norm"})
# ... and of the results of these if they are so in an operand. A permuted tensor is a new one, which loses the mark.
_ELEMENTWISE = ACTIVATIONS | {"add", "subtract", "multiply", "divide", "concatenate", "dropout"}
_OVER_TOKENS = ACTIVATIONS | {"softmax", "attention"}
_LOGITS_TOLERANCE = 1e-4


class FeatureMapError(UserError):
    """The model has no feature map that the method can explain. The message says why."""


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution along each axis, and the sides of its input."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    sides: tuple[int, ...]

    @staticmethod
    def of(operation: Operation) -> Window:
        """Return the geometry of a convolution."""
        kernel = tuple(operation.argument(1, "weight").shape[2:])
        axes = len(kernel)
        dilation = _each_axis(operation.argument(5, "dilation", 1), axes)
        padding = operation.argument(4, "padding", 0)
        if isinstance(padding, str):
            reach = [step * (side - 1) for step, side in zip(dilation, kernel, strict=True)]
            padding = tuple(both // 2 for both in reach) if padding == "same" else 0
        stride = _each_axis(operation.argument(3, "stride", 1), axes)
        sides = tuple(operation.input.shape[2:])
        return Window(kernel, stride, _each_axis(padding, axes), dilation, sides)


@dataclass(frozen=True)
class FeatureMap:
    """The result of an operation, with channels first and more than one position along every axis.

    Attributes:
        order: Number of the operation, from 1.
        kind: Kind of the operation.
        sides: Shape without the axes of images and channels.
        essential: Whether every path from the image to the logits goes through it.
        window: Geometry of the operation if it is a convolution, else None.
    """

    order: int
    kind: str
    sides: tuple[int, ...]
    essential: bool
    window: Window | None


@dataclass(frozen=True)
class Structure:
    """The structure that one run of a model showed.

    Attributes:
        operations: Names of the operations, in order.
        maps: All feature maps, in order.
        over_tokens: Number and name of each non-linear operation on several positions that are not a feature map's.
        layer: Name of the module that was asked for, or an empty string.
        output: Output of that module, or None if it is not one of `maps`.
    """

    operations: tuple[str, ...]
    maps: tuple[FeatureMap, ...]
    over_tokens: tuple[tuple[int, str], ...]
    layer: str
    output: FeatureMap | None

    def feature(self, pooled: bool = False) -> FeatureMap:
        """Return the output of `layer`, or without a layer the map that the head reads: the last essential one.

        Args:
            pooled: Whether it may be the result of a pooling, whose positions are coarser than those of its input.

        Raises:
            FeatureMapError: There is none, or it is followed by operations over tokens and not by a head.
        """
        if self.layer:
            return self._named()
        found = [one for one in self.maps if one.essential and (pooled or one.kind not in POOLS)]
        if not found:
            raise FeatureMapError("it has no feature map that lies on every path from the image to its logits")
        following = {name for order, name in self.over_tokens if order > found[-1].order}
        if following:
            what = "attention" if following & {"softmax", "attention"} else min(following)
            sides = " x ".join(map(str, found[-1].sides))
            raise FeatureMapError(
                f"its last feature map ({sides}) is not what its head gets: {what} over tokens follows it"
            )
        return found[-1]

    def _named(self) -> FeatureMap:
        if self.output is None:
            raise FeatureMapError(
                f"the output of its layer {self.layer} is not a feature map: its channels are not the second axis, "
                "it has one position along an axis, or an unknown operation made it"
            )
        return self.output


class Observer:
    """A reader of the feature maps of running models. It remembers the structure of a model as long as the model lives.

    Args:
        layer: Name of a module, or an empty string.
    """

    def __init__(self, layer: str = "") -> None:
        self._layer = layer
        self._known: WeakKeyDictionary[nn.Module, dict[torch.Size, Structure]] = WeakKeyDictionary()

    def run(
        self,
        model: nn.Module,
        images: torch.Tensor,
        choose: Callable[[Structure], Sequence[FeatureMap]],
        keep: Keep,
        in_place: bool = False,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the logits (N, K), and the result of `keep` for each chosen feature map.

        If `keep` returns a new tensor and no gradients are taken, `in_place` lets activations work in place as usual.
        A `keep` of `lambda _, values: values.requires_grad_()` starts autograd's graph at the feature map. Nothing
        before it is recorded, which saves most of the memory and some of the time of a pass from the image.

        Raises:
            FeatureMapError: `choose` raised it, or the model runs other operations each time.
            UserError: There is no such layer.
        """
        known = self._known.setdefault(model, {})
        structure = known.get(images.shape[1:]) or traced(model, images[:2], self._layer)
        for _ in range(2):
            known[images.shape[1:]] = structure
            logits, kept, operations = _run(model, images, choose(structure), keep, in_place)
            if operations == structure.operations:
                return logits, kept
            structure = traced(model, images, self._layer)  # the model was changed since it was traced
        raise FeatureMapError("it runs other operations for each batch")


def unreadable(model: nn.Module, images: torch.Tensor, read: Callable[[], torch.Tensor]) -> str | None:
    """Return why the feature maps can't be read, or None: there are none, or watching the model changes its logits.

    Args:
        model: Model in eval mode with frozen parameters.
        images: A few images to try.
        read: Function that uses an `Observer` as the explainer does, and returns the logits of `images`.
    """
    with torch.no_grad():
        logits = model(images)
    try:
        watched = read()
    except FeatureMapError as error:
        return error.message
    except RuntimeError as error:
        if "in-place" not in str(error):
            raise
        return "something works in place on its feature map"
    same = deviation(watched, logits) <= _LOGITS_TOLERANCE
    return None if same else "it gives other logits while it is watched: something works in place unseen"


def traced(model: nn.Module, images: torch.Tensor, layer: str = "") -> Structure:
    """Return the structure of a model with frozen parameters, found in one pass.

    Raises:
        UserError: There is no module `layer`.
    """
    images = images.detach().requires_grad_()
    trace = _Trace(images)
    with torch.enable_grad(), _output_of(model, layer) as outputs, Rules(watch=trace.watch):
        logits = model(images)
    essential = _essential(logits, images)
    maps = {
        id(values): FeatureMap(
            order,
            operation.kind,
            tuple(values.shape[2:]),
            values.grad_fn in essential,
            Window.of(operation) if operation.kind == "convolution" else None,
        )
        for order, operation, values in trace.maps
    }
    output = maps.get(id(outputs[-1])) if outputs else None
    return Structure(tuple(trace.operations), tuple(maps.values()), tuple(trace.over_tokens), layer, output)


def _run(
    model: nn.Module, images: torch.Tensor, chosen: Sequence[FeatureMap], keep: Keep, in_place: bool
) -> tuple[torch.Tensor, list[torch.Tensor], tuple[str, ...]]:
    kept: dict[int, torch.Tensor] = {}
    operations: list[str] = []
    wanted = {one.order: one for one in chosen}

    def watch(operation: Operation, result: Any) -> None:
        operations.append(operation.name)
        if (feature := wanted.get(len(operations))) is not None:
            kept[feature.order] = keep(feature, result)

    with Rules(watch=watch, in_place=in_place):
        logits = model(images.detach())
    return logits, [kept[one.order] for one in chosen if one.order in kept], tuple(operations)


class _Trace:
    """The collected parts of a `Structure` while a model runs."""

    def __init__(self, images: torch.Tensor) -> None:
        self.operations: list[str] = []
        self.maps: list[tuple[int, Operation, torch.Tensor]] = []
        self.over_tokens: list[tuple[int, str]] = []
        self._images = images
        self._channels_first = WeakIdKeyDictionary()

    def watch(self, operation: Operation, result: Any) -> None:
        self.operations.append(operation.name)
        order = len(self.operations)
        if not isinstance(result, torch.Tensor) or not result.requires_grad:
            return
        if self._is_channels_first(operation, result):
            self._channels_first[result] = True
            if len(result) == len(self._images) and min(result.shape[2:]) > 1 and operation.kind != "dropout":
                self.maps.append((order, operation, result))
        elif operation.kind in _OVER_TOKENS and sum(side > 1 for side in result.shape[1:]) > 1:
            self.over_tokens.append((order, operation.kind if operation.kind == "attention" else operation.name))

    def _is_channels_first(self, operation: Operation, result: torch.Tensor) -> bool:
        if result.ndim != self._images.ndim:
            return False
        if operation.kind == "convolution":
            # The input of a convolution has its channels first too, whatever made it (ConvNeXt's shortcuts).
            self._channels_first[operation.input] = True
            return True
        if operation.kind in _CHANNELS_FIRST or operation.name in _CHANNELS_FIRST_NORMS:
            return len(self._channels_first) > 0  # before the first convolution it is only a normalised image
        if operation.kind not in _ELEMENTWISE:
            return False
        operands = operation.argument(0, "tensors") if operation.kind == "concatenate" else operation.args[:2]
        return any(
            isinstance(one, torch.Tensor) and one.ndim == result.ndim and one in self._channels_first
            for one in operands or [operation.input]
        )


@contextmanager
def _output_of(model: nn.Module, layer: str) -> Iterator[list[object]]:
    """Yield a list to which the module's output is added each time it is called."""
    outputs: list[object] = []
    if not layer:
        yield outputs
        return
    modules = dict(model.named_modules())
    if layer not in modules:
        near = difflib.get_close_matches(layer, modules, n=3, cutoff=0.5) or [
            name for name, _ in model.named_children()
        ]
        raise UserError(f"option layer={layer!r}: the model has no such module", f"use {' or '.join(near)}")
    handle = modules[layer].register_forward_hook(lambda module, given, output: outputs.append(output))  # noqa: ARG005
    try:
        yield outputs
    finally:
        handle.remove()


def _essential(logits: torch.Tensor, images: torch.Tensor) -> set[Node]:
    """Return the nodes of autograd's graph that lie on every path from the logits to the images.

    Put the nodes that lead to the images in a topological order. A node is on every path if no edge passes over it.
    """
    if logits.grad_fn is None:
        return set()
    order, edges = _postorder(logits.grad_fn)
    leading: set[Node] = set()
    for node in order:
        edges[node] = [following for following in edges[node] if following in leading]
        if edges[node] or getattr(node, "variable", None) is images:
            leading.add(node)
    found: set[Node] = set()
    incoming: Counter[Node] = Counter()
    crossing = 0
    for node in reversed(order):
        if node not in leading:
            continue
        crossing -= incoming.pop(node, 0)  # the edges that end here; those that remain open pass over this node
        if crossing == 0:
            found.add(node)
        incoming.update(edges[node])
        crossing += len(edges[node])
    return found


def _postorder(root: Node) -> tuple[list[Node], dict[Node, list[Node]]]:
    """Return all nodes below `root`, each after the nodes that it leads to, and the edges of each node."""
    order: list[Node] = []
    edges: dict[Node, list[Node]] = {}
    finished: set[Node] = set()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        if node not in edges:
            edges[node] = [following for following, _ in node.next_functions if following is not None]
            waiting += [following for following in edges[node] if following not in edges]
        else:
            waiting.pop()
            if node not in finished:
                finished.add(node)
                order.append(node)
    return order, edges


def _each_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values
