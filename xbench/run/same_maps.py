"""Find explainers that give the same maps of a model: two names of one method must not fill two ranks.

Input x gradient, LRP with the epsilon rule and DeepLIFT from black are one method on many ReLU networks (Ancona et al.
2018). Which methods are the same depends on the model, so it is seen from the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xbench.jobs.maps import MapsJob

TOLERANCE = 1e-2
"""Largest difference at which two maps still count as the same, as a share of the norm of a map minus its mean.

LRP with the epsilon rule and input x gradient, one in theory, were up to 0.5 % apart by rounding on 3 images of 130.
The mean is taken off because the difference from flat orders the pixels of a nearly flat map, however small it is."""
_FEW = 8  # how many images candidates are found on; only candidates are compared on all images
_CHUNK = 32


def same_maps(jobs: Sequence[MapsJob]) -> Mapping[str, str]:
    """Return the maps that equal another explainer's, up to a positive factor per image.

    Such a factor changes no order of pixels.

    Args:
        jobs: Finished maps of the same samples, in order of precedence.

    Returns:
        Fingerprint of the maps -> fingerprint of the first maps that are the same; only for those that are not first.
    """
    distinct: dict[str, MapsJob] = {job.fingerprint: job for job in jobs}
    few = {key: _normalised(job, 0, _FEW) for key, job in distinct.items()}
    repeats: dict[str, str] = {}
    originals: list[str] = []
    for key, job in distinct.items():
        candidates = (other for other in originals if _alike(few[key], few[other]))
        original = next((other for other in candidates if _same(job, distinct[other])), None)
        if original is None:
            originals.append(key)
        else:
            repeats[key] = original
    return repeats


def _same(first: MapsJob, second: MapsJob) -> bool:
    count = len(first.targets)
    if len(second.targets) != count or (first.targets != second.targets).any():
        return False
    starts = range(0, count, _CHUNK)
    return all(
        _alike(_normalised(first, start, start + _CHUNK), _normalised(second, start, start + _CHUNK))
        for start in starts
    )


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool((np.linalg.norm(first - second, axis=1) <= TOLERANCE).all())


def _normalised(job: MapsJob, start: int, stop: int) -> np.ndarray:
    """Return what must agree of two maps, (n, pixels + 1): their shape, of unit norm, and their level.

    The shape is the difference from the map's mean. A map that is the same everywhere has none. The level is the mean
    as a share of the map's root mean square.
    """
    maps = job.maps()[start:stop].reshape(-1, int(np.prod(job.data.info.spatial))).astype(np.float64)
    means = maps.mean(axis=1, keepdims=True)
    strengths = np.sqrt((maps**2).mean(axis=1, keepdims=True))
    norms = np.linalg.norm(maps - means, axis=1, keepdims=True)
    parts = [(maps - means, norms), (means, strengths)]
    return np.hstack([np.divide(part, by, out=np.zeros_like(part), where=by > 0) for part, by in parts])
