"""Each explainer's wall time relative to the bare passes that it needs, and to a library's time for the same maps.

    python benchmarks/performance/explainers.py [NAME ...] [--model convnet] [--size 64] [--images 8] [--repeats 5]
                                                [--device cpu] [--default-samples] [--csv FILE]

Bare passes are forward passes without gradients on the fastest copy of the network (batch norms folded, channels-last),
and forward and backward passes to the image on the network itself. Each kind uses the best of several batch sizes, on
images that are already on the device. `needs` counts the passes of each explainer. All sides are timed in turn, and
short ones several times, because a machine's speed drifts. A ratio is the median over the turns. As in a run, copies of
the network are made once for all batches, and are not timed. The library (references.py) makes the same maps, with the
same samples, steps, background and superpixels.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import seconds
from references import REFERENCES, Work
from torch import nn

from xbench import Batch, DatasetInfo, Session, Split
from xbench.compute.passes import forward, gradients, unchanging
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.runtime.devices import float32
from xbench_baselines.perturbation.superpixels import Superpixels

ROWS = (1, 2, 4, 8, 16, 32, 64)
FEWER = {"samples": 100, "masks": 200, "background": 20}  # fewer repetitions of the same work
MOMENT = 0.3  # least seconds of a timing


class Passes(NamedTuple):
    """Numbers of passes for all images together: only forward, and forward and backward."""

    forward: float = 0
    gradient: float = 0


def needs(name: str, options: Any, images: int, segments: float, windows: int) -> Passes | None:
    """Return the least passes that an explainer needs, or None if they were not counted.

    Args:
        name: Name of the explainer.
        options: Its options.
        images: Number of explained images.
        segments: Mean number of superpixels per image.
        windows: Number of occlusion windows per image.
    """
    samples = getattr(options, "samples", 0)
    one = ("gradient", "input-x-gradient", "deconvolution", "guided-backpropagation")
    counted = {
        **dict.fromkeys(one, Passes(gradient=images)),
        **dict.fromkeys(("smoothgrad", "smoothgrad-squared", "vargrad"), Passes(gradient=samples * images)),
        **dict.fromkeys(("expected-gradients", "gradient-shap"), Passes(gradient=samples * images)),
        **dict.fromkeys(("lime", "kernelshap"), Passes(forward=samples * images)),
        "integrated-gradients": Passes(gradient=getattr(options, "steps", 0) * images),
        "integrated-gradients-bw": Passes(gradient=2 * getattr(options, "steps", 0) * images),
        "deeplift": Passes(forward=images, gradient=images),  # one for the reference and one for the image
        "guided-gradcam": Passes(gradient=2 * images),  # one with the rule and one without
        "visualbackprop": Passes(forward=images),
        "lrp-epsilon": Passes(gradient=images),
        "occlusion": Passes(forward=(windows + 1) * images),
        "feature-ablation": Passes(forward=(segments + 1) * images),
        "rise": Passes(forward=getattr(options, "masks", 0) * images),
    }
    return counted.get(name)


class Bare:
    """Bare passes of a network, each kind with its best batch size."""

    def __init__(self, model: nn.Module, images: torch.Tensor, device: str) -> None:
        self._device = device
        self._images = images.repeat(-(-max(ROWS) // len(images)), 1, 1, 1)
        targets = torch.zeros(len(self._images), dtype=torch.int64, device=device)
        score = forward(model, images)
        self.kinds: dict[str, Callable[[int], Any]] = {
            "forward": lambda rows: score(self._images[:rows]),
            "gradient": lambda rows: gradients(model, self._images[:rows], targets[:rows]),
        }
        self.each = {kind: {rows: self._each(run, rows) for rows in ROWS} for kind, run in self.kinds.items()}

    def rows(self, kind: str, count: float) -> int:
        """Return the fastest batch size that `count` passes can fill."""
        return min((rows for rows in ROWS if rows <= max(1, count)), key=lambda rows: self.each[kind][rows])

    def _each(self, run: Callable[[int], Any], rows: int) -> float:
        run(rows)
        return min(seconds(lambda: run(rows), self._device) for _ in range(5)) / rows

    def time(self, passes: Passes) -> float:
        """Return the seconds of the passes, computed from the mean of at least ten."""
        total = 0.0
        for kind, count in passes._asdict().items():
            if count:
                rows = self.rows(kind, count)
                repeats = max(10, round(count / rows))
                run = self.kinds[kind]
                spent = seconds(lambda run=run, rows=rows, n=repeats: [run(rows) for _ in range(n)], self._device)
                total += spent / repeats / rows * count
        return total


def last_stage(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return the module whose output is the last map of more than one pixel, for captum's Grad-CAM."""
    found: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(
            lambda module, _, out: found.append(module) if out.ndim == 4 and min(out.shape[2:]) > 1 else None
        )
        for module in model.modules()
    ]
    model(images[:1])
    for hook in hooks:
        hook.remove()
    return found[-1]


