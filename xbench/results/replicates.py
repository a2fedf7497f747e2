"""Keep bootstrap replicates on disk, so that runs are compared in pairs without the plugins that made them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xbench.errors import UserError
from xbench.provenance import digest
from xbench.results.rows import SCHEMA, Record, upgraded
from xbench.runtime.files import whole_file
from xbench.version import __version__

REPLICATES = "replicates.npz"
"""Name of the file in a run's folder."""

REPLICATE_UPGRADES: dict[int, Callable[[Record], Record]] = dict.fromkeys((1, 2, 3), lambda record: record)
"""From schema n to n + 1: a record of the arrays by name."""


@dataclass(frozen=True)
class Replicates:
    """A cell's value on each bootstrap resample.

    Only a metric itself can summarise a resample, so the run that has the metric at hand writes the summaries down.

    Attributes:
        values: float64 (B,); NaN where the metric is undefined on a resample.
        sampling: `sampling()` of what was resampled: cells of the same one are paired, replicate by replicate.
    """

    values: np.ndarray
    sampling: str


def sampling(ids: Sequence[str], groups: Sequence[str], seed: int) -> str:
    """Return the hash of all that `xbench.statistics.resampling.resamples` depends on, but for their number.

    The first resamples of a longer series are those of a shorter one, so series of different length are paired too.
    """
    return digest([seed, list(map(str, ids)), list(map(str, groups))])[:16]


def write_replicates(cells: Mapping[str, Replicates], path: Path) -> None:
    """Write replicates by the fingerprint of their observations, whole or not at all; all series are equally long."""
    values = [cell.values for cell in cells.values()]
    with whole_file(path) as file:
        np.savez(
            file,
            schema=np.array(SCHEMA),
            xbench_version=np.array(__version__),
            fingerprints=np.array(list(cells), dtype=str),
            samplings=np.array([cell.sampling for cell in cells.values()], dtype=str),
            replicates=np.stack(values).astype(np.float64) if values else np.empty((0, 0)),
        )


def read_replicates(path: Path) -> dict[str, Replicates]:
    """Read the replicates of a run by the fingerprint of their observations; none where the file is missing.

    Raises:
        UserError: It can't be read, or is of a newer schema.
    """
    if not path.exists():
        return {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # numpy leaves a damaged one open
            arrays: Record = {name: file[name] for name in file.files}
        stamp: Record = {"schema": int(arrays["schema"]), "xbench_version": str(arrays["xbench_version"])}
        arrays = upgraded(arrays | stamp, REPLICATE_UPGRADES, str(path))
        names, kinds, values = arrays["fingerprints"], arrays["samplings"], arrays["replicates"]
        if not len(names) == len(kinds) == len(values):
            raise ValueError(f"{len(names)} fingerprints for {len(values)} series")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"can't read {path} as bootstrap replicates: {error}", "run again; all is cached") from error
    return {str(name): Replicates(row, str(kind)) for name, kind, row in zip(names, kinds, values, strict=True)}
