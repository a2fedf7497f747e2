"""Records of the nodule index. Coordinates are pixel and slice indices of the scan, as in pylidc."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MOST_READERS = 4


@dataclass(frozen=True)
class Scan:
    """One CT series.

    Attributes:
        series_uid: DICOM SeriesInstanceUID.
        patient: Name of the patient: "LIDC-IDRI-0078".
        slice_thickness: Thickness of the slices in mm.
        pixel_spacing: Distance between pixels in mm, equal along rows and columns.
        contrast_used: Whether a DICOM contrast tag is present.
        z_positions: Increasing positions of the slices, float64 (slices,), mm. A slice index is an index into them.
    """

    series_uid: str
    patient: str
    slice_thickness: float
    pixel_spacing: float
    contrast_used: bool
    z_positions: np.ndarray


@dataclass(frozen=True)
class Contour:
    """One closed outline of one reader on one slice.

    Attributes:
        slice_index: Index into `Scan.z_positions`.
        inclusion: Whether the outline encloses nodule; False where it cuts a hole.
        points: Points of the outline, int (P, 2), (row, column). They lie just outside the nodule (or inside the hole's
            rim).
    """

    slice_index: int
    inclusion: bool
    points: np.ndarray


@dataclass(frozen=True)
class Ratings:
    """One reader's ratings, in the order of LIDC's form: 1 to 5, except internal structure to 4, calcification to 6."""

    subtlety: int
    internal_structure: int
    calcification: int
    sphericity: int
    margin: int
    lobulation: int
    spiculation: int
    texture: int
    malignancy: int


@dataclass(frozen=True)
class Annotation:
    """One reader's ratings and outlines of one nodule."""

    id: int
    ratings: Ratings
    contours: tuple[Contour, ...]

    @cached_property
    def points(self) -> np.ndarray:
        """All outline points, int (P, 3), (row, column, slice)."""
        return np.concatenate(
            [np.column_stack([c.points, np.full(len(c.points), c.slice_index)]) for c in self.contours]
        )

    @cached_property
    def centroid(self) -> np.ndarray:
        """Mean outline point, float64 (3,), (row, column, slice)."""
        return np.asarray(self.points.mean(axis=0))


@dataclass(frozen=True)
class Nodule:
    """One physical nodule, with the readers' annotations of it."""

    scan: Scan
    annotations: tuple[Annotation, ...]

    @property
    def id(self) -> str:
        """Series and sorted annotation numbers, unique and stable within one annotation database."""
        return f"{self.scan.series_uid}_" + "-".join(str(number) for number in sorted(a.id for a in self.annotations))

    @property
    def readers(self) -> int:
        """Number of outlines."""
        return len(self.annotations)

    @property
    def glued(self) -> bool:
        """Whether there are more outlines than readers, because several nodules lie too close to be separated."""
        return self.readers > MOST_READERS

    @property
    def centre(self) -> np.ndarray:
        """Mean of the readers' centroids, float64 (3,), (row, column, slice)."""
        return np.asarray(np.mean([annotation.centroid for annotation in self.annotations], axis=0))

    @property
    def malignancy(self) -> np.ndarray:
        """The readers' malignancy ratings, int (readers,)."""
        return np.array([annotation.ratings.malignancy for annotation in self.annotations])

    @property
    def diameter(self) -> float:
        """Greatest distance within one outline, mean over the readers, in mm (as pylidc's `diameter`)."""
        return float(np.mean([_diameter(annotation) for annotation in self.annotations])) * self.scan.pixel_spacing


def _diameter(annotation: Annotation) -> float:
    from scipy.spatial.distance import pdist

    return max((float(pdist(c.points).max()) for c in annotation.contours if len(c.points) > 1), default=0.0)