def main() -> None:
    """Print a line per explainer, and write them as CSV."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--default-samples", action="store_true", help="do not reduce samples, masks and background")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with float32("32"):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Measure with the options of `main`."""
    registry = discover()
    names = options.names or [
        entry.spec.name
        for entry in registry.of_kind("explainer")
        if entry.distribution == "xbench"
        and not entry.spec.control
        and entry.spec.factory.startswith("xbench_baselines")
        and entry.spec.name != "iterative-saliency"
    ]
    info = DatasetInfo("noise", ("a", "b"), options.channels, (options.size, options.size))
    torch.manual_seed(0)
    model = (
        choose("model", options.model, registry).create().build(info).to(options.device).eval().requires_grad_(False)
    )
    split = noise(info, max(options.images, 40))
    batch = split.batch(range(options.images)).to(options.device)
    bare = Bare(model, batch.images, options.device)
    rows = []
    print(
        f"{options.model}, {options.images} images {info.channels} x {options.size} x {options.size}, {options.device}"
    )
    print(f"fastest rows of a bare pass: {', '.join(f'{kind} {bare.rows(kind, 64)}' for kind in bare.kinds)}")
    print(f"{'explainer':<26}{'ms an image':>12}{'over bare':>11}{'over library':>14}")
    for name in names:
        row = measured(name, registry, model, split, batch, bare, info, options)
        rows.append(row)
        print(
            f"{name:<26}{row['ms_an_image']:>12.2f}{row['over_bare']:>11}{row['over_library']:>14} {row['library']}",
            flush=True,
        )
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def noise(info: DatasetInfo, count: int) -> Split:
    """Return smooth random images, whose superpixels are like those of real images."""
    from scipy.ndimage import gaussian_filter

    draws = np.random.default_rng(0)
    images = gaussian_filter(draws.random((count, info.channels, *info.spatial)), (0, 0, 3, 3))
    images = ((images - images.min()) / np.ptp(images)).astype(np.float32)
    names = [str(index) for index in range(count)]
    return Split.from_arrays(images, np.arange(count) % 2, names, names)


def measured(
    name: str, registry: Any, model: nn.Module, split: Split, batch: Batch, bare: Bare, info: DatasetInfo, options: Any
) -> dict[str, Any]:
    """Measure one explainer, and return its line of the table."""
    choice = choose("explainer", name, registry)
    fewer = {
        key: min(value, getattr(choice.options, key))
        for key, value in FEWER.items()
        if hasattr(choice.options, key) and not options.default_samples
    }
    chosen = choice.options.model_copy(update=fewer)
    explainer = choice.entry.spec.load()(chosen)
    reason = explainer.supports(model, info)
    nothing = {"explainer": name, "ms_an_image": float("nan"), "over_bare": "", "over_library": "", "library": ""}
    if reason:
        return nothing | {"library": reason[:60]}
    if explainer.trained:
        with tempfile.TemporaryDirectory() as folder:
            explainer.fit(model, split, split, info, Session(Path(folder), device=options.device))
            explainer.restore(Path(folder), model, info, options.device)
    batch = explainer.ready(batch)  # superpixels are made once for all explainers, and are not timed
    targets = torch.zeros(len(batch), dtype=torch.int64, device=options.device)
    labels = Superpixels().join(batch).feature.long()
    window = round(options.size**0.5)
    windows = (-(-(options.size - window) // max(1, window // 2)) + 1) ** 2
    passes = needs(name, chosen, len(batch), float((labels.flatten(1).amax(1) + 1).float().mean()), windows)
    library, reference = REFERENCES.get(name, ("", None))
    background = split.batch(range(getattr(chosen, "background", 20))).images.to(options.device)
    work = Work(model, batch.images, targets, chosen, background, labels, last_stage(model, batch.images), 32)

    def ours() -> Any:
        return explainer.explain(model, batch, targets, name)

    mine, over_bare, over_library = [], [], []
    with unchanging(model):  # a run makes the same promise
        ours()
        times = max(1, round(MOMENT / seconds(ours, options.device)))
        for _ in range(options.repeats):
            if passes:
                base = bare.time(passes)
            mine.append(seconds(lambda: [ours() for _ in range(times)], options.device) / times)
            if passes:
                over_bare.append(mine[-1] / base)
            if reference is not None:
                theirs = seconds(lambda: [reference(work) for _ in range(times)], options.device) / times
                over_library.append(mine[-1] / theirs)
    return {
        "explainer": name,
        "ms_an_image": 1e3 * statistics.median(mine) / len(batch),
        "over_bare": f"{statistics.median(over_bare):.2f}" if over_bare else "",
        "over_library": f"{statistics.median(over_library):.2f}" if over_library else "",
        "library": library,
    }


if __name__ == "__main__":
    main()
