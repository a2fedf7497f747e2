"""One run, from the user's request to the run folder: discovery, plan, artifacts, scores, run folder, table."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from xbench.comparison.conventions import Conventions, ranks_table, ranks_under, write_ranks
from xbench.errors import UserError
from xbench.jobs.store import Store, default_root
from xbench.registry.discovery import discover
from xbench.registry.entries import Registry
from xbench.request.config import Reference, RunConfig, read_config
from xbench.request.grid import under_conventions
from xbench.request.suite_run import SuiteRun, suite_run
from xbench.results.rows import ScoreRow
from xbench.run.plan import Plan, make_plan, make_suite_plan
from xbench.terminal import LiveProgress, results_console

if TYPE_CHECKING:
    from xbench.run.workers import Planner


@dataclass(frozen=True)
class Request:
    """A run that the user requests.

    Attributes:
        config: All settings of the run.
        registry: The installed plugins.
        suite: The suite to run, or None.
        conventions: The conventions to compare, or None.
    """

    config: RunConfig
    registry: Registry
    suite: SuiteRun | None = None
    conventions: Conventions | None = None

    def plan(self, store: Store) -> Plan:
        """Return the plan of the run.

        Raises:
            UserError: Something requested does not exist or does not fit.
        """
        return self._words.plan(self.registry, store)

    @property
    def planner(self) -> Planner:
        """A function that makes the same plan in another process, which discovers the installed plugins itself."""
        return self._words.discovered

    @property
    def _words(self) -> _Words:
        if self.suite is None:
            return _Words(self.config)
        return _Words(self.config, self.suite.tables, self.suite.added)


@dataclass(frozen=True)
class _Words:
    """The data that determine a plan, for the same installed plugins. Plain, so that other processes can get them.

    Attributes:
        config: Settings of the run.
        tables: Tables of the suite, or None without a suite.
        added: Explainers that the user adds to the suite.
    """

    config: RunConfig
    tables: Mapping[str, RunConfig] | None = None
    added: Sequence[Reference] = ()

    def plan(self, registry: Registry, store: Store) -> Plan:
        if self.tables is None:
            return make_plan(self.config, registry, store)
        return make_suite_plan(self.tables, self.added, registry, store)

    def discovered(self, store: Store) -> Plan:
        return self.plan(discover(), store)


def request(suite: str | None, path: Path | None, cli_values: Mapping[str, Any]) -> Request:
    """Return the run that the user requests.

    Args:
        suite: Name or path of a suite, or None.
        path: A configuration file, or None.
        cli_values: The other options that were given on the command line, without defaults.

    Raises:
        UserError: An option is wrong or can't be used with a suite, or a file can't be read.
    """
    if suite is not None:
        registry = discover()
        run = suite_run(suite, {**cli_values, **({"config": path} if path else {})}, registry)
        return Request(run.config, registry, run)
    config = read_config(path, cli_values)
    registry = discover()
    config, conventions = under_conventions(config, registry)
    return Request(config, registry, conventions=conventions)


def show_plan(wanted: Request) -> int:
    """Print the cells and artifacts of a run, and which are cached, without building anything."""
    console = results_console()
    _say_broken(wanted.registry, LiveProgress())
    plan = wanted.plan(Store(wanted.config.cache or default_root()))
    for name, cells in plan.tables.items():
        console.print(f"table {name}: {len(cells)} cells", markup=False, highlight=False)
    console.print(f"{len(plan.cells)} cells", style="bold")
    for cell in plan.cells:
        subject = " (its own classifier)" if cell.subject == "self" else ""
        scored = f"{cell.observations.choice.label} of {cell.explainer.label}{subject}, {cell.sign}"
        console.print(f"  {scored}, for {cell.maps.predictions.label}", markup=False, highlight=False)
    for refusal in plan.skipped:
        console.print(f"  skipped: {refusal}", style="yellow", markup=False, highlight=False)
    jobs = plan.jobs
    cached = sum(job.store.has(job) for job in jobs)
    console.print(f"\n{len(jobs)} artifacts, {cached} cached", style="bold")
    for job in jobs:
        state = "cached " if job.store.has(job) else "to make"
        console.print(f"  {state}  {job.kind:<13} {job.fingerprint[:12]}  {job.label}", markup=False, highlight=False)
    return 0


def carry_out(wanted: Request) -> int:
    """Run, write the run folder, and print the table.

    Returns:
        The exit code: 0, or the exit code of the worst failed cell.

    Raises:
        XbenchError: Nothing could be scored.
    """
    from xbench.report import beside_tables, score_tables
    from xbench.run.build import make_artifacts
    from xbench.run.folder import write_run
    from xbench.run.scoring import score_cells
    from xbench.run.summary import RunRecord, describe_models, warnings_of, worst_exit_code
    from xbench.run.workers import helper_processes

    start = time.perf_counter()
    config, suite = wanted.config, wanted.suite
    out = _free_folder(config.out)
    progress = LiveProgress()
    _say_broken(wanted.registry, progress)
    store = Store(config.cache or default_root(), progress)
    with progress.shown():
        if suite is not None:
            progress.say(_of_suite(suite))
        plan = wanted.plan(store)
        _say_plan(plan, progress)
        with helper_processes(config.workers, wanted.planner, store):
            failures = make_artifacts(plan, store, progress)
        scored = score_cells(plan, failures, config.resamples, progress)
        models = describe_models(plan, failures, config.resamples)
        for text in warnings_of(plan, models):
            progress.warn(text)
        command = ["xbench", *sys.argv[1:]]
        finished = RunRecord(plan, scored, models, progress.warnings, command, start, suite)
        out, header, rows = write_run(out, config, finished, progress)
    console = results_console()
    console.print(score_tables(rows, header))
    if suite is not None and suite.papers:
        console.print()
        console.print(beside_tables(suite.papers, rows))
    if wanted.conventions is not None:
        _show_conventions(rows, wanted.conventions, out, console)
    console.print(f"run folder: {out}", markup=False, highlight=False)
    return worst_exit_code(scored, plan)


def _show_conventions(rows: Sequence[ScoreRow], conventions: Conventions, out: Path, console: Console) -> None:
    """Print the ranks under each convention, and write one file per dataset and model beside the scores."""
    from xbench.results.naming import file_name

    (out / "conventions").mkdir()
    for dataset, model in dict.fromkeys((row.dataset, row.model) for row in rows):
        members = [row for row in rows if (row.dataset, row.model) == (dataset, model)]
        explainers, flips = ranks_under(members, conventions)
        console.print()
        console.print(f"{model} on {dataset}", style="bold", markup=False, highlight=False)
        console.print(ranks_table(explainers, flips))
        write_ranks(explainers, flips, out / "conventions" / f"{file_name(dataset, model)}.csv")


def _of_suite(run: SuiteRun) -> str:
    """Return a line about the suite, which names only changes of its cells."""
    words = {"limit": "fewer samples", "dataset": "other datasets", "explainer": "explainers added"}
    changed = "".join(f", {words[word]}" for word in run.changed)
    return f"suite {run.suite.name}, version {run.suite.version}{changed}"


def _say_broken(registry: Registry, progress: LiveProgress) -> None:
    for fault in registry.broken:
        progress.warn(f"not loaded: {fault.reason}")


def _say_plan(plan: Plan, progress: LiveProgress) -> None:
    jobs = plan.jobs
    cached = sum(job.store.has(job) for job in jobs)
    progress.say(f"{len(plan.cells)} cells, {len(jobs)} artifacts ({cached} cached)")
    for cell in plan.broken:
        progress.warn(f"{cell.explainer} can't be run on {cell.model}: {cell.reason}")


def _free_folder(wanted: Path | None) -> Path:
    """Return the path for the run folder: the wanted path, or a folder named by the current time.

    Raises:
        UserError: The folder exists and is not empty, or can't be created.
    """
    out = wanted or Path("xbench-runs") / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"run folder {out} exists and is not empty", "name another with --out")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(
            f"run folder {out} can't be made: {above} is not a folder to write to", "name another with --out"
        )
    return out
