"""A suite on the command line: the options that may be used with it, their effect, and its copy in the run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.contracts.options import parse_options
from xbench.errors import UserError
from xbench.registry.entries import Registry
from xbench.registry.references import choose
from xbench.request.config import CELL_LISTS, Reference, RunConfig, ScoringConfig, TableConfig
from xbench.request.suites import Suite, SuiteTable, find_suite, paper_rows
from xbench.runtime.files import write_text

if TYPE_CHECKING:
    from xbench.results.paper import PaperRow

_USERS = (
    *("seed", "device", "precision", "batch_size", "workers", "out", "cache", "limit", "model_view", "allow_pickle"),
)
_CHANGES = ("dataset", "explainer")


@dataclass(frozen=True)
class SuiteRun:
    """A suite together with the user's options.

    Attributes:
        suite: The suite as written.
        tables: Name of each table -> its options, including the user's.
        config: Options of the whole run, which combine those of all tables.
        changed: The user's changes of the cells: "limit", "dataset" (the datasets used instead) and "explainer" (the
            added ones). Empty if the suite is run as written.
        papers: The paper's numbers, with the labels of this run.
    """

    suite: Suite
    tables: Mapping[str, RunConfig]
    config: RunConfig
    changed: Mapping[str, Any]
    papers: tuple[PaperRow, ...]

    @property
    def added(self) -> tuple[Reference, ...]:
        """The explainers that the user adds."""
        return tuple(self.changed.get("explainer", ()))

    def record(self, tables: Mapping[str, Mapping[str, list[str]]]) -> dict[str, Any]:
        """Return the record of the suite for the run's header.

        Args:
            tables: Name of each table -> kind ("explainer", "metric", ...) -> the planned labels.
        """
        suite = self.suite
        record = {"name": suite.name, "version": suite.version, "fingerprint": suite.fingerprint}
        record |= {"summary": suite.summary, "reference": suite.reference, "differs": list(suite.differs)}
        return record | {"tables": tables, "changed": dict(self.changed)}

    def write(self, folder: Path) -> None:
        """Write a copy of the suite and of the paper's numbers, if there are any, into a run folder."""
        from xbench.results.paper import PAPER_FILE, SUITE_FILE, write_paper_rows

        write_text(folder / SUITE_FILE, self.suite.path.read_text(encoding="utf-8"))
        if self.papers:
            write_paper_rows(self.papers, folder / PAPER_FILE)


def suite_run(wanted: str, cli_values: Mapping[str, Any], registry: Registry) -> SuiteRun:
    """Return a suite with the options of the command line.

    Args:
        wanted: Name or path of the suite.
        cli_values: The other options that were given on the command line, without defaults.
        registry: The installed plugins.

    Raises:
        UserError: There is no such suite, its file or the paper's numbers are wrong, or an option can't be used with a
            suite.
    """
    for word in cli_values:
        if word not in (*_USERS, *_CHANGES):
            hint = "run without --suite, or copy the suite's file, change the copy, and give its path"
            raise UserError(f"--{word.replace('_', '-')} can't be used with --suite: the suite sets it", hint)
    suite = find_suite(wanted, registry)
    users = {word: value for word, value in cli_values.items() if word in _USERS}
    shared = {word: getattr(suite, word) for word in ScoringConfig.model_fields} | users
    tables = {table.name: _config(_cells(table, cli_values) | shared) for table in suite.tables}
    together: dict[str, Any] = {word: _union(getattr(table, word) for table in tables.values()) for word in CELL_LISTS}
    signs = {table.sign for table in tables.values()}
    together["sign"] = signs.pop() if len(signs) == 1 else "both"
    together["controls"] = any(table.controls for table in tables.values())
    changed = {word: _plain(cli_values[word]) for word in ("limit", *_CHANGES) if word in cli_values}
    papers = tuple(_labelled(row, suite, registry) for row in paper_rows(suite))
    return SuiteRun(suite, tables, _config(together | shared), changed, papers)


def _config(words: Mapping[str, Any]) -> RunConfig:
    return parse_options(RunConfig, words, "xbench run")


def _cells(table: SuiteTable, cli_values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a table, with the user's datasets instead of its own and the user's explainers added."""
    words = {word: getattr(table, word) for word in TableConfig.model_fields}
    words["dataset"] = cli_values.get("dataset", table.dataset)
    words["explainer"] = _union((table.explainer, cli_values.get("explainer", ())))
    return words


def _union(lists: Iterable[Iterable[Reference]]) -> tuple[Reference, ...]:
    union: list[Reference] = []
    for references in lists:
        union += [reference for reference in references if reference not in union]
    return tuple(union)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _labelled(row: PaperRow, suite: Suite, registry: Registry) -> PaperRow:
    """Return the row with the labels of score rows."""
    kinds = ["explainer", "model"] if row.metric in suite.quantities else ["explainer", "model", "metric"]
    labels: dict[str, Any] = {
        kind: choose(kind, getattr(row, kind), registry).label for kind in kinds if getattr(row, kind)
    }
    return dataclasses.replace(row, **labels)
