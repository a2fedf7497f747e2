"""Explainers that give the same maps of a model: two names of one method must not fill two ranks.

Input x gradient, LRP with the epsilon rule and DeepLIFT from black are one method on many ReLU networks (Ancona et al.
2018); which of them are is a matter of the model, so it is seen from the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xbench.jobs.maps import MapsJob

TOLERANCE = 1e-2
"""Largest difference at which two maps still count as the same, as a share of the norm of a map less its mean.

LRP with the epsilon rule and input x gradient, one in theory, were up to 0.5 % apart by rounding on 3 images of 130.
Of a map that is nearly flat, the difference from flat is what orders its pixels, however small."""
_FEW = 8  # images on which candidates are found; only those are held against each other on all images
_CHUNK = 32


def same_maps(jobs: Sequence[MapsJob]) -> Mapping[str, str]:
    """The maps that are another's, up to a positive factor per image (which changes no order of pixels).

    Args:
        jobs: RunRecord maps of the same samples, in order of precedence.

    Returns:
        Fingerprint of the maps -> fingerprint of the first maps that are the same; only for those that are not first.
    """
    distinct: dict[str, MapsJob] = {job.fingerprint: job for job in jobs}
    few = {key: _normalised(job, 0, _FEW) for key, job in distinct.items()}
    first: dict[str, str] = {}
    firsts: list[str] = []
    for key, job in distinct.items():
        found = next((other for other in firsts if _alike(few[key], few[other]) and _same(job, distinct[other])), None)
        if found is None:
            firsts.append(key)
        else:
            first[key] = found
    return first


def _same(one: MapsJob, other: MapsJob) -> bool:
    count = len(one.targets)
    if len(other.targets) != count or (one.targets != other.targets).any():
        return False
    starts = range(0, count, _CHUNK)
    return all(_alike(_normalised(one, at, at + _CHUNK), _normalised(other, at, at + _CHUNK)) for at in starts)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((np.linalg.norm(one - other, axis=1) <= TOLERANCE).all())


def _normalised(job: MapsJob, start: int, stop: int) -> np.ndarray:
    """What must agree of two maps (n, pixels + 1): their difference from their mean, of unit norm, and their level.

    The level is the mean as a share of the map's root mean square. A map that is the same everywhere has no difference.
    """
    maps = job.maps()[start:stop].reshape(-1, int(np.prod(job.data.info.spatial))).astype(np.float64)
    means = maps.mean(axis=1, keepdims=True)
    strengths = np.sqrt((maps**2).mean(axis=1, keepdims=True))
    norms = np.linalg.norm(maps - means, axis=1, keepdims=True)
    parts = [(maps - means, norms), (means, strengths)]
    return np.hstack([np.divide(part, by, out=np.zeros_like(part), where=by > 0) for part, by in parts])
