"""Keep per-sample observations on disk: one long Parquet table per metric, a row per cell and sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xbench.errors import PluginError, UserError
from xbench.results.rows import SCHEMA, Record, upgraded
from xbench.runtime.files import whole_file
from xbench.version import __version__

OBSERVATION_UPGRADES: dict[int, Callable[[Record], Record]] = dict.fromkeys((1, 2, 3), lambda record: record)
"""From schema n to n + 1: a record with the Arrow table under "table"."""

_KEYS = ("dataset", "model", "explainer", "subject", "sign")
_COLUMNS = (*_KEYS, "id", "group", "label", "target")


@dataclass(frozen=True)
class ObservationCell:
    """One metric's observations of one explainer's maps.

    Attributes:
        dataset: Name of the dataset.
        model: The classifier.
        explainer: The explainer.
        subject: "shared" or "self".
        sign: "original" or "absolute".
        ids: N sample ids.
        groups: N patients.
        labels: int64 (N,).
        targets: int64 (N,), the classes explained.
        observations: Name -> (N, ...), as the metric gave them.
    """

    dataset: str
    model: str
    explainer: str
    subject: str
    sign: str
    ids: Sequence[str]
    groups: Sequence[str]
    labels: np.ndarray
    targets: np.ndarray
    observations: Mapping[str, np.ndarray]


def observations_path(run: Path, metric: str) -> Path:
    """Return `observations/<metric>.parquet` in a run folder; what file systems refuse is percent-encoded."""
    return run / "observations" / f"{quote(metric, safe='')}.parquet"


def write_observations(cells: Iterable[ObservationCell], path: Path) -> None:
    """Write the cells of one metric, whole or not at all.

    Columns: dataset, model, explainer, subject, sign, id, group, label, target, and one per observation; an observation
    with more axes than the samples' becomes a column of (nested) lists. One that a cell lacks is null there.

    Raises:
        PluginError: An observation bears the name of one of the columns above.
    """
    tables = [_table(cell) for cell in cells]
    whole = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    stamp = {"xbench_schema": str(SCHEMA), "xbench_version": __version__}
    with whole_file(path) as file:
        pq.write_table(whole.replace_schema_metadata(stamp), file, compression="zstd")


def _table(cell: ObservationCell) -> Any:
    taken = sorted(set(cell.observations) & set(_COLUMNS))
    if taken:
        raise PluginError(
            f"observation {taken[0]!r} has the name of a column that every table already has", "rename it in the metric"
        )
    count = len(cell.ids)
    columns = {name: pa.array([getattr(cell, name)] * count, pa.string()) for name in _KEYS}
    columns |= {"id": pa.array(map(str, cell.ids), pa.string()), "group": pa.array(map(str, cell.groups), pa.string())}
    columns |= {"label": pa.array(cell.labels, pa.int64()), "target": pa.array(cell.targets, pa.int64())}
    return pa.table(columns | {name: _column(np.asarray(values)) for name, values in cell.observations.items()})


def _column(values: np.ndarray) -> Any:
    """Return an Arrow array of (N, ...): lists of lists as deep as the trailing axes."""
    if values.ndim == 1:
        return pa.array(values)
    rows, width = values.shape[:2]
    offsets = np.arange(rows + 1, dtype=np.int64) * width
    return pa.LargeListArray.from_arrays(pa.array(offsets), _column(values.reshape(rows * width, *values.shape[2:])))


def read_observations(path: Path) -> list[ObservationCell]:
    """Read the cells of a file, in the order, shapes and types they were written with.

    Raises:
        UserError: It can't be read, is of a newer schema, or lacks a column.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"can't read {path} as Parquet: {str(error).splitlines()[0]}") from error
    stamp = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
    if not stamp.get("xbench_schema", "").isdigit():
        raise UserError(f"{path}: no schema number in its metadata", "is this a table of observations?")
    record: Record = {
        "schema": int(stamp["xbench_schema"]),
        "xbench_version": stamp.get("xbench_version"),
        "table": table,
    }
    table = upgraded(record, OBSERVATION_UPGRADES, str(path))["table"]
    if not len(table):
        return []
    for name in _COLUMNS:
        if name not in table.column_names:
            raise UserError(f"{path}: column {name!r} is missing")
    return [_cell(table.slice(start, stop - start), path) for start, stop in _runs(table)]


def _runs(table: Any) -> list[tuple[int, int]]:
    """Return the first row of each cell, and the row after its last."""
    codes = np.stack([table[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in _KEYS])
    edges = np.flatnonzero((codes[:, 1:] != codes[:, :-1]).any(0)) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(table)], strict=True))


def _cell(table: Any, path: Path) -> ObservationCell:
    names = [name for name in table.column_names if name not in _COLUMNS and table[name].null_count < len(table)]
    return ObservationCell(
        **{name: table[name][0].as_py() for name in _KEYS},
        ids=tuple(table["id"].to_pylist()),
        groups=tuple(table["group"].to_pylist()),
        labels=table["label"].to_numpy(),
        targets=table["target"].to_numpy(),
        observations={name: _array(table[name].combine_chunks(), f"{path}, column {name}") for name in names},
    )


def _array(column: Any, where: str) -> np.ndarray:
    """Return the array of an Arrow column; the inverse of `_column`."""
    if not isinstance(column, pa.ListArray | pa.LargeListArray):
        values: np.ndarray = column.to_numpy(zero_copy_only=False)
        return values.astype(str) if values.dtype == object else values
    flat = _array(column.flatten(), where)
    if (
        not len(column)
        or len(flat) % len(column)
        or column.value_lengths().unique().to_pylist() != [len(flat) // len(column)]
    ):
        raise UserError(f"{where}: its lists differ in length")
    return flat.reshape(len(column), -1, *flat.shape[1:])
