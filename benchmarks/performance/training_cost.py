"""Time of a training step of the trained explainers relative to the bare passes that it needs, and peak memory.

    python benchmarks/performance/training_cost.py [cyclegan-am|vinet] [--preset tiny|paper] [--steps N] [--repeats R]
                                                   [--size S] [--batch N] [--device cpu] [--precision 32 ...]
                                                   [--json FILE]

Two things are timed in turn. One is an epoch of training (`fit`: batches, losses, gradient clipping, optimisers). The
other are the bare passes of its steps: the same networks on a batch that is already on the device, forward and
backward, with a sum in place of the losses and without an optimiser. For K classes, a step of cyclegan-am needs

    each generator     K + K images forward and backward: toward every class, and back
    each discriminator real and generated images forward and backward for its own step; the same again for the
                       generators' step (with real ones, because batch norms see both), without gradients of its weights
    the classifier     K images forward and backward to the image

A step of vinet needs one pass forward and backward of its network. The cost of a training besides its steps (building,
validation, a checkpoint) is measured as an epoch of one step, and subtracted from an epoch of N + 1 steps. One such
epoch runs before anything is timed, because the first training of a process imports modules. Peak memory is that of
tensors on the device if torch counts it, else that of a separate process.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from torch import nn

from xbench import DatasetInfo, Explainer, Session, Split
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.runtime.devices import float32

CLASSES, VALIDATION = 2, 8


def noise(count: int, side: int) -> Split:
    """Return images of noise, because speed does not depend on their content."""
    images = np.random.default_rng(0).random((count, 1, side, side), dtype=np.float32)
    names = [str(index) for index in range(count)]
    return Split.from_arrays(images, np.arange(count) % CLASSES, names, names)


class Work:
    """One explainer's training, and its bare passes.

    Args:
        name: Name of the explainer.
        precision: Precision of the training and of the bare passes.
        given: Options of the command line: `preset`, `steps`, `size`, `batch`, `device`.
    """

    def __init__(self, name: str, precision: str, given: argparse.Namespace) -> None:
        registry = discover()
        self.device, self.precision, self.steps = given.device, precision, given.steps
        self.info = DatasetInfo("noise", ("a", "b"), 1, (given.size, given.size))
        torch.manual_seed(0)
        model = choose("model", "convnet", registry).create().build(self.info)
        self.model = model.to(self.device).eval().requires_grad_(False)
        chosen = {"name": name, "preset": given.preset, "epochs": 1}
        choice = choose("explainer", chosen | ({"train_batch": given.batch} if given.batch else {}), registry)
        self.explainer: Explainer = choice.create()
        self.options = _resolved(name, choice.options, self.device, self.info)
        self.batch = self.options.train_batch
        self.train, self.validation = noise((self.steps + 1) * self.batch, given.size), noise(VALIDATION, given.size)
        self.images = self.train.batch(np.arange(self.batch)).images.to(self.device)
        self.bare_step = _BARE[name](self)

    def training(self) -> float:
        """Return the seconds of the steps of an epoch."""
        return measuring.seconds(self.fit, self.device) - measuring.seconds(self.fit_one, self.device)

    def fit(self) -> None:
        """Train for one epoch, with everything that belongs to it."""
        self._fit(self.train)

    def fit_one(self) -> None:
        """Train for an epoch of one step."""
        self._fit(self.train.select(np.arange(self.batch)))

    def _fit(self, train: Split) -> None:
        with tempfile.TemporaryDirectory() as folder:
            session = Session(Path(folder), self.device, self.precision)
            self.explainer.fit(self.model, train, self.validation, self.info, session)

    def bare(self) -> float:
        """Return the seconds of the bare passes of as many steps."""
        session = Session(Path(), self.device, self.precision)

        def run() -> None:
            for _ in range(self.steps):
                self.bare_step(session)

        return measuring.seconds(run, self.device)


def _resolved(name: str, options: Any, device: str, info: DatasetInfo) -> Any:
    if name == "vinet":
        from xbench_vinet.options import resolve
    else:
        from xbench_cyclegan_am.options import resolve
    return resolve(options, device, info.spatial)


def _cyclegan(work: Work) -> Callable[[Session], None]:
    from xbench_cyclegan_am.objective import CycleGAN

    network = CycleGAN(1, CLASSES, work.options).to(work.device).to(memory_format=torch.channels_last).train()
    images = work.images

    def judged(k: int, fake: torch.Tensor) -> torch.Tensor:
        return sum(part.sum() for part in network.discriminators[k].encoder(torch.cat([images, fake]))[-2:])

    def step(session: Session) -> None:
        network.zero_grad(set_to_none=True)
        with session.autocast():
            changed = [generator(images) for generator in network.generators]
            judgement = sum(judged(k, one.detach()) for k, one in enumerate(changed))
        judgement.backward()
        network.discriminators.requires_grad_(False)
        with session.autocast():
            loss = sum(judged(k, one) + work.model(one).sum() for k, one in enumerate(changed))
            back = [network.generators[(k + 1) % CLASSES](one) for k, one in enumerate(changed)]
            loss = loss + sum(one.sum() for one in back)
        loss.backward()
        network.discriminators.requires_grad_(True)

    return step


def _vinet(work: Work) -> Callable[[Session], None]:
    from xbench_vinet.network import build_network

    network: nn.Module = build_network(work.options, work.info, 0, None)
    network = network.to(work.device).to(memory_format=torch.channels_last).train()

    def step(session: Session) -> None:
        network.zero_grad(set_to_none=True)
        with session.autocast():
            logits, maps = network(work.images)
            loss = logits.sum() + maps.sum()
        loss.backward()

    return step


_BARE = {"cyclegan-am": _cyclegan, "vinet": _vinet}


def peak(name: str, precision: str, given: argparse.Namespace) -> float:
    """Return the peak memory of a training in a separate process, in MB."""
    words = [f"--{key}={getattr(given, key)}" for key in ("preset", "steps", "size", "device")]
    words += [f"--batch={given.batch}"] if given.batch else []
    line = [sys.executable, __file__, name, *words, "--precision", precision, "--memory"]
    return round(float(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1]))


def measured(name: str, precision: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the ratios to the bare passes, the seconds of a step, and the memory."""
    work = Work(name, precision, given)
    work.bare()
    on_device = measuring.peak_memory(work.device, work.fit)
    if on_device is None:
        work.fit_one()
    pairs = [(work.bare(), work.training()) for _ in range(given.repeats)]
    return {
        "explainer": name,
        "preset": given.preset,
        "precision": precision,
        "images": work.batch,
        "seconds_a_step": statistics.median(steps for _, steps in pairs) / work.steps,
        "ratios": [steps / bare for bare, steps in pairs],
    } | _memory(on_device, name, precision, given)


