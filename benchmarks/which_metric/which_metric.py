"""Which metric ranks explainers as the truth does? Brocki's question, where the truth is known.

    python benchmarks/which_metric/which_metric.py [--out FOLDER] [--patients 80]

Two classifiers on `contrast-phantom`. One was trained on slices in which only the contrast agent tells the classes
apart; the other with a letter planted in the corner of each slice with agent, so that it learned the letter alone. The
truth is the pixel AUC of the maps against what the classifier goes by: the agent's exact mask for the first, the letter
for the second (`truth=letter`). Each metric's order of the explainers is correlated with that truth: Spearman's rho,
with its 95 % bootstrap interval over patients. An expert would mark the agent in both cases.

Writes `which-metric.csv`, `which-metric.svg` and `.png` beside the run folders. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xbench.report.canvas import BLUE, INK, MUTED, VERMILLION, drawing, save
from xbench.results.replicates import REPLICATES, read_replicates
from xbench.results.rows import ScoreRow, read_scores
from xbench.statistics.agreement import Correlation, agreement

EXPLAINERS = (
    *("gradient", "deconvolution", "guided-backpropagation", "input-x-gradient", "integrated-gradients"),
    *("integrated-gradients-bw", "expected-gradients", "gradient-shap", "smoothgrad", "smoothgrad-squared", "vargrad"),
    *("lrp-gamma", "lrp-alpha-beta", "deeplift", "deepshap", "gradcam", "occlusion", "rise", "lime", "xrai", "vinet"),
)
MODEL_METRICS = (
    *("fidelity", "fidelity:removal=mean", "fidelity:removal=zero", "fidelity:removal=blur"),
    *("fidelity:score=probability", "occlude_accuracy", "sparseness"),
)
MASK_METRICS = ("roc_auc", "average_precision", "pointing_game", "relevance_mass", "relevance_rank", "dice")
TRUTH = "roc_auc"
LETTER = "confounder=1,confounder_test=1"


class World(NamedTuple):
    """A classifier, and what it goes by.

    Attributes:
        name: In words.
        scored: Folder of the run with all metrics, masks being the expert's.
        truth: Folder of the run whose masks are what the classifier goes by.
    """

    name: str
    scored: Path
    truth: Path


def main() -> None:
    """Run what is missing, print the table, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("which-metric"))
    parser.add_argument("--patients", type=int, default=80, help="of the test split, one slice each")
    options = parser.parse_args()
    data = f"contrast-phantom:slices_test=1,patients_test={options.patients}"
    folders = {
        "agent": (data, (*MODEL_METRICS, *MASK_METRICS)),
        "letter": (f"{data},{LETTER}", (*MODEL_METRICS, *MASK_METRICS)),
        "letter-truth": (f"{data},{LETTER},truth=letter", (TRUTH,)),
    }
    for name, (dataset, metrics) in folders.items():
        if not (options.out / name).exists():
            run(dataset, metrics, options.out / name)
    worlds = (
        World("the agent decides", options.out / "agent", options.out / "agent"),
        World("the letter decides", options.out / "letter", options.out / "letter-truth"),
    )
    found = {(world.name, sign): correlations(world, sign) for world in worlds for sign in ("original", "absolute")}
    write(found, options.out / "which-metric.csv")
    draw(found, options.out / "which-metric")
    for (world, sign), by_metric in found.items():
        print(f"\n{world}, {sign} maps")
        for metric, one in sorted(by_metric.items(), key=lambda item: -item[1].value):
            print(f"  {metric:<30}{one.value:>7.2f}  [{one.low:.2f}, {one.high:.2f}]  p = {one.p:.4f}")


def run(dataset: str, metrics: tuple[str, ...], out: Path) -> None:
    """Run `xbench run` for all explainers in both signs."""
    words = [word for name in EXPLAINERS for word in ("--explainer", name)]
    words += [word for name in metrics for word in ("--metric", name)]
    command = [
        sys.executable,
        "-m",
        "xbench",
        "run",
        *words,
        "--dataset",
        dataset,
        "--sign",
        "both",
        "--no-controls",
        "--out",
        str(out),
    ]
    subprocess.run(command, check=True)


