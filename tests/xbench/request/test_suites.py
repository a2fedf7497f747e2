"""Suites: what a file may say, and what the command line may add."""

from __future__ import annotations

import csv
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xbench import PluginError, SuiteSpec, UserError
from xbench.jobs.store import Store
from xbench.registry.discovery import discover
from xbench.registry.entries import Entry, Registry
from xbench.request.suite_run import suite_run
from xbench.request.suites import find_suite, paper_rows, read_suite
from xbench.results.paper import read_paper_rows, write_paper_rows
from xbench.run.plan import Plan, make_suite_plan
from xbench.testing import fakes

if TYPE_CHECKING:
    from tests.conftest import Shelf


TABLE2 = (Path(__file__).parents[1] / "table2.csv").read_text()


@pytest.fixture
def registry() -> Registry:
    specs = [*fakes.xbench_datasets(), *fakes.xbench_models()]
    return Registry.collect([*discover().entries.values(), *(Entry(spec, "stranger", "1.0") for spec in specs)])


# --- the file --------------------------------------------------------------------------------------------------------


def test_tables_take_what_they_do_not_say_from_the_suite(suite_file: Callable[..., Path]) -> None:
    suite = read_suite(suite_file(('name = "two"', 'name = "two"\nsign = "absolute"\nmodel = "convnet"')))
    one, two = suite.tables
    assert (suite.name, suite.version, suite.target, suite.split, suite.resamples) == (
        *("mine", 3, "predicted", "test", 200),
    )
    assert (one.model, two.model) == (("tiny:epochs=3",), ("convnet",))
    assert (one.sign, two.sign, one.controls, two.controls) == ("both", "absolute", False, False)
    assert (one.cells, two.cells) == (3 * 2 * 2, 2)
    assert two.metric == ("roc_auc",)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# two tables of a paper", "# other words"),
        ("my two tables", "another summary"),
        ('"the images are drawn"', ""),
        ('["gradient", "input-x-gradient", "edges"]', '["edges", "gradient", "input-x-gradient"]'),
        ('metric = "roc_auc"', 'metric = ["roc_auc"]\nmodel = "tiny:epochs=3"'),
        ('name = "mine"', 'name = "yours"'),
    ],
)
def test_the_fingerprint_is_not_of_words_order_or_where_a_word_stands(
    suite_file: Callable[..., Path], old: str, new: str
) -> None:
    assert read_suite(suite_file((old, new))).fingerprint == read_suite(suite_file()).fingerprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 3", "version = 4"),
        ("resamples = 200", "resamples = 300"),
        ("resamples = 200", "resamples = 200\ntarget = 'true'"),
        ("resamples = 200", "resamples = 200\nsplit = 'validation'"),
        ('sign = "both"', 'sign = "absolute"'),
        ("controls = false", "controls = true"),
        ('"edges", "refusing"', '"edges"'),
        ("tiny:epochs=3", "tiny:epochs=4"),
        ('name = "two"', 'name = "deux"'),
    ],
)
def test_the_fingerprint_is_of_all_that_determines_the_cells(
    suite_file: Callable[..., Path], old: str, new: str
) -> None:
    assert read_suite(suite_file((old, new))).fingerprint != read_suite(suite_file()).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version = 3", "version = 0", "version=0 is wrong"),
        ("version = 3\n", "", "lacks 'version'"),
        ("version = 3", "version = 3\nverson = 1", "no key 'verson'.*did you mean version"),
        ("version = 3", "version = 3\nseed = 1", "no key 'seed'.*only be set on the command line"),
        (
            "version = 3",
            "version = 3\nallow-pickle = true",
            "no key 'allow-pickle'.*only be set on the command line",
        ),
        ('name = "mine"', 'name = "My suite"', "name='My suite' is wrong"),
        ('sign = "both"', 'sign = "either"', "table one: option sign='either' is wrong"),
        ('sign = "both"', 'sing = "both"', "table one has no key 'sing'.*did you mean sign"),
        ('sign = "both"', "target = 'true'", "table one has no key 'target'"),
        ('explainer = ["edges", "refusing"]\n', "", "table two names no explainer"),
        ('name = "two"', 'name = "one"', "two tables are named 'one'"),
        ('table = "one"', 'table = "on"', "there is no table 'on'.*did you mean one"),
        ('citation = "Someone 2026, Table 2"\n', "", "lacks 'citation'"),
        ('value = "F abs"', 'valeu = "F abs"', "column has no key 'valeu'.*did you mean value"),
        ("Oracle = ", "Oracle = { explanier = 'x' } #", "row 'Oracle' has no key 'explanier'.*did you mean explainer"),
        ("[[table]]", "[table]", "can't be read"),
        ("name = ", "name ", "can't be read"),
    ],
)
def test_a_wrong_suite_is_one_line_that_names_it(
    suite_file: Callable[..., Path], old: str, new: str, words: str
) -> None:
    path = suite_file((old, new))
    with pytest.raises(UserError, match=words) as error:
        read_suite(path)
    assert str(path) in str(error.value)


