"""Selection of the nodules, with the slice and the label of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from xbench import UserError
from xbench_lidc.options import LidcPhantomOptions
from xbench_lidc.outlines import Consensus, consensus
from xbench_lidc.records import Nodule

CLASSES = {
    "binary": ("benign", "malignant"),
    "five": (
        "highly unlikely malignant",
        "moderately unlikely malignant",
        "indeterminate",
        "moderately suspicious",
        "highly suspicious",
    ),
}
AGGREGATION = {"binary": "median above or below 3", "five": "mean, halves rounded up"}


@dataclass(frozen=True)
class Case:
    """One nodule on one slice.

    Attributes:
        nodule: The nodule.
        label: Index into the classes.
        slice_index: The slice to show.
        outline: The readers' consensus on the slice, never empty.
    """

    nodule: Nodule
    label: int
    slice_index: int
    outline: Consensus


def select(nodules: Iterable[Nodule], options: LidcPhantomOptions) -> list[Case]:
    """Return the nodules that the options admit and that have a label.

    Raises:
        UserError: No nodule is left.
    """
    cases = []
    for nodule in nodules:
        label = _label(nodule.malignancy, options) if _admitted(nodule, options) else None
        if label is None:
            continue
        slice_index, outline = _slice(nodule, options.slice)
        if outline.mask.any():
            cases.append(Case(nodule, label, slice_index, outline))
    if not cases:
        raise UserError("no nodule is left under these options", "raise max_slice_thickness or lower min_readers")
    return cases


def malignancy_label(ratings: np.ndarray, median3: str = "discard") -> int | None:
    """Return 1 (malignant) for a median above 3, 0 (benign) below, None for a discarded 3 (Katzmann et al., 3.1)."""
    median = float(np.median(ratings))
    if median == 3:
        return {"discard": None, "benign": 0, "malignant": 1}[median3]
    return int(median > 3)


def malignancy_class(ratings: np.ndarray) -> int:
    """Return one of five classes, 0..4: the mean rating with halves rounded up, minus one (exact, in integers)."""
    total, count = int(ratings.sum()), len(ratings)
    return (2 * total + count) // (2 * count) - 1


def _admitted(nodule: Nodule, options: LidcPhantomOptions) -> bool:
    thin = options.max_slice_thickness is None or nodule.scan.slice_thickness <= options.max_slice_thickness
    return thin and nodule.readers >= options.min_readers and (options.keep_glued or not nodule.glued)


def _label(ratings: np.ndarray, options: LidcPhantomOptions) -> int | None:
    return malignancy_class(ratings) if options.labels == "five" else malignancy_label(ratings, options.median3)


def _slice(nodule: Nodule, choice: str) -> tuple[int, Consensus]:
    """Return the chosen slice, or the nearest (then larger) one if the readers agree on nothing there."""
    middle = int(np.floor(nodule.centre[2] + 0.5))
    if choice == "middle":
        outline = consensus(nodule, middle)
        if outline.mask.any():
            return middle, outline
    drawn = sorted({contour.slice_index for annotation in nodule.annotations for contour in annotation.contours})
    outlines = {index: consensus(nodule, index) for index in drawn}
    areas = {index: int(outline.mask.sum()) for index, outline in outlines.items()}
    if choice == "middle":
        best = min(drawn, key=lambda index: (areas[index] == 0, abs(index - middle), -areas[index]))
    else:
        best = min(drawn, key=lambda index: (-areas[index], abs(index - middle), index))
    return best, outlines[best]
