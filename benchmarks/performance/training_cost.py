"""Seconds of a training step of the trained explainers over the bare passes that it needs, and peak memory.

    python benchmarks/performance/training_cost.py [cyclegan-am|vinet] [--preset tiny|paper] [--steps N] [--repeats R]

An epoch of training (`fit`: batches, losses, gradient clipping, optimisers) is timed, and beside it, in turn, the bare
passes of its steps: the same networks on a batch that is already there, forward and backward, with a
sum in place of the losses and no optimiser. For K classes a step of cyclegan-am needs

    each generator     K + K images forward and backward: toward every class, and back
    each discriminator real and generated images forward and backward for its own step; the same again for the
                       generators' (real ones too: their batch norms see both), without gradients of its weights
    the classifier     K images forward and backward to the image

and one of vinet a pass forward and backward of its network. What a training costs besides its steps (building,
validation, a checkpoint) is in the time of an epoch of one step, which is taken off that of N + 1 steps. Peak memory is
of a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench import DatasetInfo, Explainer, Session, Split
from xbench.discovery import discover
from xbench.references import choose

SIDE, CLASSES, VALIDATION = 64, 2, 8


def noise(count: int) -> Split:
    """Images of noise: speed does not depend on what they show."""
    images = np.random.default_rng(0).random((count, 1, SIDE, SIDE), dtype=np.float32)
    names = [str(index) for index in range(count)]
    return Split.from_arrays(images, np.arange(count) % CLASSES, names, names)


class Work:
    """One explainer's training, and its bare passes."""

    def __init__(self, name: str, preset: str, steps: int) -> None:
        registry = discover()
        self.info = DatasetInfo("noise", ("a", "b"), 1, (SIDE, SIDE))
        torch.manual_seed(0)
        self.model = choose("model", "convnet", registry).create().build(self.info).eval().requires_grad_(False)
        choice = choose("explainer", {"name": name, "preset": preset, "epochs": 1}, registry)
        self.explainer: Explainer = choice.create()
        self.options = _resolved(name, choice.options)
        self.batch, self.steps = self.options.train_batch, steps
        self.train, self.validation = noise((steps + 1) * self.batch), noise(VALIDATION)
        self.bare_step = _BARE[name](self)

    def training(self) -> float:
        """Seconds of the steps of an epoch."""
        return self.fit(self.train) - self.fit(self.train.select(np.arange(self.batch)))

    def fit(self, train: Split) -> float:
        """Seconds of one epoch, with all that belongs to it."""
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            self.explainer.fit(self.model, train, self.validation, self.info, Session(Path(folder)))
            return time.perf_counter() - start

    def bare(self) -> float:
        """Seconds of the bare passes of as many steps."""
        start = time.perf_counter()
        for _ in range(self.steps):
            self.bare_step()
        return time.perf_counter() - start


def _resolved(name: str, options: Any) -> Any:
    if name == "vinet":
        from xbench_vinet.options import resolve
    else:
        from xbench_cyclegan_am.options import resolve
    return resolve(options, "cpu", (SIDE, SIDE))


def _cyclegan(work: Work) -> Callable[[], None]:
    from xbench_cyclegan_am.objective import CycleGAN

    network = CycleGAN(1, CLASSES, work.options).to(memory_format=torch.channels_last).train()
    images = work.train.batch(np.arange(work.batch)).images

    def judged(k: int, fake: torch.Tensor) -> torch.Tensor:
        return sum(part.sum() for part in network.discriminators[k].encoder(torch.cat([images, fake]))[-2:])

    def step() -> None:
        network.zero_grad(set_to_none=True)
        changed = [generator(images) for generator in network.generators]
        sum(judged(k, one.detach()) for k, one in enumerate(changed)).backward()
        network.discriminators.requires_grad_(False)
        loss = sum(judged(k, one) + work.model(one).sum() for k, one in enumerate(changed))
        back = [network.generators[(k + 1) % CLASSES](one) for k, one in enumerate(changed)]
        (loss + sum(one.sum() for one in back)).backward()
        network.discriminators.requires_grad_(True)

    return step


def _vinet(work: Work) -> Callable[[], None]:
    from xbench_vinet.network import build_network

    network: nn.Module = build_network(work.options, work.info, 0, None)
    network = network.to(memory_format=torch.channels_last).train()
    images = work.train.batch(np.arange(work.batch)).images

    def step() -> None:
        network.zero_grad(set_to_none=True)
        logits, maps = network(images)
        (logits.sum() + maps.sum()).backward()

    return step


_BARE = {"cyclegan-am": _cyclegan, "vinet": _vinet}


def peak(name: str, preset: str, steps: int) -> float:
    """Of a training in a process of its own, in MB."""
    line = [sys.executable, __file__, name, "--preset", preset, "--steps", str(steps), "--memory"]
    return float(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Print a line per explainer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", choices=sorted(_BARE))
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=8, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="train once and print the peak alone")
    options = parser.parse_args()
    for name in [options.name] if options.name else sorted(_BARE):
        work = Work(name, options.preset, options.steps)
        if options.memory:
            work.fit(work.train)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            continue
        work.bare_step()
        ratios, seconds = [], []
        for _ in range(options.repeats):
            bare, steps = work.bare(), work.training()
            ratios.append(steps / bare)
            seconds.append(steps / work.steps)
        print(f"{name}, {options.preset}: {statistics.median(seconds):.3f} s a step of {work.batch} images")
        print(
            f"over the bare passes: {' '.join(f'{one:.3f}' for one in ratios)}, median {statistics.median(ratios):.3f}"
        )
        print(f"peak memory: {peak(name, options.preset, options.steps):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
