"""Keep counterfactual images as arrays in a run: `counterfactuals/<dataset>--<model>--<explainer>.npz`."""

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

COUNTERFACTUALS = "counterfactuals"
"""The folder of a run in which they lie."""

COUNTERFACTUAL_UPGRADES: dict[int, Callable[[Record], Record]] = {3: lambda record: record}
"""From schema n to n + 1; the files are there since schema 3."""


@dataclass(frozen=True)
class CounterfactualArrays:
    """n images x on their way to their counterfactuals G_c(x), and the classifier's probabilities of each frame.

    Two classes have one strip, S = 1, of t in [-1, 1]: x + |t| (G_c(x) - x), toward class 0 where t < 0 and toward
    class 1 where t > 0. So its first frame is G-(x), its middle one x, its last one G+(x). K > 2 classes have a strip
    each, S = K, of t in [0, 1], from x to G_c(x). Of a volume, one slice is kept.

    Attributes:
        dataset: Name of the dataset.
        model: The classifier.
        explainer: The explainer that makes the counterfactuals.
        classes: K names.
        ids: n samples.
        labels: int64 (n,).
        images: float16 (n, C, H, W), x.
        t: float32 (T,), ascending, with a 0.
        frames: float16 (n, S, T, C, H, W); not cut to [0, 1].
        probabilities: float32 (n, S, T, K).
        relevance: float32 (n, H, W), the explainer's own maps R of the images; None if there are none.
        targets: int64 (n,), the classes that they explain; None if there are none.
    """

    dataset: str
    model: str
    explainer: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: np.ndarray
    images: np.ndarray
    t: np.ndarray
    frames: np.ndarray
    probabilities: np.ndarray
    relevance: np.ndarray | None = None
    targets: np.ndarray | None = None

    @property
    def start(self) -> int:
        """Index of the frame that is x, where t is 0."""
        return int(np.flatnonzero(self.t == 0)[0])


_WORDS = ("dataset", "model", "explainer")
_NAMES = ("classes", "ids")
_AXES = {
    "labels": ("n", np.int64),
    "images": ("nCHW", np.float16),
    "t": ("T", np.float32),
    "frames": ("nSTCHW", np.float16),
    "probabilities": ("nSTK", np.float32),
    "relevance": ("nHW", np.float32),
    "targets": ("n", np.int64),
}
_OPTIONAL = ("relevance", "targets")


def write_counterfactuals(arrays: CounterfactualArrays, path: Path) -> None:
    """Write `counterfactuals/<...>.npz`, whole or not at all."""
    stored: Record = {"schema": np.array(SCHEMA), "xbench_version": np.array(__version__)}
    stored |= {name: np.array(getattr(arrays, name), dtype=str) for name in (*_WORDS, *_NAMES)}
    numbers = {name: getattr(arrays, name) for name in _AXES if getattr(arrays, name) is not None}
    stored |= {name: values.astype(_AXES[name][1]) for name, values in numbers.items()}
    with whole_file(path) as file:
        np.savez_compressed(file, **stored)


def read_counterfactuals(run: Path) -> list[CounterfactualArrays]:
    """Read the counterfactuals of a run folder in the order of file names; none where no explainer makes any.

    Raises:
        UserError: A file can't be read, is of a newer schema, or its arrays do not fit together.
    """
    return [_read(path) for path in sorted((run / COUNTERFACTUALS).glob("*.npz"))]


def _read(path: Path) -> CounterfactualArrays:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # numpy leaves a damaged one open
            arrays: Record = {name: file[name] for name in file.files}
        stamp: Record = {"schema": int(arrays["schema"]), "xbench_version": str(arrays["xbench_version"])}
        arrays = upgraded(arrays | stamp, COUNTERFACTUAL_UPGRADES, str(path))
        words = {name: str(arrays[name]) for name in _WORDS}
        names = {name: tuple(map(str, arrays[name].tolist())) for name in _NAMES}
        numbers = {name: arrays[name] for name in _AXES if name in arrays or name not in _OPTIONAL}
        _check(numbers, len(names["ids"]), len(names["classes"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"can't read {path} as counterfactual images: {error}", "run again; all is cached") from error
    return CounterfactualArrays(**words, **names, **numbers)  # type: ignore[arg-type]


def _check(numbers: Record, samples: int, classes: int) -> None:
    """Check types, finite values, equal lengths of axes of one letter, labels, and that the strip holds x."""
    sizes = {"n": samples, "K": classes, "S": 1 if classes == 2 else classes}
    for name, values in numbers.items():
        axes, kind = _AXES[name]
        if values.dtype != kind or values.ndim != len(axes):
            raise ValueError(f"array {name} is {values.dtype} of shape {values.shape}")
        if any(sizes.setdefault(axis, size) != size for axis, size in zip(axes, values.shape, strict=True)):
            raise ValueError(f"array {name} has shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"array {name} has NaN or infinity")
    for name in ("labels", "targets"):
        if name in numbers and ((numbers[name] < 0) | (numbers[name] >= classes)).any():
            raise ValueError(f"array {name} is not of classes 0 to {classes - 1}")
    if ("relevance" in numbers) != ("targets" in numbers):
        raise ValueError("relevance and targets belong together")
    t = numbers["t"]
    if (np.diff(t) <= 0).any() or not (t == 0).any() or np.abs(t).max() > 1:
        raise ValueError(f"t {t.tolist()} does not ascend through 0 within -1 and 1")
