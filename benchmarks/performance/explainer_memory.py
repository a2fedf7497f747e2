"""Peak memory of explainers that take many samples: with few and with twenty times as many, and for 16 and 320 images.

python benchmarks/performance/explainer_memory.py [--device cpu] [NAME ...]

Every number comes from a separate process. Images are explained 16 at a time, as in a run. The number is the peak
memory of tensors on the device if torch counts it, else the peak of the process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import measuring
import numpy as np
import torch

SIDE, BATCH = 64, 16
FEW = {
    "integrated-gradients": {"steps": 5},
    "smoothgrad": {"samples": 5},
    "expected-gradients": {"samples": 5},
    "deepshap": {"background": 5},
    "occlusion": {"stride": 16},
    "lime": {"samples": 50},
    "rise": {"masks": 50},
}
MANY = {"occlusion": {"stride": 3}}


def explain(name: str, options: dict[str, int], count: int, device: str) -> None:
    """Explain and print the peak, in MB."""
    import tempfile
    from pathlib import Path

    from xbench import DatasetInfo, Session, Split
    from xbench.registry.discovery import discover
    from xbench.registry.references import choose

    torch.manual_seed(0)
    registry, info = discover(), DatasetInfo("noise", ("a", "b"), 1, (SIDE, SIDE))
    model = choose("model", "convnet", registry).create().build(info).to(device).eval().requires_grad_(False)
    images = np.random.default_rng(0).random((320, 1, SIDE, SIDE), dtype=np.float32)
    names = [str(index) for index in range(len(images))]
    split = Split.from_arrays(images, np.arange(len(images)) % 2, names, names)
    choice = choose("explainer", {"name": name, **options}, registry)
    explainer = choice.create()
    with tempfile.TemporaryDirectory() as folder:
        if explainer.trained:
            explainer.fit(model, split, split, info, Session(Path(folder), device))
            explainer.restore(Path(folder), model, info, device)

    def run() -> None:
        for batch in split.select(np.arange(count)).batches(BATCH):
            targets = torch.zeros(len(batch), dtype=torch.int64, device=device)
            explainer.explain(model, batch.to(device), targets, name)

    on_device = measuring.peak_memory(device, run)
    if on_device is None:
        run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if on_device is None else on_device)


def peak(name: str, options: dict[str, int], count: int, device: str) -> float:
    """Return the peak memory of a separate process, in MB."""
    words = [f"{key}={value}" for key, value in options.items()]
    line = [sys.executable, __file__, "--device", device, "--one", name, str(count), *words]
    return float(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Print a line per explainer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, count, *words = given.one
        explain(name, {key: int(value) for key, value in (word.split("=") for word in words)}, int(count), given.device)
        return
    print(f"{'explainer':<24}{'few':>8}{'x 20':>8}{'320 images':>12}   MB")
    for name in given.names or FEW:
        few = FEW[name]
        many = MANY.get(name, {key: 20 * value for key, value in few.items()})
        peaks = [peak(name, *work, given.device) for work in ((few, BATCH), (many, BATCH), (few, 20 * BATCH))]
        print(f"{name:<24}{peaks[0]:>8.0f}{peaks[1]:>8.0f}{peaks[2]:>12.0f}", flush=True)


if __name__ == "__main__":
    main()
