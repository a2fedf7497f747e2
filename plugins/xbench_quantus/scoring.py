"""Scores per image from the values that a Quantus metric returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbench_quantus.catalogue import Form


def per_image(form: Form, returned: Any, count: int, start: np.ndarray) -> np.ndarray:
    """Return the scores of `count` images: float64 (count,).

    Args:
        form: Form of the returned values.
        returned: Values that the metric returned.
        count: Number of images that the metric was given.
        start: The target's score on the unchanged images, (count,).
    """
    if form == "layers":
        layers = [scores for layer, scores in returned.items() if layer != "original"]
        scores = np.mean(np.asarray(layers, dtype=np.float64), axis=0)
    elif form == "shares":
        scores = np.array([np.mean(list(returned.values()))], dtype=np.float64)
    else:
        scores = _reduced(form, np.asarray(returned, dtype=np.float64).reshape(count, -1), start)
    if scores.shape != (count,):
        raise ValueError(f"{scores.shape} scores for {count} images")
    return np.where(np.isfinite(scores), scores, np.nan)


def _reduced(form: Form, curves: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return one score per image: (count, L) -> (count,)."""
    steps = curves.shape[1]
    if form == "area":  # trapezoid rule over [0, 1] for the start and the curve
        area: np.ndarray = (start / 2 + curves.sum(1) - curves[:, -1] / 2) / steps
        return area
    if form == "drops":  # mean over L + 1 images, of which the unchanged one has no drop
        mean: np.ndarray = curves.sum(1) / (steps + 1)
        return mean
    if steps != 1:
        raise ValueError(f"{steps} scores for an image")
    return curves[:, 0]


def correlation(drops: np.ndarray, sums: np.ndarray) -> float:
    """Return the mean over steps of Pearson's correlation over images: (N, L), (N, L); NaN if no step has one."""
    known = np.isfinite(drops).all(1) & np.isfinite(sums).all(1)
    if np.count_nonzero(known) < 2:
        return float("nan")
    drops, sums = (values[known] - values[known].mean(0) for values in (drops, sums))
    scale = np.sqrt((drops**2).sum(0) * (sums**2).sum(0))
    varied = scale > 1e-12
    if not varied.any():
        return float("nan")
    return float(((drops * sums).sum(0)[varied] / scale[varied]).mean())
