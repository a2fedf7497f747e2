"""Concordance: does the map point to the evidence that the expert outlined?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from xbench import Case, Curves, DatasetInfo, Metric, Observations
from xbench_metrics.concordance.options import PointingGameOptions, RocAucOptions

_THRESHOLDS = 200  # thresholds of averaged curves that a value is computed from
_DRAWN = 50  # thresholds of a curve that is only drawn; few, because its rows are copied for every resample


class MaskMetric(Metric):
    """Mean over images of one figure that compares a map with the expert's mask.

    All metrics and explainers use the same images: those with an outline by an expert (0 < |m| < n pixels). If the mask
    is missing, empty or full, there is nothing to tell apart. Then the observations are NaN, `used` is False, and the
    image does not count. Maps are used as they are. In a signed map, pixels against the target rank last.

    Attributes:
        figure: Name of the observation to average.
    """

    needs = frozenset({"masks"})
    figure: str

    @abstractmethod
    def compare(self, maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Return the observations of each image: float32 (n, *spatial), bool (n, *spatial) -> name to floats (n, ...).

        For an empty or full mask, any result will do: the caller replaces it by NaN.
        """

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the observations of `compare`, NaN where there is nothing to compare, and `used`, bool (N,).

        This always runs on the CPU, because maps and masks come from there and numpy sorts many times as fast as torch.
        """

        def compared(start: int, stop: int) -> dict[str, np.ndarray]:
            masks = case.split.batch(np.arange(start, stop)).masks.numpy()
            inside = masks.reshape(len(masks), -1)
            used = np.any(inside, 1) & ~np.all(inside, 1)
            with np.errstate(divide="ignore", invalid="ignore"):
                seen = self.compare(np.asarray(case.maps[start:stop], dtype=np.float32), masks)
            for values in seen.values():
                values[~used] = np.nan
            return seen | {"used": used}

        return case.observed(compared, self.figure)

    def summarise(self, observations: Observations) -> float:
        """Return the mean over the used images, or NaN if there are none."""
        values = observations[self.figure]
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return the entries that all these metrics share, and those of `meaning`."""
        shared = {
            "score": self.figure,
            "mask": "the expert's; images without one, or with an empty or full one, do not count",
            "map": "as it is",
            "aggregation": "mean over images",
        }
        return shared | dict(self.meaning)

    @property
    @abstractmethod
    def meaning(self) -> Mapping[str, str]:
        """Further entries of the card: what the figure means."""


class _Order(NamedTuple):
    """The pixels of maps in the order of their values, from the lowest up.

    The figures below only need a pixel's place in this order, the places of the pixels tied with it, and whether it
    lies in the mask. So one sort of each map serves all figures, and nothing is sorted back into the image.

    Attributes:
        inside: Whether each pixel lies in the mask, bool (n, P).
        below: Number of mask pixels before each pixel, int64 (n, P).
        first: Place of the first pixel with the same value, int64 (n, P).
        last: Place of the last pixel with the same value, int64 (n, P).
        size: Number of pixels of the mask, int64 (n,).
    """

    inside: np.ndarray
    below: np.ndarray
    first: np.ndarray
    last: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, maps: np.ndarray, masks: np.ndarray) -> _Order:
        """Sort maps (n, *spatial) together with masks (n, *spatial)."""
        # Sorting whole numbers that hold value and mask takes a fraction of the time of argsort and two gathers. Adding
        # 0 makes -0.0 equal to 0.0, whose bits differ.
        bits = (maps.reshape(len(maps), -1) + np.float32(0)).view(np.int32).astype(np.int64)
        # IEEE 754: the bits of positive floats, read as whole numbers, have the order of the floats. Those of negative
        # ones have the reversed order, until all but their sign are flipped.
        bits ^= np.where(bits < 0, 0x7FFFFFFF, 0)
        # The mask is stored in the lowest bit. It orders tied pixels, which does not affect any figure.
        keys = np.sort(bits << 1 | masks.reshape(bits.shape), axis=1)
        inside, values = (keys & 1).astype(bool), keys >> 1
        places = np.arange(keys.shape[1])
        changes = values[:, 1:] != values[:, :-1]
        edge = np.ones((len(keys), 1), dtype=bool)
        begins, ends = np.hstack([edge, changes]), np.hstack([changes, edge])
        # A pixel's `first` is the last place at or before it at which a value begins. Its `last` is the same from the
        # other end: the next place at or after it at which a value ends.
        first = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
        ends_from_the_top = np.where(ends, places, places[-1])[:, ::-1]
        last = np.minimum.accumulate(ends_from_the_top, axis=1)[:, ::-1]
        upto = inside.cumsum(1)
        return cls(inside, upto - inside, first, last, upto[:, -1])

    @property
    def twice_rank(self) -> np.ndarray:
        """Twice the average rank of each pixel, from 1, which is a whole number: int64 (n, P)."""
        twice: np.ndarray = self.first + self.last + 2
        return twice

    @property
    def tie_fraction(self) -> np.ndarray:
        """Share of pixels that have the same value as another pixel: float64 (n,)."""
        fraction: np.ndarray = (self.last > self.first).mean(1)
        return fraction


