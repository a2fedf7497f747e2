"""The hook gate: proof, on the user's own model, that a rule-based explainer's rules take effect.

A rule that never fires gives a plausible wrong map without a word. Three things are held against the model itself, on
a probe of one or two images:

1. Under the rules the model gives the logits it gives without them.
2. The graph that torch's autograd recorded of the score holds no operation the rules should have replaced and did not,
   and none that they have no answer to: an activation hidden in a compiled function is found like any other.
3. What the explainer claims of its maps (completeness, conservation) holds: the explainer checks it with `deviation`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from xbench.compute.operations import Rule, Rules
from xbench.contracts.explainer import undisturbed as undisturbed  # noqa: PLC0414  (for the explainers' own proofs too)
from xbench.runtime.devices import upload
from xbench.runtime.randomness import generator

if TYPE_CHECKING:
    from xbench.contracts.dataset import DatasetInfo

_LOGITS_TOLERANCE = 1e-4  # relative to the largest logit: rules may order sums otherwise
_BACKWARD = re.compile(r"^(?:.*::)?(.*?)(?:Backward\d*)?$")

# The names in this module are those of torch's autograd nodes, without their "Backward0".

MAXIMA = frozenset(
    [
        *("Amax", "Max"),
        *("MaxPool2DWithIndices", "MaxPool3DWithIndices"),  # one-dimensional pooling runs as two-dimensional
        *("AdaptiveMaxPool2D", "AdaptiveMaxPool3D"),
        *("FractionalMaxPool2D", "FractionalMaxPool3D"),
        *("MkldnnMaxPool2D", "MkldnnMaxPool3D"),  # of tensors in the layout of MKL-DNN
        "MaxPool2D",  # on Apple's GPUs
    ]
)
"""Names, as in `operations_behind`, of the operations that pass the gradient to the largest of several values."""

# Nodes through which the gradient is a linear map that does not depend on the image. Those of MKL-DNN are listed one by
# one: its max pooling and its recurrent layers are not linear.
_LINEAR = re.compile(
    r"AccumulateGrad|.*Conv(olution|2D|3D|Transpose\w*)?|(Native|Cudnn|Miopen)?BatchNorm|Linear|Mean|Sum|Nansum|.*AvgPool\w*|"
    r"View|ViewAs|UnsafeView|Reshape|ReshapeAlias|Permute|Transpose|T|Movedim|Slice|Select|Narrow|Index|IndexSelect|"
    r"Gather|Cat|Stack|Split|SplitWithSizes|UnsafeSplit|Unbind|Chunk|Add|Sub|Rsub|Neg|Expand|Repeat|Squeeze\w*|"
    r"Unsqueeze|Clone|Copy\w*|ToCopy|Contiguous|AsStrided|Alias|Detach|ConstantPadNd|\w*Pad[123]D|Flip|Roll|Upsample\w*|"
    r"PixelShuffle|PixelUnshuffle|Diagonal|Im2Col|Unfold|MulConstant|CudnnConvolution\w*|MkldnnLinear|MkldnnReshape|"
    r"ToMkldnn|ToDense"
)
_PRODUCTS = re.compile(r"Mul|Div|Mm|Addmm|Bmm|Baddbmm|Matmul|Einsum|Addcmul")
_NAMES = {
    "NativeLayerNorm": "layer normalisation",
    "NativeGroupNorm": "group normalisation",
    "Softmax": "a softmax",
    "Relu": "ReLU",
    "Silu": "SiLU",
    "Gelu": "GELU",
    "Sigmoid": "a sigmoid",
    "Tanh": "tanh",
    "Hardswish": "hard-swish",
    "Hardsigmoid": "a hard sigmoid",
    "Hardtanh": "a clamp",
    "Clamp": "a clamp",
    "ClampMin": "a clamp",
    "product": "a product of two activations",
    "Pow": "a power",
}


def probe(info: DatasetInfo, model: nn.Module, count: int = 2) -> torch.Tensor:
    """A few random images on the model's device: float32 (count, C, *spatial), in [0, 1]."""
    images = torch.rand((count, info.channels, *info.spatial), generator=generator(0, "probe"))
    parameter = next(model.parameters(), None)
    return images if parameter is None else upload(images, parameter.device)


def operations_behind(result: torch.Tensor, stop: Collection[torch.Tensor] = ()) -> Counter[str]:
    """What autograd recorded between `stop` (or the inputs) and `result`: name of the operation -> how often.

    Products with one constant factor are called "MulConstant", those of two activations "product".
    """
    return Counter(_name(node) for node in recorded_nodes(result, stop))


def recorded_nodes(result: torch.Tensor, stop: Collection[torch.Tensor] = ()) -> Iterator[torch.autograd.graph.Node]:
    """The nodes that `operations_behind` counts: hooks on them are a way to a rule that owes nothing to the rules."""
    ends = {tensor.grad_fn for tensor in stop if tensor.grad_fn is not None}
    waiting, seen = [result.grad_fn], set(ends)
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def _name(node: torch.autograd.graph.Node) -> str:
    match = _BACKWARD.match(node.name())
    name = match.group(1) if match else node.name()
    if _PRODUCTS.fullmatch(name):
        return "product" if sum(following is not None for following, _ in node.next_functions) > 1 else "MulConstant"
    return name


def unanswered(found: Mapping[str, int], answered: Collection[str] = ()) -> list[str]:
    """The operations of `operations_behind` that are neither linear in the image nor in `answered`, for people."""
    left = [name for name in found if not _LINEAR.fullmatch(name) and name not in answered]
    return [_NAMES.get(name, _spoken(name)) for name in sorted(left)]


def _spoken(name: str) -> str:
    if "Attention" in name:
        return "attention"
    return "max pooling" if name in MAXIMA else name


def refusal(
    model: nn.Module,
    images: torch.Tensor,
    rules: Mapping[str, Rule],
    answered: Collection[str] = (),
    needed: Callable[[Counter[str]], str | None] | None = None,
) -> str | None:
    """None, or why these rules can't explain this model.

    Args:
        model: In any mode; asked in eval mode and left as it was.
        images: A probe (n, C, *spatial).
        rules: As for `xbench.compute.operations.Rules`.
        answered: Names, as in `operations_behind` under the rules, of the non-linear operations that are right: those
            that the rules put there, and those that they mean to leave.
        needed: Given the operations of the model without rules; a reason if what the rules are for is not there.
    """
    with undisturbed(model), torch.enable_grad():
        plain = model(images.detach().clone().requires_grad_())
        reason = needed(operations_behind(plain)) if needed is not None and plain.requires_grad else None
        if reason:
            return reason
        with Rules(rules):
            ruled = model(images.detach().clone().requires_grad_())
    difference = float((ruled - plain).detach().abs().max())
    if not difference <= _LOGITS_TOLERANCE * max(float(plain.detach().abs().max()), 1e-6):
        return f"under its rules the model gives other logits (by {difference:.2g}): something works in place unseen"
    left = unanswered(operations_behind(ruled), answered) if ruled.requires_grad else []
    return f"it has no rule for {', '.join(dict.fromkeys(left))} in this model" if left else None


def deviation(total: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error of what should sum up, relative to the largest of the expected sums: (n,), (n,) -> a share."""
    total, expected = total.detach(), expected.detach()
    scale = float(expected.abs().max())
    return float((total - expected).abs().max()) / max(scale, 1e-12)
