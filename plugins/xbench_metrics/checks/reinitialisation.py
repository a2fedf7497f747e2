"""Networks with some layers re-initialised."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.runtime.randomness import isolated


def layers(model: nn.Module, image: torch.Tensor) -> list[str]:
    """Return the names of modules that own parameters, from the input to the output, in the order of their first call.

    A module that is used without being called (the output projection of attention) has the place of the module that
    holds it.

    Args:
        model: The model. It stays unchanged, because a copy of it runs.
        image: An image to run it on, (1, C, *spatial).
    """
    entered: dict[str, int] = {}
    running = copy.deepcopy(model).eval()
    for name, module in running.named_modules():
        module.register_forward_pre_hook(lambda _module, _args, name=name: _note(entered, name))
    with torch.no_grad():
        running(image)
    owners = [
        name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None
    ]
    return sorted(owners, key=lambda name: _place(entered, name))  # stable: ties keep the order of registration


def _note(entered: dict[str, int], name: str) -> None:
    entered.setdefault(name, len(entered))


def _place(entered: dict[str, int], name: str) -> int:
    while name and name not in entered:
        name = name.rpartition(".")[0]
    return entered.get(name, 0)


def stages(names: list[str], most: int) -> list[list[str]]:
    """Return the layers from the output to the input, in at most `most` groups of neighbours of about equal size."""
    parts = np.array_split(np.array(names[::-1], dtype=object), min(most, len(names))) if names else []
    return [part.tolist() for part in parts]


def reinitialised(model: nn.Module, names: Collection[str], seed: int) -> nn.Module:
    """Return a copy of the model in which the layers `names` hold new weights, drawn by the seed and the layer's name.

    A layer is initialised by torch's `reset_parameters`, including its running statistics. The parameters of a layer
    without this method (such as the class token of a transformer) are permuted: this keeps their values and destroys
    what they have learned. Weights are drawn on the CPU, so that a GPU gets the same ones.
    """
    changed = copy.deepcopy(model)
    modules = dict(changed.named_modules())
    for name in names:
        with isolated(seed, "reinitialised", name), torch.no_grad():
            _renew(modules[name])
    return changed


def _renew(module: nn.Module) -> None:
    drawn = copy.deepcopy(module).cpu()
    reset: Any = getattr(drawn, "reset_parameters", None)
    if callable(reset):
        reset()
    else:
        for parameter in drawn.parameters(recurse=False):
            flat = parameter.flatten()
            parameter.copy_(flat[torch.randperm(len(flat))].view_as(parameter))
    # Copy only what the module itself owns. The layers inside it have their own turn, if they are named.
    own, new = ([*one.named_parameters(recurse=False), *one.named_buffers(recurse=False)] for one in (module, drawn))
    for (_, old), (_, value) in zip(own, new, strict=True):
        old.copy_(value)
