"""The main job on this machine: wall time cold and warm, and what it found, for several seeds.

    python benchmarks/performance/main_job.py [--seeds 0 1 2] [--keep FOLDER]

Cold: `xbench run --explainer vinet --metric fidelity` with an empty cache, everything trained. Warm: the same line
again, which must give the same numbers. Then, per seed: the classifier's held-out AUC and accuracy, VINet's own
accuracy, importance loss and kept pixels on the test split, the pixel AUC of its maps against the readers' masks, and
fidelities with their intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from xbench import Split
from xbench_lidc.options import LidcPhantomOptions
from xbench_lidc.phantom import LidcPhantom

LINE = ("run", "--explainer", "vinet", "--metric", "fidelity")
SELF = "vinet:subject=self"


def xbench(words: tuple[str, ...], folder: Path, cache: Path) -> float:
    """Run the command line; wall seconds."""
    start = time.perf_counter()
    environment = os.environ | {"XBENCH_CACHE": str(cache)}
    subprocess.run(
        [sys.executable, "-m", "xbench", *words], cwd=folder, env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - start


def pixel_auc(maps: np.ndarray, split: Split) -> float:
    """Mean over images of the Mann-Whitney AUC of a map against the mask; images without a mask are left out."""
    batch = split.batch(np.arange(len(split)))
    areas = []
    for values, mask in zip(maps, batch.masks.numpy(), strict=True):
        inside = int(mask.sum())
        if 0 < inside < mask.size:
            ranks = rankdata(values.ravel())[mask.ravel()]
            areas.append((ranks.sum() - inside * (inside + 1) / 2) / (inside * (mask.size - inside)))
    return float(np.mean(areas))


def figures(run: Path, cache: Path) -> dict[str, str]:
    """What one run found."""
    scores = pd.read_csv(run / "scores.csv").set_index("explainer")
    header = json.loads((run / "run.json").read_text())
    models = {model["name"]: model["metrics"] for model in header["models"]}
    shared, own = models["convnet"], models[f"own classifier of {SELF}"]
    row = scores.loc["vinet"]
    maps = np.load(cache / "artifacts" / "maps" / row["maps_fingerprint"] / "maps.npy")
    data = LidcPhantom(LidcPhantomOptions()).open("test", cache / "artifacts" / "data" / row["dataset_fingerprint"])

    def interval(name: str) -> str:
        one = scores.loc[name]
        return f"{one['value']:.3f} [{one['ci_low']:.3f}, {one['ci_high']:.3f}]"

    return {
        "convnet AUC": f"{shared['auc'][0]:.3f}",
        "convnet accuracy": f"{shared['accuracy'][0]:.3f}",
        "VINet accuracy": f"{own['accuracy'][0]:.3f}",
        "importance loss": f"{maps.mean():.3f}",
        "kept pixels": f"{(maps >= 0.1).mean():.3f}",
        "pixel AUC": f"{pixel_auc(maps, data):.3f}",
        "fidelity VINet": interval("vinet"),
        "fidelity VINet, own classifier": interval(SELF),
        "fidelity gradient": interval("gradient"),
        "fidelity random": interval("random"),
    }


def main() -> None:
    """Print the times and a table with a column per seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="keep the run folders and the cache here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        cache = folder / "cache"
        print(f"cold {xbench((*LINE, '--out', 'cold'), folder, cache):.1f} s", flush=True)
        print(f"warm {xbench((*LINE, '--out', 'warm'), folder, cache):.1f} s", flush=True)
        same = (folder / "cold" / "scores.csv").read_bytes() == (folder / "warm" / "scores.csv").read_bytes()
        print("the same numbers" if same else "OTHER NUMBERS", flush=True)
        table = {}
        for seed in options.seeds:
            out = f"seed-{seed}"
            xbench((*LINE, "--explainer", SELF, "--seed", str(seed), "--out", out), folder, cache)
            table[f"seed {seed}"] = figures(folder / out, cache)
        print(pd.DataFrame(table).to_string())


if __name__ == "__main__":
    main()
