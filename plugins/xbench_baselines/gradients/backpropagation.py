"""Deconvolution and guided backpropagation: the gradient with another rule at every ReLU."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, TypeAlias

import torch
from torch import nn

from xbench import DatasetInfo, undisturbed
from xbench.compute.gate import MAXIMA, deviation, probe, recorded_nodes, refusal
from xbench.compute.operations import Operation, Rule, Rules
from xbench.compute.passes import target_scores
from xbench_baselines.gradients.gradient import Gradient

Gradients: TypeAlias = tuple[torch.Tensor, ...]

_TOLERANCE = 1e-4  # relative to the largest value of a map
_RECTIFIERS = {"Relu", "Hardtanh"}  # autograd calls ReLU6 "Hardtanh"
_GATES = {"Sigmoid", "Hardsigmoid", "product"}  # gates of squeeze-and-excitation


class _Rectifier(torch.autograd.Function):
    """min(max(z, 0), top), with a backward rule of its own."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, top: float | None) -> torch.Tensor:
        """Return the rectified features, of any shape. `top` is None for ReLU."""
        rectified = features.relu() if top is None else features.clamp(0, top)
        ctx.save_for_backward(rectified)
        ctx.top = top
        return rectified

    @staticmethod
    def at_node(received: Gradients, given: Gradients) -> Gradients:
        """Apply the same rule in a hook on autograd's node, given the gradients of its input and its output."""
        raise NotImplementedError


class GuidedRectifier(_Rectifier):
    """R = 1[0 < z < top] max(R_up, 0)."""

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of the features."""
        (rectified,) = ctx.saved_tensors
        if ctx.top is None:
            passed = torch.ops.aten.threshold_backward(given[0], rectified, 0)
        else:
            passed = torch.ops.aten.hardtanh_backward(given[0], rectified, 0, ctx.top)
        return passed.clamp_(min=0), None

    @staticmethod
    def at_node(received: Gradients, given: Gradients) -> Gradients:  # noqa: ARG004
        """Apply the rule in a hook. Autograd has already multiplied by 1[0 < z < top]."""
        return tuple(gradient.clamp(min=0) for gradient in received)


class DeconvolutionRectifier(_Rectifier):
    """R = max(R_up, 0)."""

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ARG004
        """Return the gradient of the features."""
        return given[0].clamp(min=0), None

    @staticmethod
    def at_node(received: Gradients, given: Gradients) -> Gradients:  # noqa: ARG004
        """Apply the rule in a hook, ignoring the gradient that autograd computed."""
        return tuple(gradient.clamp(min=0) for gradient in given)


class _Rectified(Gradient):
    """The gradient of the target's score, with `backward_rule` in place of the derivative of every ReLU and ReLU6.

    The rule applies to operations (`xbench.compute.operations.Rules`). captum's hooks sit on `nn.ReLU` modules instead:
    they silently give the plain gradient of a network that calls `F.relu`, and fail on one that works in place. All
    other operations pass the gradient unchanged: max pooling to the largest value, the gates of squeeze-and-excitation
    to both factors. Models with any other activation are refused.
    """

    backward_rule: ClassVar[type[_Rectifier]]

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for models without ReLU or with other activations, or where the rule has no effect."""
        answered = {self.backward_rule.__name__} | MAXIMA | _GATES
        return (
            super().supports(model, info)
            or refusal(model, probe(info, model), self._rules(), answered, _needs_relu)
            or self._unproven(model, probe(info, model))
        )

    def _gradients(self, network: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the gradients by the rules, (N, C, *spatial)."""
        with Rules(self._rules()):
            return super()._gradients(network, images, targets)

    def _rules(self) -> dict[str, Rule]:
        return {"relu": lambda operation: self._rectified(operation.input), "clamp": self._clamp}

    def _rectified(self, features: torch.Tensor, top: float | None = None) -> torch.Tensor:
        rectified: torch.Tensor = self.backward_rule.apply(features, top)
        return rectified

    def _clamp(self, operation: Operation) -> Any:
        """Rectify ReLU6. Other clamps run as they are, and the gate refuses them."""
        if operation.name == "relu6":
            return self._rectified(operation.input, 6.0)
        if operation.name == "hardtanh" and operation.argument(1, "min_val", -1.0) == 0:
            return self._rectified(operation.input, operation.argument(2, "max_val", 1.0))
        return operation.run()

    def _unproven(self, model: nn.Module, images: torch.Tensor) -> str | None:
        """Compare the maps with those of hooks on autograd's recorded ReLUs, which are independent of the rules."""
        with undisturbed(model), torch.enable_grad():
            images = images.detach().requires_grad_()
            targets = self.explained(torch.arange(len(images), device=images.device) % 2)
            score = target_scores(model, images, targets).sum()
            if not score.requires_grad:
                return None
            for node in recorded_nodes(score):
                if _gates_itself(node):
                    return "it has no rule for SiLU, or another product of features with their own sigmoid"
                if node.name().removesuffix("Backward0") in _RECTIFIERS:
                    node.register_hook(self.backward_rule.at_node)
            expected = torch.autograd.grad(score, images, allow_unused=True, materialize_grads=True)[0].sum(1)
            found = self.attribute(model, images, targets)
        error = deviation(found.flatten(), expected.flatten())
        if error <= _TOLERANCE:
            return None
        return f"its maps are not those of hooks on the model's own ReLUs (relative difference {error:.1g})"


def _needs_relu(operations: Counter[str]) -> str | None:
    return None if _RECTIFIERS & operations.keys() else "it has no ReLU"


def _gates_itself(node: torch.autograd.graph.Node) -> bool:
    """Return whether this is x sigmoid(x), an activation that looks like a gate."""
    factors = node.next_functions
    gates = [factor for factor, _ in factors if factor is not None and "sigmoid" in factor.name().lower()]
    return len(factors) == 2 and any(gate.next_functions[0] in factors for gate in gates)


class Deconvolution(_Rectified):
    """A = sum over channels of what reaches x when each ReLU passes back max(R_up, 0).

    Zeiler & Fergus 2014 (arXiv:1311.2901, section 2.1). The rule ignores whether the ReLU was active. For
    y = v . ReLU(Wx), A = W' max(v, 0) for every x. Positive pixels are those whose increase raises the target's score,
    according to the rule. The maps of two classes are not each other's negative, and hardly differ (Nie et al. 2018,
    arXiv:1805.07039). With one output neuron and `score=neuron`, the rule starts from z for both classes.
    """

    backward_rule = DeconvolutionRectifier


class GuidedBackpropagation(_Rectified):
    """A = sum over channels of what reaches x when each ReLU passes back 1[z > 0] max(R_up, 0).

    Springenberg et al. 2015 (arXiv:1412.6806, section 3.4). For y = v . ReLU(Wx), A = W' (1[Wx > 0] max(v, 0)).
    Signs are as for `Deconvolution`. The map hardly depends on the upper layers (Adebayo et al. 2018).
    """

    backward_rule = GuidedRectifier