class RocAuc(MaskMetric):
    """Area under the ROC curve of the map as a classifier of the mask's pixels (Brocki et al., section 3.2).

    `exact`: AUC = P(A_in > A_out) + P(A_in = A_out) / 2 of each image, over all pairs of a pixel inside and one outside
    (Mann-Whitney U of the average ranks), then the mean over images. The mask itself has 1, its inverse 0. Ties count
    one half, so a constant map has 0.5, and a random one 0.5 +- 1 / sqrt(12 |m|).

    `trapezoid` and `heights` follow the paper: TPR and FPR of each image at the same thresholds, averaged over images
    at each threshold, then one area, by the trapezoid rule, or as "the mean of the heights of available points", the
    mean TPR. The paper does not say how scores are normalised. Here, the score is the rank, r = (average rank) / n. A
    pixel is called relevant if r > t, with t = k / 200 for k from 0 to 200, so the curve goes from (1, 1) to (0, 0).
    (With scores scaled between their minimum and maximum, the mean height would be the mean score inside the mask, far
    from the paper's numbers.) The mean height of an image is |m| / 2n + (1 - |m| / n) AUC, not AUC.

    Higher is better. NaN for a missing, empty or full mask.
    """

    options: RocAucOptions
    figure = "roc_auc"

    def compare(self, maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Return exact AUC and tie fraction, float64 (n,), and TPR and FPR at K + 1 thresholds, float32 (n, K + 1)."""
        order, pixels = _Order.of(maps, masks), masks[0].size
        size, ranks = order.size, order.twice_rank
        above = (ranks * order.inside).sum(1) - size * (size + 1)  # twice U
        tpr, fpr = _rates(order, _DRAWN if self.options.protocol == "exact" else _THRESHOLDS)
        return {
            "roc_auc": above / (2 * size * (pixels - size)),
            "tpr": tpr,
            "fpr": fpr,
            "tie_fraction": order.tie_fraction,
        }

    def summarise(self, observations: Observations) -> float:
        """Return the mean of the areas or the area of the mean curve, or NaN if no image is used."""
        if self.options.protocol == "exact":
            return super().summarise(observations)
        fpr, tpr = _averaged(observations)
        if self.options.protocol == "heights":
            return float(tpr.mean())
        return float(((tpr[1:] + tpr[:-1]) / 2 * np.diff(fpr)).sum())

    def curves(self, observations: Observations) -> Curves | None:
        """Return TPR against FPR, both averaged over images at each threshold, and the diagonal."""
        if not observations["used"].any():
            return None
        fpr, tpr = _averaged(observations)
        return Curves(
            x=100 * fpr,
            y={"map": 100 * tpr, "chance": 100 * fpr},
            x_label="pixels outside the mask called relevant (%)",
            y_label="pixels inside (%)",
        )

    @property
    def meaning(self) -> Mapping[str, str]:
        """Treatment of ties and, for the paper's protocols, the thresholds."""
        if self.options.protocol == "exact":
            return {"ties": "count one half"}
        return {
            "ties": "average ranks",
            "normalisation": "average rank / pixels",
            "thresholds": f"k/{_THRESHOLDS} for k = 0 to {_THRESHOLDS}; relevant is what lies above",
            "aggregation": "TPR and FPR are averaged over images at each threshold, then "
            + ("integrated" if self.options.protocol == "trapezoid" else "TPR is averaged over thresholds"),
        }


def _rates(order: _Order, thresholds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return TPR and FPR where r > k / K, for k from K down to 0: float32 (n, K + 1) each, rising from 0 to 1."""
    images, pixels = order.inside.shape
    # r > k / K exactly where ceil(K r) > k. In whole numbers, because rounding would move pixels over a threshold.
    steps = (thresholds * order.twice_rank + 2 * pixels - 1) // (2 * pixels)
    # Count the pixels of all images at once: each image has K bins of its own, from the highest step, K, down to 1.
    own_bins = np.arange(images)[:, None] * thresholds
    bins = (thresholds - steps + own_bins).ravel()
    total = np.bincount(bins, minlength=images * thresholds).reshape(images, thresholds)
    within = np.bincount(bins[order.inside.ravel()], minlength=images * thresholds).reshape(images, thresholds)
    rates = np.zeros((2, images, thresholds + 1), dtype=np.float32)
    for rate, counts in zip(rates, (within, total - within), strict=True):
        reached = counts.cumsum(1)
        rate[:, 1:] = reached / reached[:, -1:]
    return rates[0], rates[1]


def _averaged(observations: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Return FPR and TPR averaged over the used images, float64 (K + 1,) each, or NaN if there are none."""
    used, fpr, tpr = observations["used"], observations["fpr"], observations["tpr"]
    if not used.any():
        return np.full(fpr.shape[1], np.nan), np.full(fpr.shape[1], np.nan)
    return fpr[used].mean(0, dtype=np.float64), tpr[used].mean(0, dtype=np.float64)


class AveragePrecision(MaskMetric):
    """Average precision of the map as a classifier of the mask's pixels: sum_k (R_k - R_{k-1}) P_k over its values.

    P_k and R_k are precision and recall of the pixels of at least the k-th highest distinct value. Nothing is
    interpolated, so it is the mean, over the mask's pixels, of the precision at their value. Unlike the AUC, it depends
    on the size of the mask: a constant map has |m| / n, and a random one about that. Tied pixels are called relevant
    together.

    Higher is better. NaN for a missing, empty or full mask.
    """

    figure = "average_precision"

    def compare(self, maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Return AP, the mask's share of the pixels, and tie fraction: float64 (n,)."""
        order, pixels = _Order.of(maps, masks), masks[0].size
        found = order.size[:, None] - np.take_along_axis(order.below, order.first, axis=1)
        precision = found / (pixels - order.first)
        value = (precision * order.inside).sum(1) / order.size
        return {
            "average_precision": value,
            "mask_fraction": order.size / pixels,
            "tie_fraction": order.tie_fraction,
        }

    @property
    def meaning(self) -> Mapping[str, str]:
        """Treatment of ties, and interpolation."""
        return {"ties": "called relevant together", "interpolation": "none"}


class RelevanceRank(MaskMetric):
    """Share of the |m| highest pixels of the map that lie in the mask (Arras et al. 2022, relevance rank accuracy).

    If the |m|-th highest value is tied, the result is the mean over all orders of the tied pixels. So a constant map
    has |m| / n, like a random map on average.

    Higher is better. NaN for a missing, empty or full mask.
    """

    figure = "relevance_rank"

    def compare(self, maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Return share and tie fraction: float64 (n,)."""
        order, pixels = _Order.of(maps, masks), masks[0].size
        images, place = np.arange(len(maps)), np.minimum(pixels - order.size, pixels - 1)  # of the |m|-th highest value
        first, last = order.first[images, place], order.last[images, place]
        before, upto = order.below[images, first], order.below[images, last] + order.inside[images, last]
        above, wanted = order.size - upto, order.size - (pixels - 1 - last)
        found = above + wanted * (upto - before) / (last - first + 1)
        return {"relevance_rank": found / order.size, "tie_fraction": order.tie_fraction}

    @property
    def meaning(self) -> Mapping[str, str]:
        """Treatment of ties."""
        return {"ties": "mean over all orders of the tied pixels"}


class RelevanceMass(MaskMetric):
    """Share of the map's positive relevance that lies in the mask: sum_m A+ / sum A+, A+ = max(A, 0).

    Arras et al. 2022 (relevance mass accuracy). Of a signed map, only the evidence for the target counts, because with
    both signs the quotient is unbounded. This is the only figure here that changes under a monotone transform of the
    map.

    A map without positive relevance points nowhere, like a constant map, and gets the same value, |m| / n. With NaN, an
    explainer could choose the images that it is judged by.

    Higher is better. NaN for a missing, empty or full mask.
    """

    figure = "relevance_mass"

    def compare(self, maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Return the share, float64 (n,), and `blank`, whether there is no positive relevance, float64 (n,), 0 or 1."""
        positive, inside = np.maximum(maps.reshape(len(maps), -1), 0), masks.reshape(len(masks), -1)
        blank = ~positive.any(1)
        positive[blank] = 1
        mass = positive.sum(1, where=inside, dtype=np.float64)
        return {"relevance_mass": mass / positive.sum(1, dtype=np.float64), "blank": blank.astype(np.float64)}

    @property
    def meaning(self) -> Mapping[str, str]:
        """Treatment of signs, and of maps without any positive pixel."""
        return {"map": "its positive part", "blank": "a map without positive relevance counts as a constant one"}


class PointingGame(MaskMetric):
    """Share of maps whose highest pixel lies in the mask, or within `tolerance` pixels of it (Zhang et al. 2018).

    If several pixels have the highest value, each counts in equal parts. So a constant map has |m| / n, like a random
    map on average.

    Higher is better. NaN for a missing, empty or full mask.
    """

    options: PointingGameOptions
    figure = "pointing_game"

    def compare(self, maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Return the share of the maxima inside, and the number of maxima: float64 (n,)."""
        near = _within(masks, self.options.tolerance).reshape(len(masks), -1)
        values = maps.reshape(near.shape)
        highest = values == values.max(1, keepdims=True)
        maxima = highest.sum(1).astype(np.float64)
        return {"pointing_game": (highest & near).sum(1) / maxima, "maxima": maxima}

    @property
    def meaning(self) -> Mapping[str, str]:
        """Treatment of ties."""
        return {"ties": "share of the tied maxima that hit"}


def _within(masks: np.ndarray, radius: int) -> np.ndarray:
    """Return which pixels are at most `radius` pixels from the mask: bool (n, *spatial)."""
    if radius == 0:
        return masks
    # One call for all images. They are spaced so far apart that no mask reaches into another image.
    apart = (radius + 1, *[1] * (masks.ndim - 1))
    near: np.ndarray = distance_transform_edt(~masks, sampling=apart) <= radius
    return near
