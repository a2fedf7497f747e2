"""Run the main job on this machine: its wall time with a cold and a warm cache, and its results for several seeds.

    python benchmarks/performance/main_job.py [--seeds 0 1 2] [--keep FOLDER] [--device auto] [--explainer vinet]
                                              [--more WORD ...] [--json FILE]

The cold run is `xbench run --explainer vinet --metric fidelity` with an empty cache, so everything is trained. The warm
run is the same command again, and must give the same numbers. The script then prints for each seed the classifier's
held-out AUC and accuracy, VINet's own accuracy, importance loss and kept pixels on the test split, the pixel AUC of its
maps against the readers' masks, and fidelities with their intervals. Without seeds (`--seeds` alone), it prints the
results of the cold run. `--more` must come last: all words after it are passed to xbench.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from scipy.stats import rankdata

from xbench import Split
from xbench.registry.discovery import discover
from xbench.registry.references import choose

DATASET = "lidc-phantom"


def xbench(words: Sequence[str], folder: Path, cache: Path) -> float:
    """Run the command line and return its wall time in seconds. Its output is shown if it fails."""
    start = time.perf_counter()
    environment = os.environ | {"XBENCH_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", "xbench", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    return time.perf_counter() - start


def pixel_auc(maps: np.ndarray, split: Split) -> float:
    """Return the mean over images with a mask of the Mann-Whitney AUC of the map against the mask."""
    batch = split.batch(np.arange(len(split)))
    areas = []
    for values, mask in zip(maps, batch.masks.numpy(), strict=True):
        inside = int(mask.sum())
        if 0 < inside < mask.size:
            ranks = rankdata(values.ravel())[mask.ravel()]
            areas.append((ranks.sum() - inside * (inside + 1) / 2) / (inside * (mask.size - inside)))
    return float(np.mean(areas))


def rows_of(run: Path) -> dict[str, dict[str, str]]:
    """Return the rows of scores.csv by explainer."""
    with (run / "scores.csv").open(newline="") as file:
        return {row["explainer"]: row for row in csv.DictReader(file)}


def data_of(cache: Path, reference: str) -> tuple[Any, Path]:
    """Return the dataset, and the only folder in the cache of main jobs where it was prepared."""
    (made,) = (cache / "artifacts" / "data").glob("*/manifest.json")
    return choose("dataset", reference, discover()).create(), made.parent


def figures(run: Path, cache: Path, explainer: str, reference: str) -> dict[str, str]:
    """Return the results of one run."""
    scores = rows_of(run)
    header = json.loads((run / "run.json").read_text())
    models = {model["name"]: model["metrics"] for model in header["models"]}
    shared = next(metrics for name, metrics in models.items() if not name.startswith("own classifier"))
    row = scores[explainer]
    maps = np.load(cache / "artifacts" / "maps" / row["maps_fingerprint"] / "maps.npy")
    dataset, folder = data_of(cache, reference)
    found = {"classifier's AUC": f"{shared['auc'][0]:.3f}", "classifier's accuracy": f"{shared['accuracy'][0]:.3f}"}
    own = next((metrics for name, metrics in models.items() if name.startswith("own classifier")), None)
    if own:
        found["VINet accuracy"] = f"{own['accuracy'][0]:.3f}"
    found |= {"importance loss": f"{maps.mean():.3f}", "kept pixels": f"{(maps >= 0.1).mean():.3f}"}
    test = dataset.open("test", folder)
    if len(test) == len(maps):  # with --limit, the maps are of fewer images
        found["pixel AUC"] = f"{pixel_auc(maps, test):.3f}"
    for name in (explainer, _itself(explainer), "gradient", "random"):
        if name in scores:
            low, high = float(scores[name]["ci_low"]), float(scores[name]["ci_high"])
            found[f"fidelity {name}"] = f"{float(scores[name]['value']):.3f} [{low:.3f}, {high:.3f}]"
    return found


def _itself(explainer: str) -> str:
    """Return the explainer's reference, scored against the classifier that was trained with it."""
    return explainer + ("," if "=" in explainer else ":") + "subject=self"


def main() -> None:
    """Print the times and a table with a column per seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="keep the run folders and the cache here")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--explainer", default="vinet")
    parser.add_argument("--dataset", default=DATASET)
    parser.add_argument("--once", help="make only one run, of this name, with a cache that was kept")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="words for xbench")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (options.keep or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if options.once is None and any(folder.iterdir()):
            parser.error(f"{folder} is not empty: with what is cached there nothing would be cold")
        measure(options, folder)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Measure with the options of `main`."""
    cache = folder / "cache"
    explainer = choose("explainer", options.explainer, discover()).label  # its name in tables of results
    line = ("run", "--explainer", explainer, "--metric", "fidelity", "--dataset", options.dataset)
    line = (*line, "--device", options.device, *options.more)
    first = options.once or "cold"
    found: dict[str, Any] = {first: xbench((*line, "--out", first), folder, cache)}
    print(f"{first} {found[first]:.1f} s", flush=True)
    table = {first: figures(folder / first, cache, explainer, options.dataset)}
    measuring.write(found | {"found": table}, options.json)
    if options.once is None:
        found["warm"] = xbench((*line, "--out", "warm"), folder, cache)
        found["same"] = (folder / "cold" / "scores.csv").read_bytes() == (folder / "warm" / "scores.csv").read_bytes()
        print(f"warm {found['warm']:.1f} s: {'the same' if found['same'] else 'OTHER'} numbers", flush=True)
    for seed in options.seeds:
        out = f"seed-{seed}"
        itself = ("--explainer", _itself(explainer))
        xbench((*line, *itself, "--seed", str(seed), "--out", out), folder, cache)
        table[out] = figures(folder / out, cache, explainer, options.dataset)
    measuring.write(found | {"found": table}, options.json)
    for heading, column in table.items():
        print(heading, *(f"  {key}: {value}" for key, value in column.items()), sep="\n")


if __name__ == "__main__":
    main()
