"""Check in a short training whether VINet's paper preset learns: where its maps lie, and how good its classifier is.

    python benchmarks/performance/vinet_learning.py [--shifts 0 20] [--seconds 100] [--device cpu] [--run FOLDER]
                                                    [--dataset lidc-phantom] [--limit N] [--json FILE]

The preset's shift is the paper's, 0. With it, the map may carry the answer from the start and lie anywhere. The code of
the paper's authors uses 20. Each shift gets the same share of the seconds. Two epochs are timed first, to find how many
epochs fit. On the test split, the script measures the mean pixel AUC of the maps against the readers' masks (0.5 is
chance), the importance loss, the share of kept pixels, and the accuracies of VINet's own classifier and of the most
frequent class.
`--run` is a folder that main_job.py kept. Its images are used instead of rendering them again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import measuring
import numpy as np
import torch
from main_job import DATASET, data_of, pixel_auc
from torch import nn

from xbench import DatasetInfo, Session, Split
from xbench.contracts.session import SilentProgress
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.runtime.devices import float32

BATCH = 32


@contextmanager
def images_of(options: argparse.Namespace) -> Iterator[tuple[DatasetInfo, dict[str, Split]]]:
    """Yield the dataset's geometry and splits, from the run that was kept if there is one, else rendered."""
    with tempfile.TemporaryDirectory() as name:
        if options.run is not None and (options.run / "cold" / "scores.csv").exists():
            dataset, folder = data_of(options.run / "cache", options.dataset)
        else:
            dataset, folder = choose("dataset", options.dataset, discover()).create(), Path(name)
            dataset.prepare(folder, Session(folder))
        splits = {part: dataset.open(part, folder) for part in ("train", "validation", "test")}
        if options.limit:
            splits = {part: one.select(np.arange(min(options.limit, len(one)))) for part, one in splits.items()}
        yield dataset.info, splits


class Epochs(SilentProgress):
    """Progress that records when each epoch of a training ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Any]:
        """Yield the bar whose note changes at the end of each epoch."""
        del label, total
        yield self

    def advance(self, amount: float = 1) -> None:
        """Ignore the progress."""

    def note(self, text: str) -> None:
        """Record the end of an epoch."""
        del text
        self.ends.append(time.perf_counter())


class Trial(NamedTuple):
    """The data and the device of a training."""

    info: DatasetInfo
    splits: dict[str, Split]
    device: str

    def fit(self, shift: float, epochs: int, folder: Path, progress: SilentProgress) -> Any:
        """Return a trained explainer."""
        given = {"name": "vinet", "preset": "paper", "shift": shift, "epochs": epochs}
        explainer = choose("explainer", given, discover()).create()
        session = Session(folder, self.device, progress=progress)
        explainer.fit(nn.Module(), self.splits["train"], self.splits["validation"], self.info, session)
        return explainer

    def pace(self) -> tuple[float, float]:
        """Return the seconds of an epoch, and those that a first training takes besides its epochs."""
        progress = Epochs()
        with tempfile.TemporaryDirectory() as folder:
            whole = measuring.seconds(lambda: self.fit(0.0, 2, Path(folder), progress), self.device)
        epoch = progress.ends[1] - progress.ends[0]
        return epoch, whole - 2 * epoch

    def trained(self, shift: float, epochs: int) -> dict[str, Any]:
        """Train, and return the figures of the test split."""
        with tempfile.TemporaryDirectory() as folder:
            explainer = self.fit(shift, epochs, Path(folder), SilentProgress())
            explainer.restore(Path(folder), nn.Module(), self.info, self.device)
        test, maps, right = self.splits["test"], [], []
        with torch.inference_mode():
            for batch in test.batches(BATCH):
                images = batch.images.to(self.device)
                maps.append(explainer.attribute(nn.Module(), images, batch.labels).cpu().numpy())
                right.append((explainer.classifier()(images).argmax(1).cpu() == batch.labels).numpy())
        found = np.concatenate(maps)
        return {
            "shift": shift,
            "epochs": epochs,
            "pixel_auc": pixel_auc(found, test),
            "accuracy": float(np.concatenate(right).mean()),
            "most_frequent_class": float(np.bincount(test.labels).max() / len(test)),
            "importance_loss": float(found.mean()),
            "kept_pixels": float((found >= 0.1).mean()),
        }


def main() -> None:
    """Print a line per shift."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shifts", type=float, nargs="+", default=[0.0, 20.0])
    parser.add_argument("--seconds", type=float, default=100, help="seconds of all trainings")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--dataset", default=DATASET)
    parser.add_argument("--limit", type=int, help="images of each split")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start, rows = time.perf_counter(), []
    with images_of(options) as (info, splits), float32("32"):
        trial = Trial(info, splits, options.device)
        epoch, besides = trial.pace()
        print(f"{epoch:.2f} s an epoch", flush=True)
        left = options.seconds - (time.perf_counter() - start)
        epochs = max(1, int((left / len(options.shifts) - besides) / epoch))
        for shift in options.shifts:
            row = trial.trained(shift, epochs)
            rows.append(row)
            measuring.write({"seconds_an_epoch": epoch, "rows": rows}, options.json)
            print(", ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
