"""Observation tables: shapes, types and values come back; faults are named."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xbench import PluginError, UserError
from xbench.results import observations
from xbench.results.observations import ObservationCell, observations_path, read_observations, write_observations
from xbench.results.rows import SCHEMA

RNG = np.random.default_rng(0)


def cell(explainer: str, **arrays: np.ndarray) -> ObservationCell:
    return ObservationCell(
        dataset="lidc-phantom",
        model="convnet",
        explainer=explainer,
        subject="shared",
        sign="original",
        ids=("a", "b", "c"),
        groups=("p", "p", "q"),
        labels=np.array([0, 1, 1]),
        targets=np.array([1, 1, 0]),
        observations=arrays,
    )


ARRAYS = {
    "auc": np.array([0.5, np.nan, 1.0]),
    "curve": RNG.random((3, 41), dtype=np.float32),
    "confusion": RNG.integers(0, 9, (3, 4, 2)),
    "correct": RNG.random((3, 5)) > 0.5,
    "region": np.array(["lung", "heart", "lung"]),
}


def assert_same(one: ObservationCell, other: ObservationCell) -> None:
    for field in ("dataset", "model", "explainer", "subject", "sign", "ids", "groups"):
        assert getattr(one, field) == getattr(other, field)
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.targets, other.targets)
    assert set(one.observations) == set(other.observations)
    for name, values in one.observations.items():
        assert np.array_equal(other.observations[name], values, equal_nan=values.dtype.kind == "f"), name
        assert other.observations[name].dtype == values.dtype, name


def test_round_trip_of_every_shape_and_type(tmp_path: Path) -> None:
    cells = [cell("vinet", **ARRAYS), cell("gradient", **ARRAYS)]
    write_observations(cells, tmp_path / "new" / "m.parquet")
    back = read_observations(tmp_path / "new" / "m.parquet")
    assert len(back) == 2
    for one, other in zip(cells, back, strict=True):
        assert_same(one, other)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.parquet"]


def test_other_tools_read_one_row_per_cell_and_sample(tmp_path: Path) -> None:
    write_observations([cell("vinet", **ARRAYS), cell("gradient", **ARRAYS)], tmp_path / "m.parquet")
    table = pd.read_parquet(tmp_path / "m.parquet")
    assert list(table.columns) == [
        *("dataset", "model", "explainer", "subject", "sign", "id", "group", "label", "target"),
        *ARRAYS,
    ]
    assert table["explainer"].tolist() == ["vinet"] * 3 + ["gradient"] * 3
    assert np.array_equal(np.stack(table["curve"][:3]), ARRAYS["curve"])


def test_an_observation_that_a_cell_lacks_is_null(tmp_path: Path) -> None:
    cells = [cell("vinet", auc=ARRAYS["auc"]), cell("gradient", curve=ARRAYS["curve"])]
    write_observations(cells, tmp_path / "m.parquet")
    for one, other in zip(cells, read_observations(tmp_path / "m.parquet"), strict=True):
        assert_same(one, other)


def test_no_cells(tmp_path: Path) -> None:
    write_observations([], tmp_path / "m.parquet")
    assert read_observations(tmp_path / "m.parquet") == []


def test_names_a_file_system_may_refuse(tmp_path: Path) -> None:
    assert observations_path(tmp_path, "fidelity") == tmp_path / "observations" / "fidelity.parquet"
    assert observations_path(tmp_path, "q:a/b").name == "q%3Aa%2Fb.parquet"


def test_reserved_name(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'label' has the name of a column"):
        write_observations([cell("vinet", label=np.zeros(3))], tmp_path / "m.parquet")
    assert list(tmp_path.iterdir()) == []


def test_newer_schema_is_refused_and_older_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.parquet"
    write_observations([cell("vinet", AUC=ARRAYS["auc"])], path)
    table = pq.read_table(path)
    stamp = {"xbench_schema": str(SCHEMA + 1), "xbench_version": "9.1.0"}
    pq.write_table(table.replace_schema_metadata(stamp), tmp_path / "newer.parquet")
    with pytest.raises(UserError, match=rf"schema {SCHEMA + 1} is newer .*written by xbench 9.1.0"):
        read_observations(tmp_path / "newer.parquet")

    def lower(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"table": record["table"].rename_columns([n.lower() for n in record["table"].column_names])}

    monkeypatch.setattr("xbench.results.rows.SCHEMA", SCHEMA + 1)
    monkeypatch.setattr(observations, "OBSERVATION_UPGRADES", {SCHEMA: lower})
    assert set(read_observations(path)[0].observations) == {"auc"}


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (lambda path: path.write_text("id,auc"), "can't read .* as Parquet"),
        (lambda _: None, "can't read .* as Parquet"),
        (lambda path: pq.write_table(pa.table({"id": ["a"]}), path), "no schema number"),
        (
            lambda path: pq.write_table(pa.table({"id": ["a"]}).replace_schema_metadata({"xbench_schema": "1"}), path),
            "column 'dataset' is missing",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, write: Callable[..., Any], complaint: str) -> None:
    write(tmp_path / "m.parquet")
    with pytest.raises(UserError, match=complaint):
        read_observations(tmp_path / "m.parquet")


def test_ragged_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_observations([cell("vinet", curve=ARRAYS["curve"])], path)
    table = pq.read_table(path)
    ragged = pa.array([[1.0], [1.0, 2.0], [1.0, 2.0, 3.0]])
    pq.write_table(table.set_column(table.column_names.index("curve"), "curve", ragged), path)
    with pytest.raises(UserError, match="column curve: its lists differ in length"):
        read_observations(path)


def test_written_arrays_are_not_kept(tmp_path: Path) -> None:
    one = cell("vinet", auc=ARRAYS["auc"])
    write_observations([dataclasses.replace(one, labels=np.array([0, 1, 1]))], tmp_path / "m.parquet")
    assert_same(one, read_observations(tmp_path / "m.parquet")[0])
