"""Keep the numbers of a paper beside those of a run, and compare the two orders of methods."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
from scipy.stats import rankdata

from xbench.errors import UserError
from xbench.results.cells import cell_value, csv_text
from xbench.results.rows import ScoreRow, read_text
from xbench.runtime.files import write_text
from xbench.statistics.correlation import spearman

PAPER_FILE = "paper.csv"
SUITE_FILE = "suite.toml"
"""In a run folder; only a run of a suite leaves them."""

_FEWEST = 3  # methods, below which an order says nothing


@dataclass(frozen=True)
class PaperRow:
    """One number in print.

    Attributes:
        table: Table of the suite that it belongs to.
        citation: Which table of which paper.
        method: The paper's name of the row.
        metric: Label of our metric; where nothing here measures it, in words what the paper did.
        explainer: Label of our explainer; empty where there is none.
        sign: "original" or "absolute"; may be empty for what nothing here measures.
        model: Label of our model; may be empty as well.
        value: The number, in the unit of our metric.
        ci_low: Lower end of its 95 % interval; NaN where none was printed.
        ci_high: Upper end of its 95 % interval; NaN where none was printed.
    """

    table: str
    citation: str
    method: str
    metric: str
    explainer: str
    sign: str
    model: str
    value: float
    ci_low: float
    ci_high: float


_TYPES = get_type_hints(PaperRow)


def write_paper_rows(rows: Iterable[PaperRow], path: Path) -> None:
    """Write rows as CSV, whole or not at all, as `write_scores` does."""
    write_text(path, csv_text(_TYPES, map(vars, rows)))


def read_paper_rows(path: Path) -> list[PaperRow]:
    """Read what `write_paper_rows` wrote.

    Raises:
        UserError: It can't be read, a column is missing or unknown, or a cell is wrong (file and line are named).
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if list(reader.fieldnames or []) != list(_TYPES):
        raise UserError(f"{path}, line 1: these are not the columns {', '.join(_TYPES)}", "is this a paper's table?")
    rows = []
    for record in reader:
        where = f"{path}, line {reader.line_num}"
        if None in record or None in record.values():
            raise UserError(f"{where}: not {len(_TYPES)} cells")
        rows.append(
            PaperRow(**{name: cell_value(record[name], kind, f"{where}, {name}") for name, kind in _TYPES.items()})
        )
    return rows


@dataclass(frozen=True)
class Pairing:
    """A number of the paper and ours.

    Attributes:
        paper: Number of the paper.
        ours: Our row; None where the run has no such row, or one without a value.
        paper_rank: Rank in the paper among the methods that both have, 1 is best, ties share their mean; else NaN.
        rank: Rank of ours among the same methods.
    """

    paper: PaperRow
    ours: ScoreRow | None
    paper_rank: float = math.nan
    rank: float = math.nan


@dataclass(frozen=True)
class BesidePaper:
    """A column of a printed table beside ours, on one dataset.

    Attributes:
        table: Table of the suite.
        citation: Which table of which paper.
        metric: Label of our metric, or in words what only the paper measured.
        sign: "original" or "absolute".
        dataset: Label of the dataset; empty for what nothing here measures.
        pairings: Pairings in the order of the paper.
        rho: Spearman's rho of the two orders of the methods that both have; NaN for fewer than three of them.
        methods: Number of methods that both have.
    """

    table: str
    citation: str
    metric: str
    sign: str
    dataset: str
    pairings: tuple[Pairing, ...]
    rho: float = math.nan
    methods: int = 0


def beside_paper(papers: Sequence[PaperRow], rows: Sequence[ScoreRow]) -> list[BesidePaper]:
    """Put each printed column beside the run's rows of the same labels, on every dataset of the run that has any.

    What the run does not measure comes once, without a dataset and without rows of ours.
    """
    columns: dict[tuple[str, str, str, str], list[PaperRow]] = {}
    for paper in papers:
        columns.setdefault((paper.table, paper.citation, paper.metric, paper.sign), []).append(paper)
    beside = []
    for key, members in columns.items():
        ours = [row for row in rows if (row.metric, row.sign) == key[2:]]
        datasets = dict.fromkeys(row.dataset for row in ours if _partners(members, row))
        beside += [_on(key, members, [row for row in ours if row.dataset == dataset], dataset) for dataset in datasets]
        if not datasets:
            beside.append(BesidePaper(*key, "", tuple(Pairing(paper, None) for paper in members)))
    return beside


def _partners(members: Sequence[PaperRow], row: ScoreRow) -> bool:
    return any(_answers(row, paper) for paper in members)


def _answers(row: ScoreRow, paper: PaperRow) -> bool:
    """Return whether a row measures what the paper did; a row of an explainer's own classifier fits any model."""
    return row.explainer == paper.explainer and (row.subject == "self" or row.model == paper.model)


def _on(key: tuple[str, str, str, str], members: list[PaperRow], rows: list[ScoreRow], dataset: str) -> BesidePaper:
    scored = [row for row in rows if not math.isnan(row.value)]
    pairings = [Pairing(paper, next((row for row in scored if _answers(row, paper)), None)) for paper in members]
    both = [index for index, pairing in enumerate(pairings) if pairing.ours is not None]
    if not both:
        return BesidePaper(*key, dataset, tuple(pairings))
    theirs, own = np.array([(pairings[index].paper.value, _value(pairings[index])) for index in both]).T
    direction = -1 if rows[0].higher_is_better else 1
    for index, paper_rank, rank in zip(both, rankdata(direction * theirs), rankdata(direction * own), strict=True):
        pairings[index] = dataclasses.replace(pairings[index], paper_rank=float(paper_rank), rank=float(rank))
    rho = float(spearman(theirs, own)) if len(both) >= _FEWEST else math.nan
    return BesidePaper(*key, dataset, tuple(pairings), rho, len(both))


def _value(pairing: Pairing) -> float:
    return pairing.ours.value if pairing.ours is not None else math.nan
