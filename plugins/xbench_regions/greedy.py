"""The order in which XRAI takes up regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbench_regions.membership import RegionSet


@dataclass(frozen=True)
class Ranking:
    """What `rank_regions` found.

    Attributes:
        map: float32 (H, W), every pixel has the mean attribution of the region that brought it in.
        order: int64 (K,), the regions taken, in this order.
        means: float64 (K,), mean attribution over each one's new pixels; it may rise along the order.
        new_pixels: int64 (K,), at least `min_new_pixels` each.
    """

    map: np.ndarray
    order: np.ndarray
    means: np.ndarray
    new_pixels: np.ndarray


def rank_regions(regions: RegionSet, attribution: np.ndarray, min_new_pixels: int) -> Ranking:
    """XRAI's greedy step (Kapishnikov et al. 2019, as their package implements it).

    Nothing is covered at first. Again and again, of the regions that would add at least `min_new_pixels` uncovered
    pixels, the one with the highest mean attribution *over these new pixels* is taken; they get that mean. The pixels
    that are left when no region adds enough get their own mean. So the map keeps the sum of the attribution.

    The package asks every region for every pixel at every step. Here a step is two products of the sparse matrix
    regions x atoms, with the uncovered atoms' sizes and with their sums: about a hundredth of the package's time. They
    are summed anew, not updated, so that no rounding builds up.

    The result is the package's, but for ties: sums are float64 here and as precise as the attribution in the
    package, so where two regions' means agree to rounding the other may come first. Equal means go to the first
    region, here as there.

    Args:
        regions: Of the image.
        attribution: (H, W), finite; signed or not.
        min_new_pixels: From 1.
    """
    incidence, sizes = regions.incidence, regions.sizes.copy()  # of what is uncovered, like `sums`
    sums = np.bincount(regions.atoms, weights=attribution.ravel(), minlength=len(sizes))
    values = np.zeros(len(sizes))
    order, means, new_pixels = [], [], []
    while True:
        pixels, total = incidence @ sizes, incidence @ sums  # half the time of one product with both
        mean = np.divide(total, pixels, out=np.full(len(total), -np.inf), where=pixels >= min_new_pixels)
        best = int(mean.argmax())
        if mean[best] == -np.inf:
            break
        atoms = incidence.indices[incidence.indptr[best] : incidence.indptr[best + 1]]
        values[atoms[sizes[atoms] > 0]] = mean[best]
        sizes[atoms] = sums[atoms] = 0
        order.append(best)
        means.append(mean[best])
        new_pixels.append(pixels[best])
    if sizes.any():
        values[sizes > 0] = sums.sum() / sizes.sum()
    return Ranking(
        values[regions.atoms].astype(np.float32).reshape(regions.spatial),
        np.array(order, dtype=np.int64),
        np.array(means),
        np.array(new_pixels, dtype=np.int64),
    )
