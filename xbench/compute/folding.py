"""Folding of batch norms into the layers before them: fewer passes over memory, the same logits in eval mode."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, *_BATCH_NORMS, nn.Linear)


def fold_batch_norms(module: nn.Module) -> int:
    """Fold, in place, every batch norm whose only input is a convolution or dense layer that nothing else reads.

    The graph of the forward pass (torch.fx) only tells which layer feeds which. Folding replaces a layer by the folded
    layer, and the batch norm by its remainder. The module still runs its own forward code, and parts that can't be
    traced (data-dependent control flow) stay unchanged. An activation that alone reads the new output of a layer is set
    to work in place, which saves another pass over memory.

    Not folded: a batch norm that comes before its convolution with an activation between them (DenseNet, pre-activation
    ResNets), shared layers, layers with hooks or parametrisations, and subclasses of torch's layers.

    Args:
        module: A private copy, in eval mode.

    Returns:
        The number of folded batch norms; 0 if the module can't be traced.
    """
    if not any(isinstance(layer, _BATCH_NORMS) for layer in module.modules()):
        return 0
    tracer = _PatientTracer()
    try:
        # Whatever a stranger's forward code raises while it is traced means the same: nothing can be folded.
        # Tracing runs the forward code on proxies, which a module may store. So trace another copy than the one to use.
        graph = tracer.trace(copy.deepcopy(module))
    except Exception:
        return 0
    calls = _Calls(module, graph)
    # Both are found before anything is replaced: the graph names the layers of the module as it was.
    pairs = list(_foldable_pairs(calls))
    in_place = list(_activations_on_fresh_tensors(calls))
    for layer_path, norm_path in pairs:
        _fold(module, layer_path, norm_path)
    for activation in in_place:
        activation.inplace = True
    return len(pairs)


class _PatientTracer(fx.Tracer):
    """A tracer that records a submodule as one call where it can't be traced, instead of failing."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: set[nn.Module] = set()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether `m` is recorded as one call: torch's layers, their subclasses, and what can't be traced."""
        # Without this, tracing would enter the forward code of subclasses, and `_fits` has to see them as layers.
        return isinstance(m, _LAYERS) or m in self._whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace into `m`. If that fails, remove its traced nodes and record one call."""
        nodes, depth = len(self.graph.nodes), len(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if m in self._whole:
                raise  # recording one call failed as well
            # From the last node back to the first of this module: a node that another one reads can't be erased.
            recorded = list(self.graph.nodes)[nodes:]
            for node in reversed(recorded):
                self.graph.erase_node(node)
            # Tracing pops a module when its call returns; those in which the call raised are still on the stack.
            while len(self.module_stack) > depth:
                self.module_stack.popitem()
            self._whole.add(m)
            return super().call_module(m, forward, args, kwargs)


class _Calls:
    """The modules that the nodes of a graph call, and whether the graph shows all uses of a module."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self._module = module
        self.nodes = [node for node in graph.nodes if node.op == "call_module"]
        self._times = Counter(str(node.target) for node in self.nodes)
        # One layer may stand under several names: then its path says neither how often it is called, nor where.
        self._names = Counter(id(layer) for _, layer in module.named_modules(remove_duplicate=False))

    def layer(self, node: Any) -> nn.Module | None:
        """Return the module that a node calls, if it is called once, under one name, with one tensor, without hooks."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or self._times[str(node.target)] != 1:
            return None
        layer = self._module.get_submodule(str(node.target))
        plain = len(node.args) == 1 and not node.kwargs and self._names[id(layer)] == 1
        return layer if plain and not _has_hooks(layer) else None

    def sole_input(self, node: fx.Node) -> fx.Node | None:
        """Return the node that feeds `node`, if it feeds nothing else."""
        source = node.args[0] if node.args else None
        return source if isinstance(source, fx.Node) and len(source.users) == 1 else None


def _has_hooks(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks or hasattr(layer, "parametrizations"))


def _foldable_pairs(calls: _Calls) -> Iterator[tuple[str, str]]:
    for node in calls.nodes:
        norm, source = calls.layer(node), calls.sole_input(node)
        layer = calls.layer(source)
        if source is not None and layer is not None and norm is not None and _fits(layer, norm):
            yield str(source.target), str(node.target)


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    """Return whether `norm` has fixed statistics over the output channels of a plain `layer` of torch.

    A subclass of a layer may use its weights in another way (weight standardisation), so only torch's own are folded.
    """
    if not isinstance(norm, _BATCH_NORMS) or norm.training or norm.running_mean is None or norm.running_var is None:
        return False
    if type(norm) not in _BATCH_NORMS and not _has_activation(norm):
        return False
    if type(layer) in _TRANSPOSED:
        # Of a transposed convolution in groups, torch keeps the output channels of one group alone in its weight.
        return bool(layer.out_channels == norm.num_features and layer.groups == 1)
    if type(layer) in _CONVOLUTIONS:
        return bool(layer.out_channels == norm.num_features)
    return type(layer) is nn.Linear and isinstance(norm, nn.BatchNorm1d) and layer.out_features == norm.num_features


def _has_activation(norm: nn.Module) -> bool:
    """Return whether the norm computes act(drop(batch_norm(x))), as timm's BatchNormAct2d does."""
    return all(isinstance(getattr(norm, part, None), nn.Module) for part in ("drop", "act"))


def _activations_on_fresh_tensors(calls: _Calls) -> Iterator[Any]:
    """Yield the activations whose input is a layer's output that nothing else reads, so it may be overwritten."""
    for node in calls.nodes:
        activation: Any = calls.layer(node)
        if isinstance(activation, _BATCH_NORMS) and _has_activation(activation):
            activation = activation.act  # reads the batch norm's output, or that of the layer it is folded into
        elif not isinstance(calls.layer(calls.sole_input(node)), _LAYERS):
            continue
        # Only activations have the attribute at all; one that is True already needs no change.
        if getattr(activation, "inplace", None) is False:
            yield activation


def _fold(module: nn.Module, layer_path: str, norm_path: str) -> None:
    layer: Any = module.get_submodule(layer_path)
    norm: Any = module.get_submodule(norm_path)
    # Fold in double precision, so that the exact weights are rounded once, and on the host, which always has it.
    exact_layer, exact_norm = (copy.deepcopy(part).cpu().double() for part in (layer, norm))
    if isinstance(layer, nn.Linear):
        folded: nn.Module = fuse_linear_bn_eval(exact_layer, exact_norm)
    else:
        folded = fuse_conv_bn_eval(exact_layer, exact_norm, transpose=isinstance(layer, _TRANSPOSED))
    # What a batch norm of timm does beside normalising stays where it was.
    rest = nn.Sequential(norm.drop, norm.act) if _has_activation(norm) else nn.Identity()
    _replace(module, layer_path, folded.to(layer.weight).eval())
    _replace(module, norm_path, rest.eval())


def _replace(module: nn.Module, path: str, replacement: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, replacement)
