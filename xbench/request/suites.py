"""Suites: TOML files that name the cells of whole tables, and the files of the paper's own numbers."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.contracts.options import Field, suggestion
from xbench.errors import UserError
from xbench.provenance import digest
from xbench.registry.entries import Registry
from xbench.request.config import CELL_LISTS, RunConfig, ScoringConfig, TableConfig, read_toml
from xbench.request.paper_table import Paper, check_keys, printed_rows, read_paper, read_words

if TYPE_CHECKING:
    from xbench.results.paper import PaperRow

_OF_TABLES = tuple(TableConfig.model_fields)
_OF_SUITES = tuple(ScoringConfig.model_fields)


class SuiteTable(TableConfig):
    """One table, which scores all its explainers with all its metrics, on all its models and datasets."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="lower case, digits, - _ .")

    @property
    def cells(self) -> int:
        """Number of cells that the table names, without controls and with those that will not fit; 0 for `all`."""
        lists = [getattr(self, word) for word in CELL_LISTS]
        if any("all" in references for references in lists):
            return 0
        return math.prod(map(len, lists)) * (2 if self.sign == "both" else 1)


class Suite(ScoringConfig):
    """A suite. The order of its tables and of their lists has no meaning."""

    name: str = Field(pattern=r"^[a-z][a-z0-9]*([-_][a-z0-9]+)*$", description="lower-case words joined by - or _")
    version: int = Field(ge=1, description="number, one higher after every change of the cells")
    summary: str = Field(min_length=1, description="one line")
    reference: str = Field("", description="the paper")
    differs: tuple[str, ...] = Field((), description="differences in protocol from the paper, a sentence for each")
    tables: tuple[SuiteTable, ...] = Field(min_length=1, description="the suite's tables")
    papers: tuple[Paper, ...] = Field((), description="the printed numbers of papers")
    path: Path = Field(description="file of the suite")

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the version and of everything that determines the cells, without comments, order and descriptions.

        References count as written: `gradient` and `gradient:score=class` give the same cells but different
        fingerprints.
        """
        tables = {
            table.name: {
                word: sorted(map(_canonical, getattr(table, word))) if word in CELL_LISTS else getattr(table, word)
                for word in _OF_TABLES
            }
            for table in self.tables
        }
        return digest({"version": self.version, "tables": tables} | {word: getattr(self, word) for word in _OF_SUITES})

    @property
    def quantities(self) -> set[str]:
        """Quantities in words that papers measured and no metric here does."""
        targets = [target for paper in self.papers for target in (paper, *paper.column, *paper.rows.values())]
        return {target.quantity for target in targets if target.quantity}


def _canonical(reference: str | Mapping[str, Any]) -> str:
    return json.dumps(reference, sort_keys=True)


def read_suite(path: Path) -> Suite:
    """Read a suite:

        name = "mine"
        version = 1
        summary = "my two explainers by fidelity"
        model = "convnet"                  # shared by all tables
        dataset = "lidc-phantom"

        [[table]]
        name = "fidelity"
        explainer = ["gradient", "vinet"]
        metric = "fidelity"

        [[paper]]                          # printed numbers, if there are any
        table = "fidelity"
        citation = "Someone et al. 2026, Table 2"
        file = "table2.csv"
        name = "Method"                    # a column of the file
        rows = { "Grad" = "gradient" }     # the paper's name -> xbench's
        column = [{ value = "F x 10", scale = 0.1 }]

    Raises:
        UserError: The file can't be read, a key is unknown, missing or wrong, or two tables have the same name.
    """  # noqa: D415
    raw = read_toml(path, "suite")
    where = f"suite {path}"
    shared = {word: raw.pop(word) for word in _OF_TABLES if word in raw}
    tables, papers = (_blocks(raw.pop(word, []), where, f"[[{word}]]") for word in ("table", "paper"))
    if not tables:
        raise UserError(f"{where} has no table", "a [[table]] with name, explainer, metric, model and dataset")
    _check_top(raw, where)
    parts = {
        "tables": [_table(shared | table, f"{where}, table {table.get('name', number)}") for number, table in tables],
        "papers": [read_paper(paper, f"{where}, paper {paper.get('citation', number)}") for number, paper in papers],
        "path": path.absolute(),
    }
    suite = read_words(Suite, raw | parts, where)
    _check_names(suite, where)
    return suite


def _check_top(words: Mapping[str, Any], where: str) -> None:
    known = {*Suite.model_fields, *_OF_TABLES, "table", "paper"} - {"tables", "papers", "path"}
    for key in words:
        if key not in known:
            theirs = key.replace("-", "_") in RunConfig.model_fields
            hint = "it can only be set on the command line" if theirs else suggestion(key, known)
            raise UserError(f"{where} has no key {key!r}", hint)


def _blocks(value: Any, where: str, head: str) -> list[tuple[int, dict[str, Any]]]:
    if not isinstance(value, list) or not all(isinstance(block, dict) for block in value):
        raise UserError(f"{where}, {head} is not a list of tables", f"write {head} above each table")
    return list(enumerate(value, 1))


def _table(words: dict[str, Any], where: str) -> SuiteTable:
    check_keys(words, SuiteTable, where)
    for word in CELL_LISTS:
        if not words.get(word):
            raise UserError(f"{where} names no {word}", f"{word} = [...] in the table, or above all tables")
    return read_words(SuiteTable, words, where)


def _check_names(suite: Suite, where: str) -> None:
    names = [table.name for table in suite.tables]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: two tables are named {name!r}", "give each its own name")
    for paper in suite.papers:
        if paper.table not in names:
            hint = suggestion(paper.table, names)
            raise UserError(f"{where}, paper {paper.citation}: there is no table {paper.table!r}", hint)


def paper_rows(suite: Suite) -> list[PaperRow]:
    """Return the paper's numbers in xbench's unit, with references as the suite writes them.

    Raises:
        UserError: A file is missing, or does not fit the suite's description of it.
    """
    tables = {table.name: table for table in suite.tables}
    return [row for paper in suite.papers for row in printed_rows(paper, tables[paper.table], suite.path.parent)]


def find_suite(wanted: str, registry: Registry) -> Suite:
    """Return the suite with this name or in this file. A path ends with ".toml" or contains a separator.

    Raises:
        UserError: There is no such suite, or its file is wrong.
    """
    if wanted.endswith(".toml") or "/" in wanted or os.sep in wanted:
        return read_suite(Path(wanted))
    entry = registry.get("suite", wanted)
    suite = read_suite(entry.spec.load())
    if suite.name != wanted:
        raise UserError(f"{entry.owner}: its file {suite.path} calls it {suite.name!r}", "one of the two is wrong")
    return suite
