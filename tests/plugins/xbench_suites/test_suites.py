"""The suites that come with xbench: they are found, they plan, and their papers' numbers are those of the files."""

import csv
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xbench.jobs.store import Store
from xbench.registry.discovery import discover
from xbench.registry.entries import Registry
from xbench.request.suite_run import suite_run
from xbench.request.suites import find_suite, paper_rows
from xbench.results.paper import PaperRow
from xbench.run.plan import make_suite_plan
from xbench_suites import FOLDER

ROOT = Path(__file__).parents[3]
NAMES = ["brocki2022", "full", "gu2020", "katzmann2021", "phantoms", "quick"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture(scope="module")
def planned(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Each suite is planned once: nothing is made, but every explainer is asked about every model."""
    made = {}

    def plan(name: str) -> Any:
        if name not in made:
            run = suite_run(name, {"device": "cpu"}, registry)
            made[name] = (run, make_suite_plan(run.tables, run.added, registry, Store(tmp_path_factory.mktemp(name))))
        return made[name]

    return plan


def test_these_are_the_suites_and_each_is_described(registry: Registry) -> None:
    assert [entry.spec.name for entry in registry.of_kind("suite") if entry.distribution == "xbench"] == NAMES
    for name in NAMES:
        suite = find_suite(name, registry)
        assert suite.path.stem == name
        assert len(suite.summary) < 120
        assert bool(suite.papers) == bool(suite.reference)
        assert suite.differs or not suite.papers
    prints = {find_suite(name, registry).fingerprint for name in NAMES}
    assert len(prints) == len(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_suite_plans_and_what_its_paper_names_is_in_the_plan(planned: Callable[..., Any], name: str) -> None:
    run, plan = planned(name)
    assert list(plan.tables) == [table.name for table in run.suite.tables]
    assert all(plan.tables.values())
    assert not plan.broken
    assert len({job.fingerprint for job in plan.jobs}) == len(plan.jobs)
    cells = {(cell.observations.choice.label, cell.explainer.label, cell.sign) for cell in plan.cells}
    models = {cell.maps.model.label for cell in plan.cells}
    for row in run.papers:
        if row.metric not in run.suite.quantities:
            assert row.model in models
            assert not row.explainer or (row.metric, row.explainer, row.sign) in cells


def _numbers(path: Path) -> Iterator[float]:
    """All numbers of a CSV file, as often as they are there."""
    with path.open(newline="") as file:
        for record in csv.DictReader(file):
            for cell in record.values():
                try:
                    yield float(cell)
                except ValueError:
                    continue


@pytest.mark.parametrize("name", ["brocki2022", "gu2020", "katzmann2021"])
def test_papers_rows_are_all_numbers_of_their_files_and_the_files_name_their_source(
    registry: Registry, name: str
) -> None:
    suite = find_suite(name, registry)
    scales = {column.scale for paper in suite.papers for column in paper.column}
    given = {number for paper in suite.papers for number in _numbers(FOLDER / paper.file)}
    rows = paper_rows(suite)
    found = {number for row in rows for number in (row.value, row.ci_low, row.ci_high) if number == number}  # noqa: PLR0124
    for number in found:
        assert any(number / scale == pytest.approx(other, abs=1e-12) for scale in scales for other in given)
    for number in given:
        assert any(number * scale == pytest.approx(other, abs=1e-12) for scale in scales for other in found)
    for paper in suite.papers:
        with (FOLDER / paper.file).open(newline="") as file:
            sources = {record["source"] for record in csv.DictReader(file)}
        assert all(source.startswith(paper.citation.partition(",")[0]) for source in sources)


def test_every_file_of_numbers_is_used(registry: Registry) -> None:
    used = {paper.file for name in NAMES for paper in find_suite(name, registry).papers}
    assert used == {f"papers/{path.name}" for path in (FOLDER / "papers").iterdir()}


@pytest.mark.parametrize(
    ("name", "method", "metric", "sign", "value"),
    [
        ("brocki2022", "SmoothGradSQ", "fidelity", "absolute", 0.62),
        ("brocki2022", "ExpectedGrad", "fidelity", "original", 0.36),
        ("brocki2022", "IntGrad", "roc_auc:protocol=heights", "original", 0.53),
        ("brocki2022", "IntGradBW", "dice", "absolute", 0.64),
        ("gu2020", "LRP", "occlude_accuracy", "original", 0.4003),
        ("gu2020", "SegNet", "importance_loss", "original", 0.0757),
        ("gu2020", "VGG-19", "classification:figure=accuracy", "original", 0.7554),
        ("katzmann2021", "mcc", "classification:figure=mcc", "original", 0.617),
        ("katzmann2021", "G+(x) less G-(x)", "classifier_shift", "original", 0.531),
    ],
)
def test_numbers_of_the_papers_stand_where_they_belong(
    registry: Registry, name: str, method: str, metric: str, sign: str, value: float
) -> None:
    rows: list[PaperRow] = paper_rows(find_suite(name, registry))
    (row,) = [row for row in rows if (row.method, row.metric, row.sign) == (method, metric, sign)]
    assert row.value == pytest.approx(value)


def test_intervals_in_print_are_kept(registry: Registry) -> None:
    rows = paper_rows(find_suite("katzmann2021", registry))
    (row,) = [row for row in rows if row.method == "sensitivity"]
    assert (row.value, row.ci_low, row.ci_high) == (0.813, 0.737, 0.884)
    (row,) = [row for row in rows if row.method == "Ours" and row.metric == "readers, image quality, score -4 to 4"]
    assert (row.explainer, row.value, row.ci_low, row.ci_high) == ("cyclegan-am", 1.04, -0.63, 2.5)


def test_planning_tools_import_no_torch() -> None:
    code = (
        "import sys; from xbench.cli import main\n"
        "try: main(['show', 'suite', 'gu2020'])\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Gu et al. 2020, Table III (importance-networks)" in done.stdout


def test_a_wheel_carries_the_files_beside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "xbench_suites"
    shutil.copytree(FOLDER, package / "suites")
    shutil.copy(Path(sys.modules["xbench_suites"].__file__), package)
    code = "import xbench_suites as s; print(s.FOLDER); print([spec.name for spec in s.xbench_suites()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(package / "suites"), str(NAMES)]


def test_the_wheel_is_built_with_them(tmp_path: Path) -> None:
    wheels = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = wheels.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()]
    assert len(files) > len(NAMES)
    assert {f"xbench_suites/suites/{name}" for name in files} <= names