def _memory(on_device: float | None, name: str, precision: str, given: argparse.Namespace) -> dict[str, Any]:
    if on_device is not None:
        return {"peak_mb": round(on_device), "peak_of": "tensors on the device"}
    if not given.host_memory:
        return {"peak_mb": None, "peak_of": "the device can't be measured"}
    return {"peak_mb": peak(name, precision, given), "peak_of": "the process, on the host"}


def main() -> None:
    """Print the lines of each explainer at each precision."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", choices=sorted(_BARE))
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=8, help="steps of an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, help="images of a step; the preset's number if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["32"])
    parser.add_argument("--memory", action="store_true", help="train once and print only the peak of the process")
    host = "measure the process's memory on the host if the device's can't be measured"
    parser.add_argument("--host-memory", action=argparse.BooleanOptionalAction, default=True, help=host)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, precision in itertools.product([given.name] if given.name else sorted(_BARE), given.precision):
        with float32(precision):
            if given.memory:
                Work(name, precision, given).fit()
                print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
                continue
            row = measured(name, precision, given)
        rows.append(row)
        print(f"{name}, {given.preset}, {precision}: {row['seconds_a_step']:.3f} s a step of {row['images']} images")
        ratios = " ".join(f"{one:.3f}" for one in row["ratios"])
        print(f"over the bare passes: {ratios}, median {statistics.median(row['ratios']):.3f}")
        print(f"peak memory: {row['peak_mb']} MB of {row['peak_of']}", flush=True)
        measuring.write({"rows": rows}, given.json)


if __name__ == "__main__":
    main()