def test_a_suite_without_tables_or_without_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text('name = "empty"\nversion = 1\nsummary = "nothing"\n')
    with pytest.raises(UserError, match="has no table"):
        read_suite(tmp_path / "empty.toml")
    with pytest.raises(UserError, match=r"nowhere\.toml does not exist"):
        read_suite(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match="can't be read"):
        read_suite(tmp_path)


# --- the paper's numbers ---------------------------------------------------------------------------------------------


def test_papers_numbers_come_in_our_unit_and_under_our_labels(
    suite_file: Callable[..., Path], registry: Registry
) -> None:
    rows = suite_run(str(suite_file()), {}, registry).papers
    assert [(row.method, row.metric, row.explainer, row.sign, row.value) for row in rows] == [
        ("Grad", "fidelity", "gradient", "original", pytest.approx(0.62)),
        ("Grad", "fidelity", "gradient", "absolute", pytest.approx(0.1)),
        ("Grad", "readers who liked it", "gradient", "", 0.5),
        ("GxI", "fidelity", "input-x-gradient", "original", pytest.approx(0.34)),
        ("GxI", "fidelity", "input-x-gradient", "absolute", pytest.approx(0.2)),
        ("=Sobel", "fidelity", "edges", "original", pytest.approx(0.01)),
        ("=Sobel", "fidelity", "edges", "absolute", pytest.approx(0.3)),
        ("Oracle", "fidelity", "", "original", pytest.approx(0.99)),
    ]
    assert (rows[0].ci_low, rows[0].ci_high) == (pytest.approx(0.6), pytest.approx(0.65))
    assert math.isnan(rows[1].ci_low)
    assert {(row.table, row.citation) for row in rows} == {("one", "Someone 2026, Table 2")}
    assert {row.model for row in rows if row.metric == "fidelity"} == {"tiny:epochs=3"}


@pytest.mark.parametrize(
    ("changes", "table", "words"),
    [
        ((), TABLE2.replace("Grad,6.2", "Grad,six"), "column 'F': 'six' is not a number"),
        ((), TABLE2.replace("F abs", "F_abs"), "no column 'F abs'"),
        ((), TABLE2 + "LIME,1,,,,\n", "does not say what row 'LIME' is"),
        ((), TABLE2.replace("GxI,", "GI,"), "does not say what row 'GI' is"),
        ((("Oracle = ", "Orakel = ''\nOracle = "),), TABLE2, "no row 'Orakel'.*did you mean Oracle"),
        ((('file = "table2.csv"', 'file = "table3.csv"'),), TABLE2, r"table3\.csv can't be read"),
        ((('metric = "fidelity"\n', ""),), TABLE2, "the suite's table has several metrics"),
        ((('metric = "fidelity"\n', 'metric = "dice"\n'),), TABLE2, "metric 'dice' is not in the suite's table"),
        ((('quantity = "readers', 'metric = "roc_auc", quantity = "readers'),), TABLE2, "both metric and quantity"),
    ],
)
def test_papers_numbers_that_do_not_fit_are_refused(
    suite_file: Callable[..., Path], changes: tuple[tuple[str, ...], ...], table: str, words: str
) -> None:
    suite = read_suite(suite_file(*changes, table=table))
    with pytest.raises(UserError, match=words):
        paper_rows(suite)


