"""Brocki's Tables 1 to 3 by xbench and by the libraries: 8 estimators x 2 signs x 3 metrics, the same numbers.

    python benchmarks/performance/protocol.py [--model convnet] [--size 64] [--images 200] [--samples 200]
                                              [--device cpu] [--json FILE]

All sides get the same untrained network and the same rendered images with masks. They start with nothing prepared but a
warm device. The libraries are used in two ways (by_libraries.py): with the calls that their documentation shows, and
tuned by hand. The script prints the seconds of maps, fidelity, ROC-AUC and Dice on all sides and their ratios. It also
prints the share of bare passes in our fidelity's time, and the largest difference of a score on the same maps.

Our fidelity does not evaluate the same order of removal twice. So it evaluates absolute maps only for methods with
signed maps. The libraries do not know each other's maps, so they evaluate all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import by_libraries
import measuring
import numpy as np
import torch
from blobs import nodules
from torch import nn

from xbench import Case, DatasetInfo, Metric, Session, Split
from xbench.compute.passes import gradients, unchanging
from xbench.compute.scorer import Scorer, calibrate
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.runtime.devices import float32

ESTIMATORS = (
    *("gradient", "deconvolution", "integrated-gradients", "integrated-gradients-bw"),
    *("expected-gradients", "smoothgrad", "smoothgrad-squared", "random"),
)
SECONDS: dict[str, float] = {}
"""Seconds of each side's work, and of the "bare passes": the passes of our fidelity again, with nothing between."""


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Add the time inside to SECONDS. The timed work ends with results on the CPU, so the device has finished it."""
    start = time.perf_counter()
    yield
    SECONDS[name] = SECONDS.get(name, 0.0) + time.perf_counter() - start


class CountedScorer:
    """A scorer that counts its images, batch by batch."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.sizes: Counter[int] = Counter()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scorer's logits, and count the images."""
        self.sizes[len(images)] += 1
        return self._scorer(images)

    def again(self, images: torch.Tensor) -> None:
        """Run as many passes of the same sizes again, on images that are already on the device."""
        for size, times in self.sizes.items():
            batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous()
            for _ in range(times):
                self._scorer(batch)


