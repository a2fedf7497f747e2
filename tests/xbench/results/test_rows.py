"""Score tables and headers: round trips to the last bit, defused formulas, schema steps, and named faults."""

import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbench import UserError
from xbench.results import rows as results
from xbench.results.rows import SCHEMA, RunHeader, ScoreRow, read_header, read_scores, write_header, write_scores

END = f",{SCHEMA}\n"
ROW = ScoreRow(
    dataset="lidc-phantom",
    split="test",
    n=131,
    groups=98,
    model="convnet",
    explainer="vinet",
    resolved="vinet:preset=tiny",
    subject="self",
    control=False,
    sign="original",
    target="predicted",
    metric="roc-auc",
    value=0.1 + 0.2,
    ci_low=-1e-300,
    ci_high=0.7,
    higher_is_better=True,
    rank=1,
    rank_high=2,
    rank_set=("vinet", "blurred:gradient"),
    same_as="",
    seed=0,
    seconds_fit=80.5,
    seconds_maps=1.25,
    seconds_metric=0.5,
    card="c0ffee",
    fingerprint="f1",
    maps_fingerprint="f2",
    model_fingerprint="f3",
    dataset_fingerprint="f4",
    device="cpu",
    precision="32",
    batch_size=32,
)
FAILED = dataclasses.replace(
    ROW,
    value=math.nan,
    ci_low=math.nan,
    ci_high=math.nan,
    rank=0,
    rank_high=0,
    rank_set=(),
    status="failed",
    reason="no",
)


def same(one: ScoreRow, other: ScoreRow) -> bool:
    """Equal, a NaN being equal to a NaN."""
    return all(
        a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
        for a, b in zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    )


def written(path: Path, *rows: ScoreRow) -> Path:
    write_scores(rows, path)
    return path


def changed(path: Path, line: int, column: str, text: str) -> Path:
    """The table with one cell replaced (line 1 holds the names)."""
    table = list(csv.reader(path.read_text().splitlines()))
    table[line - 1][table[0].index(column)] = text
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return path


class TestScores:
    def test_round_trip(self, tmp_path: Path) -> None:
        back = read_scores(written(tmp_path / "scores.csv", ROW, FAILED))
        assert len(back) == 2
        assert same(back[0], ROW)
        assert same(back[1], FAILED)

    @given(text=st.text() | st.text(alphabet="\r\n\t',=|\""), value=st.floats())
    def test_any_text_and_number_come_back(
        self, text: str, value: float, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any.csv"
        row = dataclasses.replace(ROW, reason=text.encode("utf-8", "replace").decode(), value=value)
        assert same(read_scores(written(path, row))[0], row)

    def test_numpy_numbers_are_plain_in_the_file(self, tmp_path: Path) -> None:
        row = dataclasses.replace(ROW, value=np.float64(0.25), n=np.int64(3), control=np.bool_(True))  # type: ignore[arg-type]
        path = written(tmp_path / "scores.csv", row)
        assert "np." not in path.read_text()
        assert read_scores(path)[0] == dataclasses.replace(ROW, value=0.25, n=3, control=True)

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
    def test_formulas_are_defused(self, tmp_path: Path, start: str) -> None:
        row = dataclasses.replace(ROW, explainer=start + "cmd|' /C calc'!A0", rank_set=(start + "x",))
        path = written(tmp_path / "scores.csv", row)
        with path.open(newline="") as file:
            record = next(csv.DictReader(file))
        assert record["explainer"][0] == record["rank_set"][0] == "'"
        assert read_scores(path) == [row]

    def test_negative_numbers_are_not_text(self, tmp_path: Path) -> None:
        with written(tmp_path / "scores.csv", ROW).open(newline="") as file:
            assert next(csv.DictReader(file))["ci_low"] == "-1e-300"

    def test_undefined_is_an_empty_cell(self, tmp_path: Path) -> None:
        with written(tmp_path / "scores.csv", FAILED).open(newline="") as file:
            assert next(csv.DictReader(file))["value"] == ""

    def test_same_rows_same_bytes_and_nothing_left_behind(self, tmp_path: Path) -> None:
        one, two = (written(tmp_path / name, ROW, FAILED) for name in ("a.csv", "b.csv"))
        assert one.read_bytes() == two.read_bytes()
        assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv"}

    def test_a_failed_write_leaves_the_old_table(self, tmp_path: Path) -> None:
        path = written(tmp_path / "scores.csv", ROW)
        with pytest.raises(UserError, match="rename"):
            written(path, dataclasses.replace(ROW, rank_set=("a|b",)))
        assert read_scores(path) == [ROW]

    def test_no_rows(self, tmp_path: Path) -> None:
        assert read_scores(written(tmp_path / "scores.csv")) == []

    def test_saved_by_a_spreadsheet(self, tmp_path: Path) -> None:
        path = written(tmp_path / "scores.csv", ROW)
        text = path.read_text().replace("true", "TRUE").replace("false", "FALSE").replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_scores(path) == [ROW]

    @pytest.mark.parametrize(
        ("column", "text", "complaint"),
        [
            ("value", "high", "'high' is not a number"),
            ("n", "1.5", "'1.5' is not a whole number"),
            ("control", "maybe", "'maybe' is not true or false"),
            ("status", "fine", "'fine' is not one of ok, failed, skipped"),
            ("schema", "", "'' is not a whole number"),
        ],
    )
    def test_a_wrong_cell_is_named(self, tmp_path: Path, column: str, text: str, complaint: str) -> None:
        path = changed(written(tmp_path / "scores.csv", ROW, ROW), 3, column, text)
        with pytest.raises(UserError) as caught:
            read_scores(path)
        assert str(caught.value) == f"{path}, line 3, column {column}: {complaint}"

    def test_lines_are_counted_in_the_file(self, tmp_path: Path) -> None:
        path = written(tmp_path / "scores.csv", dataclasses.replace(ROW, reason="two\nlines"), ROW)
        path.write_text(path.read_text() + "lidc-phantom,test\n")
        with pytest.raises(UserError, match=r"line 5, column n: no cell \(the line is cut off\)"):
            read_scores(path)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda text: text.replace("card,", "cart,", 1), "column 'card' is missing"),
            (lambda text: text.replace("seed,", "n,", 1), "line 1: column n is there twice"),
            (
                lambda text: text.replace(",schema", ",schema,more").replace(f",{SCHEMA}\n", f",{SCHEMA},2\n"),
                "'more' is unknown",
            ),
            (lambda text: text.replace(END, f",{SCHEMA},2\n"), "1 more cells than columns"),
            (lambda text: text.replace(",schema", "").replace(END, "\n"), "column schema is missing"),
            (lambda _: "", "is empty"),
            (lambda text: text.splitlines()[0].replace("card,", "") + "\n", "column 'card' is missing"),
        ],
    )
    def test_a_wrong_table_is_refused(self, tmp_path: Path, change: Callable[..., Any], complaint: str) -> None:
        path = written(tmp_path / "scores.csv", ROW)
        path.write_text(change(path.read_text()))
        with pytest.raises(UserError, match=complaint):
            read_scores(path)

    def test_unreadable_files(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"can't read .*absent.csv: No such file"):
            read_scores(tmp_path / "absent.csv")
        (tmp_path / "binary.csv").write_bytes(b"\xff\xfe")
        with pytest.raises(UserError, match="not UTF-8"):
            read_scores(tmp_path / "binary.csv")


