"""Peak memory of explainers that take many samples: with few and with twenty times as many, and for 16 and 320 images.

python benchmarks/performance/explainer_memory.py [NAME ...]

Every number is of a process of its own; images are explained 16 at a time, as the harness does.
"""

from __future__ import annotations

import resource
import subprocess
import sys

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


def explain(name: str, options: dict[str, int], count: int) -> None:
    """Explain and print the peak, in MB."""
    import tempfile
    from pathlib import Path

    from xbench import DatasetInfo, Session, Split
    from xbench.discovery import discover
    from xbench.references import choose

    torch.manual_seed(0)
    registry, info = discover(), DatasetInfo("noise", ("a", "b"), 1, (SIDE, SIDE))
    model = choose("model", "convnet", registry).create().build(info).eval().requires_grad_(False)
    images = np.random.default_rng(0).random((320, 1, SIDE, SIDE), dtype=np.float32)
    names = [str(index) for index in range(len(images))]
    split = Split.from_arrays(images, np.arange(len(images)) % 2, names, names)
    choice = choose("explainer", {"name": name, **options}, registry)
    explainer = choice.create()
    with tempfile.TemporaryDirectory() as folder:
        if explainer.trained:
            explainer.fit(model, split, split, info, Session(Path(folder)))
            explainer.restore(Path(folder), model, info, "cpu")
    for batch in split.select(np.arange(count)).batches(BATCH):
        explainer.explain(model, batch, torch.zeros(len(batch), dtype=torch.int64), name)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak(name: str, options: dict[str, int], count: int) -> float:
    """In a process of its own, in MB."""
    words = [f"{key}={value}" for key, value in options.items()]
    line = [sys.executable, __file__, "--one", name, str(count), *words]
    return float(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Print a line per explainer."""
    if sys.argv[1:2] == ["--one"]:
        name, count, *words = sys.argv[2:]
        explain(name, {key: int(value) for key, value in (word.split("=") for word in words)}, int(count))
        return
    print(f"{'explainer':<24}{'few':>8}{'x 20':>8}{'320 images':>12}   MB")
    for name in sys.argv[1:] or FEW:
        few = FEW[name]
        many = MANY.get(name, {key: 20 * value for key, value in few.items()})
        peaks = [peak(name, few, BATCH), peak(name, many, BATCH), peak(name, few, 20 * BATCH)]
        print(f"{name:<24}{peaks[0]:>8.0f}{peaks[1]:>8.0f}{peaks[2]:>12.0f}", flush=True)


if __name__ == "__main__":
    main()
