"""Keep the gallery's images, outlines and maps as arrays in a run folder: `gallery/<dataset>--<model>.npz`."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xbench.errors import UserError
from xbench.results.rows import SCHEMA, Record, upgraded
from xbench.runtime.files import whole_file
from xbench.version import __version__

GALLERY = "gallery"
"""The folder of a run in which they lie."""

GALLERY_UPGRADES: dict[int, Callable[[Record], Record]] = {3: lambda record: record}
"""From schema n to n + 1; the files are there since schema 3."""

_STEPS = 127  # of an int8 on either side of zero


@dataclass(frozen=True)
class GalleryArrays:
    """Images and maps of n samples of one dataset and model, ready to be looked at.

    A map is kept in 8 bits: steps of 1/127 of its 99th percentile (`scales`), beyond which it is cut, as the drawn
    gallery shows it. Of a volume, the slice with the largest expert's mask is kept.

    Attributes:
        dataset: Name of the dataset.
        model: The classifier.
        classes: K names.
        ids: n sample ids.
        labels: int64 (n,).
        probabilities: float32 (n, K), the classifier's.
        images: uint8 (n, C, H, W).
        masks: bool (n, H, W), the expert's; empty where `has_mask` is false.
        has_mask: bool (n,).
        explainers: E names.
        control: bool (E,).
        signed: bool (E,): positive is for the target, negative against it; else the map only says how much.
        targets: int64 (E, n), the classes explained.
        maps: int8 (E, n, H, W).
        scales: float32 (E, n): the value of 127 in `maps`.
    """

    dataset: str
    model: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    images: np.ndarray
    masks: np.ndarray
    has_mask: np.ndarray
    explainers: tuple[str, ...]
    control: np.ndarray
    signed: np.ndarray
    targets: np.ndarray
    maps: np.ndarray
    scales: np.ndarray


_WORDS = ("dataset", "model")
_NAMES = ("classes", "ids", "explainers")
_AXES = {
    "labels": "n",
    "probabilities": "nK",
    "images": "nCHW",
    "masks": "nHW",
    "has_mask": "n",
    "control": "E",
    "signed": "E",
    "targets": "En",
    "maps": "EnHW",
    "scales": "En",
}


def eight_bits(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return maps, float (n, H, W), as int8 (n, H, W), and the values float32 (n,) that 127 stands for."""
    scales = np.array([robust_scale(values) for values in maps], dtype=np.float32)
    shares = np.clip(maps / scales[:, None, None], -1, 1)
    return np.rint(_STEPS * shares).astype(np.int8), scales


def write_gallery(arrays: GalleryArrays, path: Path) -> None:
    """Write `gallery/<...>.npz`, whole or not at all."""
    stored: Record = {"schema": np.array(SCHEMA), "xbench_version": np.array(__version__)}
    stored |= {name: np.array(getattr(arrays, name), dtype=str) for name in (*_WORDS, *_NAMES)}
    stored |= {name: getattr(arrays, name) for name in _AXES}
    with whole_file(path) as file:
        np.savez_compressed(file, **stored)


def read_galleries(run: Path) -> list[GalleryArrays]:
    """Read the galleries of a run folder in the order of file names; none if its xbench wrote only pictures.

    Raises:
        UserError: One can't be read, is of a newer schema, or its arrays do not fit together.
    """
    return [_read(path) for path in sorted((run / GALLERY).glob("*.npz"))]


def _read(path: Path) -> GalleryArrays:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # numpy leaves a damaged one open
            arrays: Record = {name: file[name] for name in file.files}
        stamp: Record = {"schema": int(arrays["schema"]), "xbench_version": str(arrays["xbench_version"])}
        arrays = upgraded(arrays | stamp, GALLERY_UPGRADES, str(path))
        words = {name: str(arrays[name]) for name in _WORDS}
        names = {name: tuple(map(str, arrays[name].tolist())) for name in _NAMES}
        _check_shapes(arrays, {"n": len(names["ids"]), "K": len(names["classes"]), "E": len(names["explainers"])})
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"can't read {path} as a gallery: {error}", "run again; all is cached") from error
    return GalleryArrays(**words, **names, **{name: arrays[name] for name in _AXES})  # type: ignore[arg-type]


def _check_shapes(arrays: Record, sizes: dict[str, int]) -> None:
    """Check that all axes of the same letter are equally long."""
    for name, axes in _AXES.items():
        shape = arrays[name].shape
        fits = all(sizes.setdefault(axis, size) == size for axis, size in zip(axes, shape, strict=False))
        if len(shape) != len(axes) or not fits:
            raise ValueError(f"array {name} has shape {shape}")


def robust_scale(values: np.ndarray) -> float:
    """Return the 99th percentile of the absolute values; the maximum where that is 0, and 1 for a map of zeros."""
    size = np.abs(values)
    return float(np.percentile(size, 99)) or float(size.max()) or 1.0