def correlations(world: World, sign: str) -> dict[str, Correlation]:
    """Return each metric's rank correlation with the truth, over the explainers that are not controls."""
    scored, truths = chosen(world.scored, sign), chosen(world.truth, sign)
    truth = {row.explainer: row for row in truths if row.metric.partition(":")[0] == TRUTH}
    drawn = read_replicates(world.scored / REPLICATES) | read_replicates(world.truth / REPLICATES)
    result = {}
    for metric in dict.fromkeys(row.metric for row in scored):
        rows = {row.explainer: row for row in scored if row.metric == metric}
        names = [name for name in rows if name in truth]
        if world.scored == world.truth and metric == TRUTH:
            continue  # the truth itself
        pair: Mapping[str, list[ScoreRow]] = {
            "metric": [rows[name] for name in names],
            "truth": [truth[name] for name in names],
        }
        values = {key: np.array([better(row, row.value) for row in each]) for key, each in pair.items()}
        series = {
            key: np.stack([better(row, drawn[row.fingerprint].values) for row in each]) for key, each in pair.items()
        }
        result[metric] = agreement(world.name, names, values, series).pairs[0].spearman
    return result


def chosen(folder: Path, sign: str) -> list[ScoreRow]:
    """Return the scored rows of explainers that are neither controls nor duplicates of another explainer."""
    rows = read_scores(folder / "scores.csv")
    return [row for row in rows if not (row.control or row.same_as or math.isnan(row.value)) and row.sign == sign]


def better(row: ScoreRow, value: np.ndarray | float) -> np.ndarray | float:
    """Return the value, negated if lower is better."""
    return value if row.higher_is_better else -value


def write(found: Mapping[tuple[str, str], Mapping[str, Correlation]], path: Path) -> None:
    """Write one line per world, sign and metric."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["classifier", "sign", "metric", "spearman", "ci_low", "ci_high", "p"])
        for (world, sign), by_metric in found.items():
            for metric, one in by_metric.items():
                numbers = (f"{number:.4f}" for number in (one.value, one.low, one.high, one.p))
                table.writerow([world, sign, metric, *numbers])


def draw(found: Mapping[tuple[str, str], Mapping[str, Correlation]], stem: Path) -> None:
    """Draw one panel per sign: each metric's correlation with the truth, with and without the letter."""
    colours = {"the agent decides": BLUE, "the letter decides": VERMILLION}
    order = list(dict.fromkeys(metric for by_metric in found.values() for metric in by_metric))[::-1]
    with drawing(7.5, 0.9 + 0.26 * len(order), "Do metrics rank explainers as the truth does?") as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for panel, sign in zip(panels, ("original", "absolute"), strict=True):
            for shift, (world, colour) in zip((0.14, -0.14), colours.items(), strict=True):
                for place, metric in enumerate(order):
                    one = found[world, sign].get(metric)
                    if one is None:
                        continue
                    panel.plot([one.low, one.high], [place + shift] * 2, color=colour, linewidth=1)
                    panel.plot(one.value, place + shift, "o", color=colour, markersize=4)
                panel.plot([], [], "o-", color=colour, label=world, markersize=4)
            panel.axvline(0, color=MUTED, linewidth=0.8)
            panel.set_xlim(-1.05, 1.05)
            panel.set_title(f"{sign} maps")
            panel.set_xlabel("Spearman's rho with the truth, 95 % interval", color=INK)
        panels[0].set_yticks(range(len(order)), order)
        panels[0].legend(loc="lower left", fontsize=7)
        figure.subplots_adjust(left=0.27, right=0.98, top=0.9, bottom=0.14, wspace=0.08)
        save(figure, stem)


if __name__ == "__main__":
    main()
