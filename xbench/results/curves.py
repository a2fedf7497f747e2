"""Keep the curves of a run as numbers: `curves/<dataset>--<model>--<metric>--<sign>.json`, beside their figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xbench.contracts.roles import CurveRole
from xbench.errors import UserError
from xbench.results.rows import SCHEMA, Record, read_text, upgraded
from xbench.runtime.files import write_text
from xbench.version import __version__

CURVES = "curves"
"""The folder of a run in which they lie."""

CURVE_UPGRADES: dict[int, Callable[[Record], Record]] = {3: lambda record: record}
"""From schema n to n + 1; the files are there since schema 3."""

# Files written before curves had roles: Fidelity's two curves are known by their names.
_ROLES_BEFORE: Mapping[str, CurveRole] = {"most important first": "most_first", "least important first": "least_first"}


@dataclass(frozen=True)
class CurveTable:
    """The curves of one metric, dataset, model and sign.

    Attributes:
        dataset: Name of the dataset.
        model: The classifier.
        metric: Name of the metric, with options.
        sign: "original" or "absolute".
        x_label: Label of the horizontal axis, with the unit.
        y_label: Label of the vertical axis, with the unit.
        series: The curves, one series per explainer.
    """

    dataset: str
    model: str
    metric: str
    sign: str
    x_label: str
    y_label: str
    series: Sequence[CurveSeries]


def write_curves(table: CurveTable, path: Path) -> None:
    """Write one table as JSON, whole or not at all; NaN becomes null."""
    record = {name: getattr(table, name) for name in ("dataset", "model", "metric", "sign", "x_label", "y_label")}
    record["series"] = [
        {
            "explainer": series.label,
            "control": series.control,
            "x": _numbers(series.x),
            "curves": {name: _numbers(values) for name, values in series.curves.items()},
            "roles": dict(series.roles),
        }
        for series in table.series
    ]
    stamp = {"schema": SCHEMA, "xbench_version": __version__}
    write_text(path, json.dumps(stamp | record, ensure_ascii=False, allow_nan=False) + "\n")


def _numbers(values: Any) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64)]


def read_curves(run: Path) -> list[CurveTable]:
    """Read the curves of a run folder in the order of file names; none where it has only pictures of them.

    Raises:
        UserError: A file can't be read, or is of a newer schema.
    """
    return [_read(path) for path in sorted((run / CURVES).glob("*.json"))]


def _read(path: Path) -> CurveTable:
    try:
        record = json.loads(read_text(path))
        record = upgraded(record | {"schema": int(record["schema"])}, CURVE_UPGRADES, str(path))
        words = {name: str(record[name]) for name in ("dataset", "model", "metric", "sign", "x_label", "y_label")}
        return CurveTable(**words, series=[_series(series) for series in record["series"]])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"can't read {path} as curves: {type(error).__name__}: {error}", "run again") from error


def _series(record: Mapping[str, Any]) -> CurveSeries:
    curves = {str(name): _array(values) for name, values in record["curves"].items()}
    roles = record.get("roles", {name: role for name, role in _ROLES_BEFORE.items() if name in curves})
    return CurveSeries(str(record["explainer"]), bool(record["control"]), _array(record["x"]), curves, dict(roles))


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


@dataclass(frozen=True)
class CurveSeries:
    """The curves of one explainer.

    Attributes:
        label: The explainer.
        control: It must lose: drawn in grey.
        x: (P,) positions.
        curves: Name -> (P,) heights. The area between two curves is shaded.
        roles: Name -> role, as in `xbench.Curves`; a curve that is not named is "other".
    """

    label: str
    control: bool
    x: np.ndarray
    curves: Mapping[str, np.ndarray]
    roles: Mapping[str, CurveRole] = field(default_factory=dict)