def ours(model: nn.Module, split: Split, info: DatasetInfo, targets: np.ndarray, samples: int) -> dict[str, Any]:
    """Return our maps, by name, and their scores, by name, sign and metric."""
    registry = discover()
    maps: dict[str, np.ndarray] = {}
    device = str(next(model.parameters()).device)
    chosen = torch.from_numpy(targets).to(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session = Session(folder, device)
        for estimator in ESTIMATORS:
            choice = choose("explainer", estimator, registry)
            options = choice.options
            if estimator == "expected-gradients":
                options = options.model_copy(update={"samples": samples})
            explainer = choice.entry.spec.load()(options)
            with timed("our maps"):
                if explainer.trained:
                    explainer.fit(model, split, split, info, session)
                    explainer.restore(folder, model, info, device)
                with unchanging(model):  # a run makes the same promise
                    parts = [
                        explainer.explain(model, batch.to(device), chosen[at : at + len(batch)], estimator)
                        for at, batch in zip(range(0, len(split), 16), split.batches(16), strict=True)
                    ]
                maps[estimator] = torch.cat(parts).cpu().numpy()
        scores = our_scores(model, split, info, targets, maps, session)
    return {"maps": maps, "scores": scores}


def our_scores(
    model: nn.Module,
    split: Split,
    info: DatasetInfo,
    targets: np.ndarray,
    maps: dict[str, np.ndarray],
    session: Session,
) -> dict[tuple[str, str, str], float]:
    """Return the scores by estimator, sign and metric."""
    registry = discover()
    images = split.batch(range(min(64, len(split)))).images
    recipe = calibrate(model, images, session.device, "32")
    session = session.resized(recipe.batch_size)
    scorer = Scorer(model, recipe, session.device)
    parts = [scorer(batch.images.to(session.device)) for batch in split.batches(recipe.batch_size)]
    logits, score = torch.cat(parts).cpu().numpy(), CountedScorer(scorer)
    found: dict[tuple[str, str, str], float] = {}
    for reference in (
        f"fidelity:removal=zero,step={1 / by_libraries.STEPS}",
        "roc_auc",
        "dice:dilation=5,min_pixel_diff=50",
    ):
        metric: Metric = choose("metric", reference, registry).create()
        name = reference.partition(":")[0]
        case = Case(info, split, np.full(1, 0.5, np.float32), score, logits, targets, session)
        with timed(f"our {name}"):
            if metric.feature is not None:
                features = [metric.feature.join(batch).feature for batch in split.batches(32)]
                case = dataclasses.replace(case, feature=torch.cat(features).numpy())  # type: ignore[arg-type]
            case = dataclasses.replace(case, prepared=metric.prepare(case))
            for estimator, made in maps.items():
                for sign, values in (("original", made), ("absolute", np.abs(made))):
                    seen = metric.observe(dataclasses.replace(case, maps=values))
                    value = metric.summarise({**seen, "label": split.labels, "target": targets})
                    found[estimator, sign, name] = value
    images = images.to(session.device)
    SECONDS["bare passes"] = measuring.seconds(lambda: score.again(images), session.device)
    return found


def theirs(
    model: nn.Module, split: Split, targets: np.ndarray, maps: dict[str, np.ndarray], samples: int, rows: int
) -> dict[tuple[str, str, str, str], float]:
    """Time the libraries' own maps, and return their scores of *our* maps, so that scores can be compared."""
    batch = split.batch(range(len(split)))
    there = batch.images.to(next(model.parameters()).device)
    chosen = torch.from_numpy(targets).to(there.device)
    with timed("both maps"):
        by_libraries.captum_maps(model, there, chosen, there[:100], rows, samples)
    images, masks = batch.images.numpy(), batch.masks.numpy()
    with timed("tuned dice"):
        segmented = by_libraries.segments(images)
    found = {}
    for estimator, made in maps.items():
        for sign, values in (("original", made), ("absolute", np.abs(made))):
            flipped = (model, there, split.labels, values, 0.0, rows)
            scores: dict[tuple[str, str], Callable[[], float]] = {
                ("documented", "fidelity"): lambda given=flipped: by_libraries.quantus_fidelity(*given),
                ("tuned", "fidelity"): lambda given=flipped: by_libraries.fidelity(*given),
                ("both", "roc_auc"): lambda values=values: by_libraries.roc_auc(values, masks),
                ("documented", "dice"): lambda values=values: by_libraries.documented_dice(images, values, masks),
                ("tuned", "dice"): lambda values=values: by_libraries.dice(images, values, masks, segmented),
            }
            for (way, name), run in scores.items():
                with timed(f"{way} {name}"):
                    found[estimator, sign, name, way] = run()
    return found


def line(name: str, spent: dict[str, float]) -> str:
    """Return a line with the seconds of the three sides, and the ratios of the others to ours."""
    ours = spent["our"]
    others = "".join(
        f"{spent[way]:>{width}.1f}s{spent[way] / ours:>7.1f}x" for way, width in (("documented", 11), ("tuned", 9))
    )
    return f"{name:<10}{ours:>9.1f}s{others}  "


def warm(model: nn.Module, images: torch.Tensor) -> None:
    """Run one pass forward and backward, because the first one of a process sets up the device."""
    gradients(model, images, torch.zeros(len(images), dtype=torch.int64, device=images.device)).cpu()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--samples", type=int, default=200, help="samples of expected gradients")
    parser.add_argument("--rows", type=int, default=16, help="rows of the libraries' passes; choose the fastest")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with float32("32"):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Measure with the options of `main`."""
    info = DatasetInfo("blobs", ("dim", "bright"), 1, (options.size, options.size), has_masks=True)
    torch.manual_seed(0)
    model = choose("model", options.model, discover()).create().build(info)
    model = model.to(options.device).eval().requires_grad_(False)
    images, labels, masks = nodules(options.images, options.size)
    names = [str(index) for index in range(options.images)]
    split = Split.from_arrays(images, labels, names, names, masks)
    there = [batch.images.to(options.device) for batch in split.batches(16)]
    targets = np.concatenate([model(batch).argmax(1).cpu().numpy() for batch in there])
    warm(model, there[0])
    mine = ours(model, split, info, targets, options.samples)
    other = theirs(model, split, targets, mine["maps"], options.samples, options.rows)
    print(f"{options.model}, {options.images} images of {options.size} x {options.size}, {options.device}")
    print(
        f"{'':<10}{'xbench':>10}{'documented':>12}{'ratio':>8}{'tuned':>10}{'ratio':>8}  largest difference of a score"
    )
    figures: dict[str, dict[str, float]] = {"all": {}}
    for part in ("maps", "fidelity", "roc_auc", "dice"):
        spent = {"our": SECONDS[f"our {part}"]}
        spent |= {
            way: SECONDS.get(f"{way} {part}", SECONDS.get(f"both {part}", 0.0)) for way in ("documented", "tuned")
        }
        figures["all"] = {side: figures["all"].get(side, 0.0) + seconds for side, seconds in spent.items()}
        apart = [abs(mine["scores"][key[:3]] - value) for key, value in other.items() if key[2] == part]
        print(line(part, spent), f"{max(apart, default=float('nan')):.2g}")
        figures[part] = spent | ({"difference": max(apart)} if apart else {})
    print(line("all", figures["all"]))
    print(f"bare passes over our fidelity: {SECONDS['bare passes'] / SECONDS['our fidelity']:.0%}")
    measuring.write(figures, options.json)


if __name__ == "__main__":
    main()
