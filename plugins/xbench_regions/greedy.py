"""XRAI's greedy ranking of regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbench_regions.membership import RegionSet


@dataclass(frozen=True)
class Ranking:
    """The result of `rank_regions`.

    Attributes:
        map: Map of regions, float32 (H, W). Every pixel has the mean attribution of the region that added it.
        order: Indices of the taken regions in their order, int64 (K,).
        means: Mean attribution over each region's new pixels, float64 (K,). It may rise along the order.
        new_pixels: Number of each region's new pixels, int64 (K,), at least `min_new_pixels`.
    """

    map: np.ndarray
    order: np.ndarray
    means: np.ndarray
    new_pixels: np.ndarray


def rank_regions(regions: RegionSet, attribution: np.ndarray, min_new_pixels: int) -> Ranking:
    """Rank regions by XRAI's greedy rule (Kapishnikov et al. 2019, as their package implements it).

    At first no pixel is covered. At each step, only regions that would add at least `min_new_pixels` uncovered pixels
    are considered. The one with the highest mean attribution *over these new pixels* is taken, and the new pixels get
    that mean. When no region adds enough, the remaining pixels get their own mean. So the map keeps the sum of the
    attribution.

    The package compares every region with every pixel at every step. Here a step is two products of the sparse matrix
    regions x atoms, with the uncovered atoms' sizes and with their sums. This takes about a hundredth of the package's
    time. The products are computed again at each step, not updated, so that no rounding builds up.

    The result equals the package's except for ties. Sums are float64 here, but as precise as the attribution in the
    package, so if two regions' means agree up to rounding, their order may differ. With equal means, the first region
    is taken in both.

    Args:
        regions: Regions of the image.
        attribution: Attribution of each pixel, (H, W), finite, signed or not.
        min_new_pixels: Least number of pixels that a region must add, at least 1.
    """
    incidence, sizes = regions.incidence, regions.sizes.copy()  # sizes of the uncovered atoms, like `sums`
    sums = np.bincount(regions.atoms, weights=attribution.ravel(), minlength=len(sizes))
    values = np.zeros(len(sizes))
    order, means, new_pixels = [], [], []
    while True:
        pixels, total = incidence @ sizes, incidence @ sums  # takes half the time of one product with both
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
