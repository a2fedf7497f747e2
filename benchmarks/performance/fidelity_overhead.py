"""Fidelity's wall time over the fastest bare forward passes this machine gives for what it needs.

    python benchmarks/performance/fidelity_overhead.py [convnet|resnet50] [--images N] [--repeats R]

The bare passes run the fastest copy of the network found by trying all of them (batch norm folded or not, channels-last
or not) with every batch size, on images that are already there. Both sides are timed in turn, R times; the ratio is
taken pair by pair, because a machine's speed drifts.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from xbench import Case, DatasetInfo, Session, Split
from xbench.scoring import Recipe, Scorer, calibrate
from xbench_metrics.fidelity import Fidelity
from xbench_metrics.options import FidelityOptions
from xbench_models.convnet import ConvNet
from xbench_models.options import ConvNetOptions, TimmOptions
from xbench_models.timm_models import TimmClassifier

SIZES = {"convnet": 64, "resnet50": 224}
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def network(name: str, info: DatasetInfo) -> torch.nn.Module:
    """The network, untrained: its speed does not depend on its weights."""
    torch.manual_seed(0)
    model = ConvNet(ConvNetOptions()) if name == "convnet" else TimmClassifier(TimmOptions(), name)
    module = model.build(info).eval()
    for part in module.modules():  # statistics of a trained network: neither dead nor exploding
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
    return module


def seconds(scorer: Scorer, images: torch.Tensor, passes: int) -> float:
    """Wall time of `passes` images through the scorer, in its own batches."""
    size = scorer.batch_size
    batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous()
    start = time.perf_counter()
    for _ in range(passes // size):
        scorer(batch)
    if passes % size:
        scorer(batch[: passes % size])
    return time.perf_counter() - start


def fastest(module: torch.nn.Module, images: torch.Tensor) -> Scorer:
    """The best of all copies and batch sizes, each timed three times."""
    best: tuple[float, Scorer] | None = None
    for folded, channels_last, size in itertools.product((True, False), (True, False), BATCHES):
        scorer = Scorer(module, Recipe(size, folded, channels_last, "32", 0.0, 0.0), "cpu")
        passes = max(64, size)
        scorer(images[:size])
        took = min(seconds(scorer, images, passes) / passes for _ in range(3))
        if best is None or took < best[0]:
            best = (took, scorer)
    assert best is not None
    return best[1]


def main() -> None:
    """Print the ratio of every pair and its median."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="convnet", choices=sorted(SIZES))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    side = SIZES[options.model]
    info = DatasetInfo("noise", ("a", "b"), 1, (side, side))
    draws = np.random.default_rng(0)
    pictures = draws.random((options.images, 1, side, side), dtype=np.float32)
    names = [str(index) for index in range(options.images)]
    split = Split.from_arrays(pictures, np.arange(options.images) % 2, names, names)
    module, images = network(options.model, info), torch.from_numpy(pictures)
    recipe = calibrate(module, images, "cpu", "32")
    bare = fastest(module, images)
    metric = Fidelity(FidelityOptions())
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), batch_size=recipe.batch_size)
        case = Case(
            info=info,
            split=split,
            train_mean=pictures.mean((0, 2, 3)),
            score=Scorer(module, recipe, "cpu"),
            logits=bare(images).numpy(),
            targets=np.zeros(options.images, dtype=np.int64),
            session=session,
            maps=draws.standard_normal((options.images, side, side), dtype=np.float32),
        )
        case = replace(case, prepared=metric.prepare(case))
        passes = options.images * 2 * (metric.options.steps - 1)
        ratios, metric_times, bare_times = [], [], []
        metric.observe(case)
        for _ in range(options.repeats):
            bare_times.append(seconds(bare, images, passes))
            start = time.perf_counter()
            metric.observe(case)
            metric_times.append(time.perf_counter() - start)
            ratios.append(metric_times[-1] / bare_times[-1])
    print(f"{options.model} at {side} x {side}: {passes} passes")
    print(f"batch size: calibrated {recipe.batch_size}, fastest bare {bare.batch_size}")
    print(f"fidelity {1e3 * statistics.median(metric_times) / passes:.3f} ms a pass")
    print(f"bare     {1e3 * statistics.median(bare_times) / passes:.3f} ms a pass")
    print("ratios   " + " ".join(f"{ratio:.3f}" for ratio in ratios))
    print(f"median   {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