def test_papers_rows_survive_the_file_and_no_formula_does(
    suite_file: Callable[..., Path], registry: Registry, tmp_path: Path
) -> None:
    rows = suite_run(str(suite_file()), {}, registry).papers
    write_paper_rows(rows, tmp_path / "paper.csv")
    back = read_paper_rows(tmp_path / "paper.csv")
    assert [repr(row) for row in back] == [repr(row) for row in rows]
    with (tmp_path / "paper.csv").open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not any(cell.startswith("=") for cell in cells)
    (tmp_path / "cut.csv").write_text((tmp_path / "paper.csv").read_text().rpartition(",")[0])
    with pytest.raises(UserError, match="cells"):
        read_paper_rows(tmp_path / "cut.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not the columns"):
        read_paper_rows(tmp_path / "other.csv")


# --- where suites come from ------------------------------------------------------------------------------------------

HOOK = """
    from pathlib import Path
    from xbench import SuiteSpec, hookimpl

    @hookimpl
    def xbench_suites():
        yield SuiteSpec({arguments})
"""


def test_a_strangers_suite_is_found_by_name_and_listed(
    shelf: Shelf,
    suite_file: Callable[..., Path],
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    arguments = f'"mine", "my two tables", path=Path("{suite_file()}")'
    shelf.install("stranger_suites", HOOK.format(arguments=arguments))
    found = find_suite("mine", discover())
    assert found == find_suite(str(tmp_path / "mine.toml"), discover())
    assert "my two tables" in command("list", "suites").stdout
    shown = command("show", "suite", "mine").stdout
    for words in ("table one: 12 cells; original and absolute maps", "the images are drawn", "Someone 2026, Table 2"):
        assert words in shown
    with pytest.raises(UserError, match=r"no suite named 'mien'.*did you mean mine"):
        find_suite("mien", discover())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('"mine", "s"', "is not absolute"),
        ('"mine", "s", path=Path("mine.toml")', "is not absolute"),
        ('"My Suite", "s", path=Path("/mine.toml")', "not allowed"),
    ],
)
def test_a_suite_that_cant_be_handed_over_is_reported_and_the_others_work(
    shelf: Shelf, arguments: str, words: str
) -> None:
    shelf.install("stranger_suites", HOOK.format(arguments=arguments))
    registry = discover()
    assert any(words in fault.reason for fault in registry.broken)
    assert "quick" in registry.names("suite")


def test_a_record_says_what_the_file_says_of_itself(suite_file: Callable[..., Path], tmp_path: Path) -> None:
    spec = SuiteSpec.of(suite_file())
    assert (spec.name, spec.summary, spec.reference) == ("mine", "my two tables", "")
    assert read_suite(spec.load()) == read_suite(tmp_path / "mine.toml")
    (tmp_path / "nameless.toml").write_text("version = 1\n")
    for name, words in {"nameless.toml": "has no name", "nowhere.toml": "can't be read"}.items():
        with pytest.raises(PluginError, match=words):
            SuiteSpec.of(tmp_path / name)


def test_a_file_that_calls_itself_otherwise_is_refused(shelf: Shelf, suite_file: Callable[..., Path]) -> None:
    shelf.install("stranger_suites", HOOK.format(arguments=f'"theirs", "s", path=Path("{suite_file()}")'))
    with pytest.raises(UserError, match=r"suite theirs \(stranger-suites 1\.0\).*calls it 'mine'"):
        find_suite("theirs", discover())


# --- on the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["metric", "model", "controls", "sign", "target", "split", "resamples", "conventions"])
def test_what_would_make_another_suite_of_it_is_refused(
    suite_file: Callable[..., Path], registry: Registry, word: str
) -> None:
    with pytest.raises(UserError, match=f"--{word} can't be used with --suite"):
        suite_run(str(suite_file()), {word: "x"}, registry)


