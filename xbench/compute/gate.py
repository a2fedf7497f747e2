"""The gate: proof, on the user's own model, that the rules of a rule-based explainer take effect.

A rule that never fires gives a plausible but wrong map without an error. Three things are checked with the model
itself, on a probe of one or two images:

1. Under the rules, the model gives the same logits as without them.
2. The graph that torch's autograd recorded of the score has no operation that the rules should have replaced but did
   not, and none that they have no answer to. An activation hidden in a compiled function is found like any other.
3. The claims about the maps (completeness, conservation) hold. The explainer checks them with `deviation`.
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

_LOGITS_TOLERANCE = 1e-4  # relative to the largest logit: rules may order sums differently
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
    """Return a few random images on the model's device: float32 (count, C, *spatial), in [0, 1]."""
    images = torch.rand((count, info.channels, *info.spatial), generator=generator(0, "probe"))
    parameter = next(model.parameters(), None)
    return images if parameter is None else upload(images, parameter.device)


def operations_behind(result: torch.Tensor, stop: Collection[torch.Tensor] = ()) -> Counter[str]:
    """Count the operations that autograd recorded between `stop` (or the inputs) and `result`, by name.

    Products with one constant factor are called "MulConstant", and products of two activations "product".
    """
    return Counter(_name(node) for node in recorded_nodes(result, stop))


def recorded_nodes(result: torch.Tensor, stop: Collection[torch.Tensor] = ()) -> Iterator[torch.autograd.graph.Node]:
    """Yield the nodes that `operations_behind` counts. Hooks on them can prove a rule independently of `Rules`."""
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
    """Return readable names of the operations that are neither linear in the image nor in `answered`."""
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
    """Return None, or the reason why these rules can't explain this model.

    Args:
        model: Model in any mode. It runs in eval mode and is left as it was.
        images: A probe, (n, C, *spatial).
        rules: Rules for `xbench.compute.operations.Rules`.
        answered: Names of the non-linear operations that are right under the rules, as `operations_behind` names them:
            those that the rules insert, and those that they leave on purpose.
        needed: Function from the operations of the model without rules to a reason, if the operations that the rules
            are for are missing.
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
    """Return the largest error of sums, relative to the largest expected sum: (n,), (n,) -> a share."""
    total, expected = total.detach(), expected.detach()
    scale = float(expected.abs().max())
    return float((total - expected).abs().max()) / max(scale, 1e-12)
