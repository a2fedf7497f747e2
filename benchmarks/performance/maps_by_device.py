"""Compare every explainer's maps on a device with the CPU's: the largest difference, and the order of pixels.

    python benchmarks/performance/maps_by_device.py [NAME ...] [--device cuda] [--models convnet timm:resnet18]
                                                    [--size 64] [--images 3] [--json FILE]

Both devices get the same weights and images, true float32, and fewer samples than the defaults. Trained explainers are
trained on the CPU for one epoch, and restored on both devices. An explainer of another one's maps gets the CPU's maps.
Three figures of the worst image are printed per model and explainer: the largest difference of a map relative to its
largest value on the CPU, Spearman's correlation, and the share of pixels with the same place in the order of removal.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import measuring
import numpy as np
import torch
from blobs import nodules
from scipy.stats import spearmanr
from torch import nn

from xbench import Batch, DatasetInfo, MapTransform, Session, Split
from xbench.compute.passes import unchanging
from xbench.registry.discovery import discover
from xbench.registry.references import Choice, choose
from xbench.runtime.devices import float32
from xbench_metrics.ranking import rank

INNER = "gradient"  # the explainer whose maps an explainer of another one gets
TRAINING = 16  # number of training images
FEWER = {"samples": 16, "masks": 64, "background": 8, "pool": 16, "steps": 8, "iterations": 3}
SHORT = {"epochs": 1, "train_batch": 8, "preset": "tiny"}


class Setting(NamedTuple):
    """The images and classes to explain."""

    info: DatasetInfo
    split: Split
    batch: Batch
    targets: torch.Tensor


def setting(size: int, images: int) -> Setting:
    """Return images with one blob each, their masks, and the classes to explain, which are the true ones."""
    pictures, labels, masks = nodules(max(TRAINING, images), size)
    names = [str(index) for index in range(len(pictures))]
    split = Split.from_arrays(pictures, labels, names, names, masks)
    info = DatasetInfo("blobs", ("dim", "bright"), 1, (size, size), has_masks=True)
    batch = split.batch(range(images))
    return Setting(info, split, batch, batch.labels)


def shortened(reference: str) -> Choice:
    """Return the explainer with options that cost little."""
    choice = choose("explainer", reference, discover())
    wanted = {}
    for key, value in (FEWER | SHORT).items():
        default = getattr(choice.options, key, None)
        if hasattr(choice.options, key):
            wanted[key] = min(value, default) if isinstance(default, int) else value
    return choose("explainer", {"name": choice.name, "argument": choice.argument, **wanted}, discover())


def maps(choice: Choice, model: nn.Module, given: Setting, device: str, state: Path, inner: torch.Tensor) -> np.ndarray:
    """Return the maps that a device makes, float32 (N, H, W)."""
    explainer, batch = choice.create(), given.batch.to(device)
    if isinstance(explainer, MapTransform):
        return explainer.checked_transform(inner.to(device), batch, choice.name).cpu().numpy()
    if explainer.trained:
        explainer.restore(state, model, given.info, device)
    with unchanging(model):  # a run makes the same promise
        return explainer.explain(model, batch, given.targets.to(device), choice.name).cpu().numpy()


def compared(one: np.ndarray, other: np.ndarray, seeds: torch.Tensor) -> dict[str, float]:
    """Return how much the maps `other` differ from `one`, both (N, H, W), in the worst image."""
    flat, beside = one.reshape(len(one), -1), other.reshape(len(one), -1)
    largest = np.abs(flat).max(1)
    apart = np.abs(flat - beside).max(1) / np.where(largest > 0, largest, 1)
    places, others = (rank(torch.from_numpy(np.array(values)), seeds)[0].numpy() for values in (flat, beside))
    pairs = zip(flat, beside, strict=True)
    orders = [1.0 if np.array_equal(a, b) else float(spearmanr(a, b).statistic) for a, b in pairs]
    same = (places == others).mean(1)
    return {"difference": float(apart.max()), "spearman": float(np.min(orders)), "same_places": float(same.min())}


def row(reference: str, name: str, models: dict[str, nn.Module], given: Setting, device: str) -> dict[str, Any]:
    """Compare the maps of one explainer of one model.

    Returns:
        The figures, with "error" if the maps can't be compared, or "refused" if the explainer does not fit the model.
    """
    found: dict[str, Any] = {"model": name, "explainer": reference}
    start = time.perf_counter()
    try:
        choice = shortened(reference)
        explainer = choice.create()
        reason = explainer.supports(models["cpu"], given.info)
        if reason:
            return found | {"refused": reason}
        inner = choose("explainer", INNER, discover()).create()
        finished = inner.explain(models["cpu"], given.batch, given.targets, INNER)
        with tempfile.TemporaryDirectory() as folder:
            if explainer.trained:
                session = Session(Path(folder), batch_size=8)
                explainer.fit(models["cpu"], given.split, given.split, given.info, session)
            sides = [
                maps(choice, models[side], given, place, Path(folder), finished)
                for side, place in (("cpu", "cpu"), ("device", device))
            ]
        return found | compared(*sides, given.batch.seeds) | {"seconds": time.perf_counter() - start}
    except Exception as error:
        return found | {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def main() -> None:
    """Print a line per explainer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["convnet", "timm:resnet18"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    given = setting(options.size, options.images)
    entries = [entry for entry in discover().of_kind("explainer") if entry.distribution == "xbench"]
    every = [
        f"{entry.spec.name}:{INNER}" if entry.spec.argument == "explainer" else entry.spec.name for entry in entries
    ]
    rows = []
    print(f"{'':<46}{'difference':>12}{'Spearman':>10}{'same places':>13}")
    with float32("32"):
        for name in options.models:
            torch.manual_seed(0)
            model = choose("model", name, discover()).create().build(given.info).eval().requires_grad_(False)
            models = {"cpu": model, "device": copy.deepcopy(model).to(options.device)}
            for reference in options.names or every:
                rows.append(row(reference, name, models, given, options.device))
                measuring.write({"rows": rows}, options.json)
                print(line(rows[-1]), flush=True)


def line(made: dict[str, Any]) -> str:
    """Return a line of the table."""
    words = f"{made['model']}  {made['explainer']}"
    if "difference" not in made:
        return f"{words:<46}  {made.get('refused') or made['error']}"[:160]
    return f"{words:<46}{made['difference']:>12.1e}{made['spearman']:>10.4f}{made['same_places']:>13.3f}"


if __name__ == "__main__":
    main()