class TestSchema:
    def test_newer_is_refused_with_the_version_needed(self, tmp_path: Path) -> None:
        row = dataclasses.replace(ROW, schema=SCHEMA + 1, xbench_version="9.1.0")
        with pytest.raises(UserError, match=rf"schema {SCHEMA + 1} is newer .*written by xbench 9.1.0"):
            read_scores(written(tmp_path / "scores.csv", row))
        header = dataclasses.replace(HEADER, schema=SCHEMA + 1, xbench_version="9.1.0")
        write_header(header, tmp_path / "run.json")
        with pytest.raises(UserError, match=rf"schema {SCHEMA + 1} is newer .*written by xbench 9.1.0"):
            read_header(tmp_path / "run.json")

    def test_older_is_upgraded_step_by_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = written(tmp_path / "scores.csv", ROW)
        path.write_text(path.read_text().replace("explainer,", "method,", 1))  # as an old schema might
        steps = {
            SCHEMA: lambda record: {"maker" if name == "method" else name: text for name, text in record.items()},
            SCHEMA + 1: lambda record: {
                "explainer" if name == "maker" else name: text for name, text in record.items()
            },
        }
        monkeypatch.setattr(results, "SCHEMA", SCHEMA + 2)
        monkeypatch.setattr(results, "ROW_UPGRADES", steps)
        assert read_scores(path) == [dataclasses.replace(ROW, schema=SCHEMA + 2)]

    def test_older_header_is_upgraded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_header(HEADER, tmp_path / "run.json")
        monkeypatch.setattr(results, "SCHEMA", SCHEMA + 1)
        monkeypatch.setattr(results, "HEADER_UPGRADES", {SCHEMA: lambda record: record | {"warnings": ["upgraded"]}})
        back = read_header(tmp_path / "run.json")
        assert (back.schema, back.warnings) == (SCHEMA + 1, ["upgraded"])

    @pytest.mark.parametrize(
        ("schema", "later"),
        [(1, ("same_as", "warning", "resolved")), (2, ("warning", "resolved")), (3, ("resolved",))],
    )
    def test_an_old_table_lacks_twins_warnings_and_what_was_resolved(
        self, tmp_path: Path, schema: int, later: tuple[str, ...]
    ) -> None:
        old = dataclasses.replace(ROW, schema=schema, explainer="=a,b", same_as="", warning="")
        path = written(tmp_path / "scores.csv", old)
        with path.open(newline="") as file:
            records = list(csv.DictReader(file))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [name for name in records[0] if name not in later], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(records)
        assert read_scores(path) == [dataclasses.replace(old, schema=SCHEMA, resolved="=a,b")]

    def test_an_old_table_without_explainers_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path / "scores.csv", dataclasses.replace(ROW, schema=3))
        path.write_text(path.read_text().replace("explainer,resolved,", "method,", 1).replace("vinet,vinet:", "vinet:"))
        with pytest.raises(UserError, match="column 'explainer' is missing"):
            read_scores(path)

    def test_devices_of_one_type_compute_alike(self) -> None:
        found = [dataclasses.replace(ROW, device=name).computed for name in ("cuda", "cuda:1", "cpu")]
        assert found == [("cuda", "32"), ("cuda", "32"), ("cpu", "32")]
        assert dataclasses.replace(ROW, precision="tf32").computed == ("cpu", "tf32")

    @pytest.mark.parametrize("schema", [1, 2])
    def test_an_old_header_ran_no_suite(self, tmp_path: Path, schema: int) -> None:
        write_header(dataclasses.replace(HEADER, schema=schema), tmp_path / "run.json")
        record = json.loads((tmp_path / "run.json").read_text())
        del record["suite"]
        (tmp_path / "run.json").write_text(json.dumps(record))
        back = read_header(tmp_path / "run.json")
        assert (back.schema, back.suite) == (SCHEMA, {})

    def test_older_than_any_known_step(self, tmp_path: Path) -> None:
        path = changed(written(tmp_path / "scores.csv", ROW), 2, "schema", "0")
        with pytest.raises(UserError, match="schema 0 is unknown"):
            read_scores(path)


