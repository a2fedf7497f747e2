"""Fidelity: does the model's accuracy depend on the pixels that the map calls important?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from xbench import Batch, Case, Curves, DatasetInfo, Metric, Observations, class_scores, probabilities
from xbench.runtime.devices import upload
from xbench.runtime.mapped import stacked
from xbench_metrics.fidelity.options import FidelityOptions
from xbench_metrics.fidelity.orders import SeenOrders, read_order
from xbench_metrics.fidelity.perturbation import perturbed
from xbench_metrics.fidelity.removal import Removal, resolve
from xbench_metrics.ranking import rank


class Fidelity(Metric):
    """Area between two accuracy curves (Brocki et al., section 3.1).

    Pixels are removed step by step, the most important first (MiF) or the least important first (LiF), and the images
    are classified after each step. F = area(LiF) - area(MiF) of the balanced accuracy over the share of removed pixels,
    by the trapezoid rule. F lies in [-1, 1], and a random map gets 0.

    `score` and `curve` give the variants that other papers use: probabilities or logits of the explained class instead
    of accuracy, or one of the two curves instead of both. They rank explainers differently, so their rows are never
    ranked together.

    With `opposite` removal, the fill pushes every image toward the wrong class, so accuracy may fall below chance.
    Values of different removals must not be compared.
    """

    options: FidelityOptions

    def __init__(self, options: FidelityOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self._seen = SeenOrders()

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Return "removed_logits", float32 (N, K), of images with all pixels replaced: the last point of each curve."""
        self._warn_at_chance(case)
        removal = Removal(self.options.removal, case, self.options.blur_sigma)

        def last_point(start: int, stop: int) -> torch.Tensor:
            batch = case.split.batch(np.arange(start, stop)).to(case.session.device)
            return case.logits_of(_wholly_removed(batch, removal))

        count = len(case.split)
        parts = (logits for _, logits in case.session.batched(count, last_point, "fidelity: last point"))
        return {"removed_logits": stacked(parts, count)}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return both curves of every sample.

        Returns:
            mif, lif: Heights after removing 0, step, ..., 1 of the pixels, (N, K + 1). Either bool, whether the class
                is right, or float32, the probability or score of the explained class.
            fidelity: Area between the sample's two curves, or at one of them (`curve`), float64 (N,).
            tie_fraction: Share of pixels that have the same value as another pixel, float64 (N,).
        """
        kind = np.bool_ if self.options.score == "accuracy" else np.float32
        heights: np.ndarray = np.empty((len(case.split), 2, self.options.steps + 1), dtype=kind)
        classes = torch.from_numpy(self._classes(case, slice(None)))
        for place, logits in ((0, case.logits), (-1, case.prepared["removed_logits"])):
            heights[:, :, place] = self._heights(torch.from_numpy(np.array(logits)), classes).numpy()[:, None]
        ties = np.empty(len(case.split))
        interior = functools.partial(self._interior, case, Removal(self.options.removal, case, self.options.blur_sigma))
        for rows, (curves, tied) in case.session.batched(len(case.split), interior, "fidelity"):
            heights[rows, :, 1:-1], ties[rows] = curves, tied
        mif, lif = np.ascontiguousarray(heights[:, 0]), np.ascontiguousarray(heights[:, 1])
        return {"mif": mif, "lif": lif, "fidelity": self._areas(mif, lif), "tie_fraction": ties}

    def _classes(self, case: Case, rows: slice) -> np.ndarray:
        """Return the class whose score is followed: the true class for accuracy, else the one that the map explains."""
        chosen = case.split.labels if self.options.score == "accuracy" else case.targets
        return np.array(chosen[rows], dtype=np.int64)

    def _heights(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the heights of the curves: logits (N, K), classes (N,) -> (N,)."""
        if self.options.score == "accuracy":
            return class_scores(logits).argmax(1) == classes
        values = class_scores(logits) if self.options.score == "logit" else probabilities(logits)
        return values.gather(1, classes[:, None]).squeeze(1)

    def _areas(self, mif: np.ndarray, lif: np.ndarray) -> np.ndarray:
        high, low = _area(lif), _area(mif)
        if self.options.curve == "mif":
            high = mif[:, 0].astype(float)
        if self.options.curve == "lif":
            low = lif[:, -1].astype(float)
        area: np.ndarray = high - low
        return area

    def summarise(self, observations: Observations) -> float:
        """Return F. Its trapezoid rule and mean over samples are both linear, so the samples' areas are averaged."""
        return float(_balanced(observations["fidelity"], observations["label"]))

    def curves(self, observations: Observations) -> Curves:
        """Return balanced accuracy against the share of removed pixels."""
        labels = observations["label"]
        return Curves(
            x=np.linspace(0, 100, self.options.steps + 1),
            y={
                "most important first": _balanced(observations["mif"], labels),
                "least important first": _balanced(observations["lif"], labels),
            },
            x_label="pixels removed (%)",
            y_label={
                "accuracy": "balanced accuracy",
                "probability": "probability of the explained class",
                "logit": "score of the explained class",
            }[self.options.score],
            roles={"most important first": "most_first", "least important first": "least_first"},
        )

    def supports(self, info: DatasetInfo) -> str | None:
        """Return a reason for `opposite` removal if the dataset declares no values for it."""
        if self.options.removal == "opposite" and info.removal is None:
            return f"dataset {info.name} declares no removal values; use removal=mean, zero, blur or noise"
        return None

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what F means."""
        return {
            "score": {
                "accuracy": "balanced accuracy over the classes present, against the true label",
                "probability": "probability of the explained class, averaged within and then over classes",
                "logit": "score of the explained class, averaged within and then over classes",
            }[self.options.score],
            "target": "none: accuracy is against the true label, whatever class the map explains"
            if self.options.score == "accuracy"
            else "the class that the map explains",
            "removal": resolve(self.options.removal, info),
            "removal_space": "[0, 1] intensities, before the model's own normalisation",
            "channels": "replaced together",
            "ties": "at random, seeded by sample",
            "steps": self.options.steps,
            "aggregation": "trapezoid rule over the share of pixels; "
            + {
                "difference": "area(LiF) - area(MiF)",
                "mif": "height of the whole image - area(MiF)",
                "lif": "area(LiF) - height of the wholly removed image",
            }[self.options.curve],
        }

    def _interior(self, case: Case, removal: Removal, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return heights after steps 1 to K - 1, (m, 2, K - 1), and tie fractions, (m,), of a chunk of m samples."""
        rows, device = slice(start, stop), case.session.device
        batch = case.split.batch(np.arange(start, stop)).to(device)
        maps = upload(torch.from_numpy(np.array(case.maps[rows], dtype=np.float32)), device)
        ranks, tied = rank(maps.flatten(1), batch.seeds)
        fill = removal.fill(batch)
        classes = upload(torch.from_numpy(self._classes(case, rows)), device)
        given = (batch.images, fill, classes)
        follow = functools.partial(self._followed, case.logits_of, *given, ranks, case.session.batch_size)
        # The host waits for the device twice per chunk: here, and for the heights.
        order, ties = read_order(ranks, given, tied)
        return self._seen.curves(case.logits_of, order, follow), ties / ranks.shape[1]

    def _followed(
        self,
        score: Callable[[torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        fill: torch.Tensor,
        classes: torch.Tensor,
        ranks: torch.Tensor,
        size: int,
    ) -> np.ndarray:
        """Return heights after steps 1 to K - 1, removing from rank 0 on and from the last rank on: (m, 2, K - 1)."""
        passes = perturbed(images, fill, ranks, self.options.steps, size)
        # Compute the heights at once, because a model may return a part of its input, which the next pass overwrites.
        heights = torch.cat([self._heights(score(part), classes.repeat(len(part) // len(images))) for part in passes])
        found: np.ndarray = heights.view(2, -1, len(images)).permute(2, 0, 1).cpu().numpy()
        return found

    def _warn_at_chance(self, case: Case) -> None:
        accuracy = float(_balanced(_right(case.logits, case.split.labels), case.split.labels))
        if accuracy <= 1 / len(case.info.classes):
            case.session.progress.warn(
                f"fidelity: the model is no better than chance on {case.info.name} (balanced accuracy {accuracy:.2f}): "
                "it has no accuracy to lose, so F says little"
            )


def _wholly_removed(batch: Batch, removal: Removal) -> torch.Tensor:
    """Return images (N, C, *spatial) that show only the fill."""
    return removal.fill(batch).expand_as(batch.images.flatten(2)).contiguous().view(batch.images.shape)


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    predicted: np.ndarray = class_scores(torch.from_numpy(np.array(logits))).argmax(1).numpy()
    right: np.ndarray = predicted == labels
    return right


def _area(curves: np.ndarray) -> np.ndarray:
    """Return the areas by the trapezoid rule over [0, 1]: (N, K + 1) -> float64 (N,)."""
    heights = curves.sum(1, dtype=np.float64) - (curves[:, 0].astype(float) + curves[:, -1]) / 2
    area: np.ndarray = heights / (curves.shape[1] - 1)
    return area


def _balanced(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean over the present classes of the mean over their samples (axis 0), or NaN without samples."""
    counts = np.bincount(labels)
    weights = 1 / counts[labels]
    weights /= max(np.count_nonzero(counts), 1)
    return weights @ values if len(labels) else np.full(values.shape[1:], np.nan)
