"""From what a Quantus metric returns to numbers per image."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbench_quantus.catalogue import Form


def per_image(form: Form, returned: Any, count: int, start: np.ndarray) -> np.ndarray:
    """Scores of `count` images: float64 (count,).

    Args:
        form: What the metric returns.
        returned: By the metric.
        count: How many images it was given.
        start: (count,), the target's score on the untouched images.
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
    """(count, L) to (count,)."""
    steps = curves.shape[1]
    if form == "area":  # trapezoid rule over [0, 1] of start, curve
        area: np.ndarray = (start / 2 + curves.sum(1) - curves[:, -1] / 2) / steps
        return area
    if form == "drops":  # mean over L + 1 images, of which the untouched one has no drop
        mean: np.ndarray = curves.sum(1) / (steps + 1)
        return mean
    if steps != 1:
        raise ValueError(f"{steps} scores for an image")
    return curves[:, 0]


def correlation(drops: np.ndarray, sums: np.ndarray) -> float:
    """Mean over the steps of Pearson's correlation over the images: (N, L), (N, L); NaN where no step has one."""
    known = np.isfinite(drops).all(1) & np.isfinite(sums).all(1)
    if np.count_nonzero(known) < 2:
        return float("nan")
    drops, sums = (values[known] - values[known].mean(0) for values in (drops, sums))
    scale = np.sqrt((drops**2).sum(0) * (sums**2).sum(0))
    varied = scale > 1e-12
    if not varied.any():
        return float("nan")
    return float(((drops * sums).sum(0)[varied] / scale[varied]).mean())
