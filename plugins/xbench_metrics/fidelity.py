"""Fidelity: does the model's accuracy hang on the pixels that the map calls important?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from xbench import Batch, Case, Curves, DatasetInfo, Metric, Observations, class_scores
from xbench.mapped import stacked
from xbench_metrics.options import FidelityOptions
from xbench_metrics.perturbation import perturbed
from xbench_metrics.ranking import rank
from xbench_metrics.removal import Removal, resolve


class Fidelity(Metric):
    """Area between two accuracy curves (Brocki et al., section 3.1).

    Pixels are removed step by step, the most important first (MiF) or the least important first (LiF), and the images
    are classified after each step. F = area(LiF) - area(MiF) of the balanced accuracy over the share of removed pixels,
    by the trapezoid rule: in [-1, 1]; 0 is what a random map gets.

    With `opposite` removal the fill pushes every image toward the wrong class, so accuracy may fall below chance;
    values of different removals must not be compared.
    """

    options: FidelityOptions

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """The last point of all curves: "removed_logits", float32 (N, K), of the images with every pixel replaced."""
        self._warn_at_chance(case)
        removal = Removal(self.options.removal, case, self.options.blur_sigma)
        size = case.session.batch_size
        total = math.ceil(len(case.split) / size)
        batches = case.session.track(case.split.batches(size), "fidelity: last point", total)
        moved = (batch.to(case.session.device) for batch in batches)
        logits = (case.score(_wholly_removed(batch, removal)) for batch in moved)
        return {"removed_logits": stacked(logits, len(case.split))}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Both curves of every sample.

        Returns:
            mif, lif: bool (N, K + 1), whether the class is right after 0, step, ..., 1 of the pixels were removed.
            fidelity: float64 (N,), the area between the sample's two curves.
            tie_fraction: float64 (N,), share of pixels whose value another pixel has too.
        """
        correct = np.empty((len(case.split), 2, self.options.steps + 1), dtype=bool)
        correct[:, :, 0] = _right(case.logits, case.split.labels)[:, None]
        correct[:, :, -1] = _right(case.prepared["removed_logits"], case.split.labels)[:, None]
        ties = np.empty(len(case.split))
        for rows, curves, tied in self._interior(case):
            correct[rows, :, 1:-1], ties[rows] = curves, tied
        mif, lif = np.ascontiguousarray(correct[:, 0]), np.ascontiguousarray(correct[:, 1])
        return {"mif": mif, "lif": lif, "fidelity": _area(lif) - _area(mif), "tie_fraction": ties}

    def summarise(self, observations: Observations) -> float:
        """F. The trapezoid rule and the mean over samples are both linear, so the areas of the samples are averaged."""
        return float(_balanced(observations["fidelity"], observations["label"]))

    def curves(self, observations: Observations) -> Curves:
        """Balanced accuracy against the share of removed pixels."""
        labels = observations["label"]
        return Curves(
            x=np.linspace(0, 100, self.options.steps + 1),
            y={
                "most important first": _balanced(observations["mif"], labels),
                "least important first": _balanced(observations["lif"], labels),
            },
            x_label="pixels removed (%)",
            y_label="balanced accuracy",
        )

    def supports(self, info: DatasetInfo) -> str | None:
        """Refuses `opposite` removal where the dataset declares no values for it."""
        if self.options.removal == "opposite" and info.removal is None:
            return f"dataset {info.name} declares no removal values; use removal=mean, zero, blur or noise"
        return None

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """What F means."""
        return {
            "score": "balanced accuracy over the classes present, against the true label",
            "target": "none: accuracy is against the true label, whatever class the map explains",
            "removal": resolve(self.options.removal, info),
            "removal_space": "[0, 1] intensities, before the model's own normalisation",
            "channels": "replaced together",
            "ties": "at random, seeded by sample",
            "steps": self.options.steps,
            "aggregation": "trapezoid rule over the share of pixels; area(LiF) - area(MiF)",
        }

    def _interior(self, case: Case) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Chunk by chunk: rows; is the class right after steps 1 to K - 1, (m, 2, K - 1); tie fractions (m,)."""
        size = case.session.batch_size
        removal = Removal(self.options.removal, case, self.options.blur_sigma)
        starts = range(0, len(case.split), size)
        for start in case.session.track(starts, "fidelity", len(starts)):
            rows = slice(start, min(start + size, len(case.split)))
            batch = case.split.batch(np.arange(rows.start, rows.stop)).to(case.session.device)
            maps = torch.from_numpy(np.array(case.maps[rows], dtype=np.float32)).to(case.session.device)
            ranks, ties = rank(maps.flatten(1), batch.seeds)
            passes = perturbed(batch.images, removal.fill(batch), ranks, self.options.steps, size)
            predicted = torch.cat([class_scores(case.score(images)).argmax(1) for images in passes])
            right = predicted.view(2, -1, len(batch)).permute(2, 0, 1) == batch.labels[:, None, None]
            yield rows, right.cpu().numpy(), ties.cpu().numpy()

    def _warn_at_chance(self, case: Case) -> None:
        accuracy = float(_balanced(_right(case.logits, case.split.labels), case.split.labels))
        if accuracy <= 1 / len(case.info.classes):
            case.session.progress.warn(
                f"fidelity: the model is no better than chance on {case.info.name} (balanced accuracy {accuracy:.2f}): "
                "there is no accuracy to lose, so F says little"
            )


def _wholly_removed(batch: Batch, removal: Removal) -> torch.Tensor:
    """Images (N, C, *spatial) of nothing but the fill."""
    return removal.fill(batch).expand_as(batch.images.flatten(2)).contiguous().view(batch.images.shape)


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    predicted: np.ndarray = class_scores(torch.from_numpy(np.array(logits))).argmax(1).numpy()
    right: np.ndarray = predicted == labels
    return right


def _area(curves: np.ndarray) -> np.ndarray:
    """Trapezoid rule over [0, 1]: (N, K + 1) -> float64 (N,)."""
    heights = curves.sum(1) - (curves[:, 0].astype(float) + curves[:, -1]) / 2
    area: np.ndarray = heights / (curves.shape[1] - 1)
    return area


def _balanced(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean over the classes present of the mean over their samples, along the first axis; NaN for no sample."""
    counts = np.bincount(labels)
    weights = 1 / counts[labels]
    weights /= max(np.count_nonzero(counts), 1)
    return weights @ values if len(labels) else np.full(values.shape[1:], np.nan)
