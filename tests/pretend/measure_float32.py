"""What TF32 would break, on the pretend accelerator, which rounds as an NVIDIA GPU does: JSON to the path given.

{"rounds": whether products are rounded, "copy": largest difference of a folded copy's logits from the network's over
 the largest logit, "deeplift": why it refuses, or ""} of "torch" (as torch is by default), "tf32" and "32".
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pretend
import torch
from measure import INFO, network, split
from torch import nn

from xbench.compute.scorer import Scorer, ScoringRecipe
from xbench.registry.discovery import discover
from xbench.registry.entries import Registry
from xbench.registry.references import choose
from xbench.runtime.devices import float32, rounds_products


def found(model: nn.Module, images: torch.Tensor, registry: Registry) -> dict[str, Any]:
    """Measure under the switches as they are set."""
    with torch.no_grad():
        logits = model(images)
    copied = Scorer(model, ScoringRecipe(4, True, True, "32", 0.0, 0.0), pretend.NAME)(images)
    reasons = {
        name: choose("explainer", name, registry).create().supports(model, INFO) for name in ("deeplift", "deepshap")
    }
    return {
        "rounds": rounds_products(pretend.NAME),
        "copy": float((copied - logits).abs().max() / logits.abs().max()),
        **{name: reason or "" for name, reason in reasons.items()},
    }


def main(path: str) -> None:
    """Under torch's own switches, and under those of the two precisions."""
    registry = discover()
    model = network(registry).to(pretend.NAME)
    images = split(8).batch(range(8)).images.to(pretend.NAME)
    ways = {"torch": contextlib.nullcontext(), "tf32": float32("tf32"), "32": float32("32")}
    result = {}
    for name, way in ways.items():
        with way:
            result[name] = found(model, images, registry)
    Path(path).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