HEADER = RunHeader(
    created="2026-01-02T03:04:05+00:00",
    command=["xbench", "run", "--model", "convnet"],
    config={"seed": 0},
    environment={"xbench": "0.1.0"},
    models=[{"name": "convnet", "dataset": "lidc-phantom", "n": 131, "metrics": {"auc": [0.96, 0.93, 0.98]}}],
    explainers=[{"name": "gradient", "control": False}],
    cards={"c0ffee": {"fill": "mean"}},
    datasets=[{"name": "lidc-phantom", "synthetic": True, "class_counts": {"test": [66, 65]}}],
    warnings=["größer"],
    wall_seconds=12.5,
)


class TestHeader:
    def test_round_trip(self, tmp_path: Path) -> None:
        write_header(HEADER, tmp_path / "run.json")
        assert read_header(tmp_path / "run.json") == HEADER
        assert [path.name for path in tmp_path.iterdir()] == ["run.json"]

    def test_file_is_strict_json(self, tmp_path: Path) -> None:
        odd = {
            "nan": math.nan,
            "numbers": np.array([1.0, math.inf]),
            "one": np.float32(0.5),
            "path": Path("a") / "b",
            "classes": ("benign", "malignant"),
            "needs": {"transfer", "masks"},
        }
        write_header(dataclasses.replace(HEADER, config=odd, wall_seconds=math.nan), tmp_path / "run.json")

        def refuse(token: str) -> None:
            raise AssertionError(token)

        found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"), parse_constant=refuse)["config"]
        assert found == {
            "nan": None,
            "numbers": [1.0, None],
            "one": 0.5,
            "path": str(Path("a") / "b"),
            "classes": ["benign", "malignant"],
            "needs": ["masks", "transfer"],
        }
        assert math.isnan(read_header(tmp_path / "run.json").wall_seconds)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda record: record.pop("models"), "field 'models' is missing"),
            (lambda record: record.update(extra=1), "field 'extra' is unknown"),
            (lambda record: record.update(models={}), "'models' is of type dict, not list"),
            (lambda record: record.update(wall_seconds="long"), "'wall_seconds' is of type str, not float"),
            (lambda record: record.pop("schema"), "no whole number under 'schema'"),
        ],
    )
    def test_a_wrong_field_is_named(self, tmp_path: Path, change: Callable[..., Any], complaint: str) -> None:
        path = tmp_path / "run.json"
        write_header(HEADER, path)
        record = json.loads(path.read_text(encoding="utf-8"))
        change(record)
        path.write_text(json.dumps(record))
        with pytest.raises(UserError, match=complaint):
            read_header(path)

    def test_not_json(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{\n  nonsense")
        with pytest.raises(UserError, match="line 2, column 3: not JSON"):
            read_header(tmp_path / "run.json")
