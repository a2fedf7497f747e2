"""Membership of pixels in regions that are dilated and overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

_KEYS = 0x5EED  # seed of the random keys of regions


@dataclass(frozen=True)
class RegionSet:
    """R overlapping regions of an image of H x W pixels, cut into A atoms.

    An atom is the set of all pixels that lie in the same regions. Every region is a union of atoms, and so is the area
    that several regions cover together. So computations need only a few hundred or thousand atoms instead of the
    pixels.

    Attributes:
        spatial: Size of the image, (H, W).
        atoms: Atom of each pixel, int64 (H * W,).
        sizes: Number of pixels of each atom, float64 (A,).
        incidence: Matrix with 1 where the region contains the atom, float64 CSR (R, A).
    """

    spatial: tuple[int, int]
    atoms: np.ndarray
    sizes: np.ndarray
    incidence: sparse.csr_array

    @classmethod
    def dilated(cls, labels: np.ndarray, radius: int) -> RegionSet:
        """Return every label of every scale as a region, dilated with the disk of all offsets up to `radius` long.

        Everything is computed on runs, which are stretches of pixels of one region along a row, for all regions of all
        scales at once. A run dilated by a disk is one run, of another length, on each of the 2 radius + 1 rows around
        it.

        Args:
            labels: Labels from 0 in each scale, int (S, H, W).
            radius: Radius of the disk in pixels. 0 leaves the regions unchanged.

        Returns:
            The regions in the order of scales, then of labels. R is the sum over scales of the largest label + 1. A
            label that no pixel has is an empty region.
        """
        _, height, width = labels.shape
        counts = labels.max(axis=(1, 2)).astype(np.int64) + 1
        regions = int(counts.sum())
        before = np.cumsum(counts) - counts  # regions of the scales before each
        runs = _Runs.of(labels + before[:, None, None]).dilated(radius, height, width)
        # Pixels of the same regions have the same sum of their regions' keys, modulo 2^64. Two pixels of different
        # regions have it with probability 2^-64. Comparing the sets themselves takes many times as long.
        keys = np.random.default_rng(_KEYS).integers(2**64, size=regions, dtype=np.uint64)[runs.region]
        # A run adds its region's key where it starts and takes it away where it stops, so that the running total along
        # the image is the sum of keys at each pixel. `ufunc.at`, because several runs start or stop at one pixel.
        change = np.zeros(height * width + 1, dtype=np.uint64)
        np.add.at(change, runs.start, keys)
        np.subtract.at(change, runs.stop, keys)
        # From one change to the next all pixels lie in the same regions, so one of each stretch is looked at.
        begins = np.flatnonzero(change[:-1])
        lengths = np.diff(begins, append=height * width)
        _, first, atoms = np.unique(np.cumsum(change)[begins], return_index=True, return_inverse=True)
        # `unique` numbers the atoms by their sums of keys, which mean nothing. In the order of their first pixels, the
        # numbers depend on the regions alone, and `containing` can search them.
        order = np.argsort(first)
        atoms = np.argsort(order)[atoms]
        incidence = runs.containing(begins[first[order]], regions)
        return cls((height, width), np.repeat(atoms, lengths), np.bincount(atoms, weights=lengths), incidence)

    def masks(self) -> np.ndarray:
        """Return the masks of the regions: bool (R, H, W)."""
        inside: np.ndarray = self.incidence[:, self.atoms].toarray() > 0
        return inside.reshape(-1, *self.spatial)


@dataclass(frozen=True)
class _Runs:
    """Runs of pixels, int64 (K,) each. `start` and `stop` (exclusive) count pixels along the image, row after row."""

    region: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def of(cls, regions: np.ndarray) -> _Runs:
        """Return the longest runs within rows, of region numbers (S, H, W)."""
        _, height, width = regions.shape
        # True at the first pixel of every row, whatever the region before it.
        begins = np.ones(regions.shape, dtype=bool)
        begins[..., 1:] = regions[..., 1:] != regions[..., :-1]
        first = np.flatnonzero(begins)
        start = first % (height * width)
        return cls(regions.ravel()[first], start, start + np.diff(first, append=regions.size))

    def dilated(self, radius: int, height: int, width: int) -> _Runs:
        """Return the runs of the dilated regions, by region, then by row."""
        reach = np.arange(-radius, radius + 1)
        # By so many pixels a run grows at either end on the row that is `reach` rows away: half a chord of the disk.
        longer = np.floor(np.sqrt(radius**2 - reach**2)).astype(np.int64)
        row = self.start // width
        left, right = self.start - row * width, self.stop - row * width
        rows = row[:, None] + reach
        inside = (rows >= 0) & (rows < height)
        # Dilated runs overlap, and overlaps must not count twice. All rows of all regions lie end to end on one line,
        # with a gap after each, so runs only touch runs of their own row, and one union serves all of them.
        line = (self.region[:, None] * height + rows) * (width + 1)
        starts, stops = _united(
            (line + np.maximum(left[:, None] - longer, 0))[inside],
            (line + np.minimum(right[:, None] + longer, width))[inside],
        )
        # Back from the line to the image: a row there has one pixel less, and all regions share the image.
        region_row = starts // (width + 1)
        region, row = np.divmod(region_row, height)
        shift = row * width - region_row * (width + 1)
        return _Runs(region, starts + shift, stops + shift)

    def containing(self, pixels: np.ndarray, regions: int) -> sparse.csr_array:
        """Return which region contains which of `pixels` (ascending): float64 CSR (regions, pixels), with ones."""
        # The pixels within a run are neighbours in `pixels`, from `first` up to `last`.
        first, last = np.searchsorted(pixels, self.start), np.searchsorted(pixels, self.stop)
        lengths = last - first
        ends = np.cumsum(lengths)
        # The ranges first to last of all runs, one after the other, without a loop: a count through all of them, moved
        # within each by what makes it end at `last`. Runs are sorted by region, so this is CSR's own order.
        columns = np.repeat(last - ends, lengths) + np.arange(ends[-1])
        starts = np.append(0, np.cumsum(np.bincount(self.region, weights=lengths, minlength=regions)))
        return sparse.csr_array((np.ones(len(columns)), columns, starts.astype(np.int64)), (regions, len(pixels)))


def _united(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the union of intervals [start, stop) on a line, as intervals that do not touch, from left to right."""
    order = np.argsort(starts)
    # How far any interval so far has reached: an interval begins a new one if it starts beyond.
    starts, stops = starts[order], np.maximum.accumulate(stops[order])
    begins = np.append(True, starts[1:] > stops[:-1])
    return starts[begins], stops[np.append(begins[1:], True)]