def test_the_user_gives_seed_and_machine_replaces_datasets_and_adds_explainers(
    suite_file: Callable[..., Path], registry: Registry
) -> None:
    plain = suite_run(str(suite_file()), {"seed": 5, "batch_size": 16}, registry)
    assert plain.changed == {}
    assert {config.seed for config in plain.tables.values()} == {5}
    assert plain.config.explainer == ("gradient", "input-x-gradient", "edges", "refusing")
    assert (plain.config.sign, plain.config.resamples) == ("both", 200)
    changed = suite_run(
        str(suite_file()), {"dataset": ("fake:size=16",), "explainer": ("random",), "limit": 6}, registry
    )
    assert changed.changed == {"limit": 6, "dataset": ["fake:size=16"], "explainer": ["random"]}
    for table in changed.tables.values():
        assert table.dataset == ("fake:size=16",)
        assert table.explainer[-1] == "random"
    assert changed.suite.fingerprint == plain.suite.fingerprint


@pytest.fixture
def planned(suite_file: Callable[..., Path], registry: Registry, tmp_path: Path) -> Callable[..., Plan]:
    entries = [*registry.entries.values()]
    for name in ("refusing", "picky"):  # Mask refuses a dataset without masks
        spec = type(registry.get("explainer", "mask").spec)(
            name, "s", factory="xbench_baselines.controls.explainers:Mask"
        )
        entries.append(Entry(spec, "stranger", "1.0"))
    registry = Registry.collect(entries)

    def plan(*changes: tuple[str, str], **spoken: Any) -> Plan:
        run = suite_run(str(suite_file(*changes)), {"model_view": False, **spoken}, registry)
        return make_suite_plan(run.tables, run.added, registry, Store(tmp_path / "cache"))

    return plan


def test_the_plan_is_the_union_of_the_tables_and_no_cell_is_there_twice(planned: Callable[..., Plan]) -> None:
    plan = planned()
    assert [len(cells) for cells in plan.tables.values()] == [12, 2]
    # `edges` by roc_auc, original, is in both.
    assert len(plan.cells) == 13
    assert set(plan.cells) == {cell for cells in plan.tables.values() for cell in cells}
    kinds = [job.kind for job in plan.jobs]
    assert (kinds.count("model"), kinds.count("maps"), kinds.count("preparation")) == (1, 4, 2)
    assert len({job.fingerprint for job in plan.jobs}) == len(kinds)


def test_what_does_not_fit_is_left_out_and_said(planned: Callable[..., Plan]) -> None:
    plan = planned(dataset=("fake:masks=false",))
    assert {cell.observations.choice.label for cell in plan.cells} == {"fidelity"}
    assert [len(cells) for cells in plan.tables.values()] == [6, 0]
    assert any(str(refusal).startswith("refusing on tiny:epochs=3 on fake:masks=false:") for refusal in plan.skipped)
    refused = {(refusal.explainer, refusal.model, refusal.dataset, refusal.metric) for refusal in plan.skipped}
    assert ("refusing", "tiny:epochs=3", "fake:masks=false", "") in refused
    assert ("gradient", "", "fake:masks=false", "roc_auc") in refused
    assert any(
        str(refusal).startswith("gradient x roc_auc on fake:masks=false: metric roc_auc") for refusal in plan.skipped
    )
    assert len(set(plan.skipped)) == len(plan.skipped)


def test_an_added_explainer_must_fit_somewhere_and_something_must(planned: Callable[..., Plan]) -> None:
    assert any(cell.explainer.label == "picky" for cell in planned(explainer=("picky",)).cells)
    with pytest.raises(UserError, match="picky on tiny:epochs=3 on fake:masks=false") as error:
        planned(explainer=("picky",), dataset=("fake:masks=false",))
    assert "refusing" not in str(error.value)
    nothing = ('metric = ["fidelity", "roc_auc"]', 'metric = "roc_auc"'), ('metric = "fidelity"', 'metric = "roc_auc"')
    with pytest.raises(UserError, match="can't be run"):
        planned(*nothing, dataset=("fake:masks=false",))
