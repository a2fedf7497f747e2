"""The file of a run's curves."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from xbench.contracts.roles import CurveRole
from xbench.errors import UserError
from xbench.results.curves import CurveSeries, CurveTable, read_curves, write_curves

NAMES = ("least important first", "most important first")


def table(roles: Mapping[str, CurveRole]) -> CurveTable:
    curves = dict(zip(NAMES, (np.array([1.0, 0.9]), np.array([1.0, np.nan])), strict=True))
    series = [CurveSeries("vinet", False, np.array([0.0, 100.0]), curves, roles)]
    return CurveTable("phantom", "net", "fidelity", "original", "removed (%)", "accuracy", series)


def written(folder: Path, roles: Mapping[str, CurveRole]) -> Path:
    path = folder / "curves" / "one.json"
    write_curves(table(roles), path)
    return path


def test_curves_are_read_as_they_were_written_with_their_roles(tmp_path: Path) -> None:
    written(tmp_path, {"least important first": "least_first"})
    (found,) = read_curves(tmp_path)
    (one,) = found.series
    assert (found.dataset, found.metric, found.x_label, one.label, one.control) == (
        *("phantom", "fidelity", "removed (%)"),
        *("vinet", False),
    )
    assert list(one.curves) == list(NAMES)
    np.testing.assert_array_equal(one.curves["most important first"], [1, np.nan])
    assert one.roles == {"least important first": "least_first"}


@pytest.mark.parametrize("schema", [3, 4])
def test_the_curves_of_fidelity_have_roles_in_files_of_before_too(tmp_path: Path, schema: int) -> None:
    path = written(tmp_path, {})
    record = json.loads(path.read_text()) | {"schema": schema}
    for one in record["series"]:
        del one["roles"]
        one["curves"]["ROC"] = [0, 1]
    path.write_text(json.dumps(record))
    (found,) = read_curves(tmp_path)
    assert found.series[0].roles == {"most important first": "most_first", "least important first": "least_first"}


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, {})
    path.write_text(path.read_text().replace('"x"', '"y"'))
    with pytest.raises(UserError, match=r"can't read .*one\.json as curves"):
        read_curves(tmp_path)
