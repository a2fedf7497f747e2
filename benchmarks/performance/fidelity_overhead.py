"""Fidelity's wall time relative to the bare forward passes that it needs, at this machine's fastest.

    python benchmarks/performance/fidelity_overhead.py [convnet|resnet50] [--images N] [--repeats R] [--size S]
                                                       [--device cpu] [--precision 32] [--json FILE]

The bare passes run the fastest copy of the network found by trying all of them (batch norm folded or not, channels-last
or not) with every batch size, on images that are already on the device. Both sides are timed in turn, R times. The
ratio is taken pair by pair, because a machine's speed drifts. Every repeat has its own metric, because a metric
remembers the results of maps that it has seen, and does not evaluate them again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import measuring
import numpy as np
import torch

from xbench import Case, DatasetInfo, Session, Split
from xbench.compute.scorer import Scorer, ScoringRecipe, calibrate
from xbench.registry.discovery import discover
from xbench.runtime.devices import float32
from xbench_metrics.fidelity.fidelity import Fidelity
from xbench_metrics.fidelity.options import FidelityOptions
from xbench_models.convnet import ConvNet
from xbench_models.options import ConvNetOptions, TimmOptions
from xbench_models.timm_models import TimmClassifier

SIZES = {"convnet": 64, "resnet50": 224}
ROWS_CPU = (1, 2, 4, 8, 16, 32, 64, 128)
ROWS = (16, 32, 64, 128, 256, 512, 1024)


def network(name: str, info: DatasetInfo) -> torch.nn.Module:
    """Return the network untrained, because its speed does not depend on its weights."""
    torch.manual_seed(0)
    model = ConvNet(ConvNetOptions()) if name == "convnet" else TimmClassifier(TimmOptions(), name)
    module = model.build(info).eval()
    for part in module.modules():  # give it the statistics of a trained network: neither dead nor exploding
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
    return module


def bare_passes(scorer: Scorer, images: torch.Tensor, passes: int) -> None:
    """Pass `passes` images through the scorer in batches of its own size."""
    size = scorer.batch_size
    batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous()
    for _ in range(passes // size):
        scorer(batch)
    if passes % size:
        scorer(batch[: passes % size])


def fastest(
    module: torch.nn.Module, images: torch.Tensor, device: str, precision: str, all_rows: Sequence[int]
) -> Scorer:
    """Return the fastest of all copies and batch sizes, each timed three times."""
    best: tuple[float, Scorer] | None = None
    for folded, channels_last, rows in itertools.product((True, False), (True, False), all_rows):
        scorer = Scorer(module, ScoringRecipe(rows, folded, channels_last, precision, 0.0, 0.0), device)
        passes = max(64, rows)
        bare_passes(scorer, images, rows)

        def run(scorer: Scorer = scorer, passes: int = passes) -> None:
            bare_passes(scorer, images, passes)

        took = min(measuring.seconds(run, device) / passes for _ in range(3))
        if best is None or took < best[0]:
            best = (took, scorer)
    assert best is not None
    return best[1]


def noise_case(
    score: Callable[[torch.Tensor], torch.Tensor], info: DatasetInfo, count: int, session: Session
) -> tuple[Case, torch.Tensor]:
    """Return a case with maps of noise for images of noise, and the images on the device."""
    draws = np.random.default_rng(0)
    pictures = draws.random((count, info.channels, *info.spatial), dtype=np.float32)
    names = [str(index) for index in range(count)]
    images = torch.from_numpy(pictures).to(session.device)
    case = Case(
        info=info,
        split=Split.from_arrays(pictures, np.arange(count) % 2, names, names),
        train_mean=pictures.mean((0, 2, 3)),
        logits_of=score,
        logits=torch.cat([score(part) for part in images.split(session.batch_size)]).cpu().numpy(),
        targets=np.zeros(count, dtype=np.int64),
        session=session,
        maps=draws.standard_normal((count, *info.spatial), dtype=np.float32),
    )
    return replace(case, prepared=Fidelity(FidelityOptions()).prepare(case)), images


def observe(case: Case) -> None:
    """Compute both curves of every map, with a metric that has not seen the maps."""
    Fidelity(FidelityOptions()).observe(case)


def needed(count: int) -> int:
    """Return the number of passes that `observe` needs for `count` maps."""
    return count * 2 * (FidelityOptions().steps - 1)


def main() -> None:
    """Print the ratio of every pair and its median."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="convnet", choices=sorted(SIZES))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, help="side of the images in pixels")
    parser.add_argument("--rows", type=int, nargs="+", help="batch sizes of the bare passes; the fastest is taken")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with float32(options.precision):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Measure with the options of `main`."""
    discover()  # a plugin may bring the device
    device, side = options.device, options.size or SIZES[options.model]
    info = DatasetInfo("noise", ("a", "b"), 1, (side, side))
    module = network(options.model, info)
    probe = torch.rand(8, 1, side, side, generator=torch.Generator().manual_seed(0))
    recipe = calibrate(module, probe, device, options.precision)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), device, batch_size=recipe.batch_size)
        case, images = noise_case(Scorer(module, recipe, device), info, options.images, session)
        rows = options.rows or (ROWS_CPU if torch.device(device).type == "cpu" else ROWS)
        bare = fastest(module, images, device, options.precision, rows)
        passes = needed(options.images)
        observe(case)
        pairs = [
            (measuring.seconds(lambda: bare_passes(bare, images, passes), device), measuring.seconds(run, device))
            for run in options.repeats * [lambda: observe(case)]
        ]
    ratios = [mine / base for base, mine in pairs]
    base, mine = (1e3 * statistics.median(times) / passes for times in zip(*pairs, strict=True))
    print(f"{options.model} at {side} x {side}, {device}: {passes} passes")
    print(f"batch size: calibrated {recipe.batch_size}, fastest bare {bare.batch_size}")
    print(f"fidelity {mine:.3f} ms a pass")
    print(f"bare     {base:.3f} ms a pass")
    print("ratios   " + " ".join(f"{ratio:.3f}" for ratio in ratios))
    print(f"median   {statistics.median(ratios):.3f}")
    figures = {"ratio": statistics.median(ratios), "ratios": ratios, "ms_a_pass": mine, "bare_ms_a_pass": base}
    measuring.write(figures | {"batch_size": recipe.batch_size, "bare_batch_size": bare.batch_size}, options.json)


if __name__ == "__main__":
    main()
