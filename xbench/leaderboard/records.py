"""A submission: a run's header and rows, who handed it in, and the JSON lines it is kept in."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from xbench.leaderboard.thinning import Thinned, as_record
from xbench.provenance import digest
from xbench.results.rows import SCHEMA, Record, RunHeader, ScoreRow

RUNS = "runs"
"""Folder of a leaderboard that holds the submissions."""

SUITE_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
SUITE_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")
CUSTOM = "custom-"
"""Beginning of the suite name of a run without a suite."""

# What does not change a number, or (the seed) is to be aggregated.
_NOT_OF_THE_RUN = ("out", "cache", "seed", "device", "batch_size", "workers", "model_view", "allow_pickle")
_FOLDERS = ("--out", "--cache")


class SuiteKey(NamedTuple):
    """The suite that a run carried out.

    Attributes:
        name: Name of the suite; `custom-<hash of the configuration>` for a run without one.
        version: Version of the suite.
        fingerprint: Hash of what determines its cells.
    """

    name: str
    version: str
    fingerprint: str

    @property
    def label(self) -> str:
        """Name and version, as the files bear them."""
        return f"{self.name}-v{self.version}"


@dataclass(frozen=True)
class Entry:
    """A row of a submission.

    Attributes:
        row: The row as the run wrote it.
        replicates: The first replicates of its bootstrap; None where the row has no value.
        sampling: `xbench.results.replicates.sampling` of its samples, which paired rows share; empty without
            replicates.
    """

    row: ScoreRow
    replicates: Thinned | None
    sampling: str


@dataclass(frozen=True)
class Submission:
    """A run handed in: one file of a leaderboard.

    Attributes:
        digest: `content_digest` of its run and rows.
        submitter: Who handed it in, in their own words.
        submitted: When it was handed in, ISO 8601 with the time zone.
        note: Note of the submitter.
        run: Header of the run, with the suite filled in and without the folders where the run was kept.
        entries: One entry per row of the run, in its order.
    """

    digest: str
    submitter: str
    submitted: str
    note: str
    run: RunHeader
    entries: tuple[Entry, ...]

    @property
    def suite(self) -> SuiteKey:
        """The suite that its run carried out."""
        return suite_of(self.run)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.entries[0].row.seed

    @property
    def name(self) -> str:
        """Name of its file. No word in it is the submitter's choice.

        Suite and version must match `SUITE_NAME` and `SUITE_VERSION`.
        """
        return f"{self.suite.label}-s{self.seed}-{self.digest[:12]}.jsonl"

    @property
    def order(self) -> tuple[datetime.datetime, str]:
        """Key to sort by: later submissions are greater."""
        return datetime.datetime.fromisoformat(self.submitted), self.digest


def suite_of(run: RunHeader) -> SuiteKey:
    """Return the suite of a run; without one, a suite of its own made of its configuration without the seed.

    Only runs of the same suite are ranked together, so a run without one meets nothing but its own repetitions.
    """
    if run.suite:
        return SuiteKey(*(str(run.suite.get(key, "")) for key in ("name", "version", "fingerprint")))
    fingerprint = digest(plain({key: value for key, value in run.config.items() if key not in _NOT_OF_THE_RUN}))
    return SuiteKey(f"{CUSTOM}{fingerprint[:12]}", "1", fingerprint)


def as_submitted(run: RunHeader) -> RunHeader:
    """Return the header as it is handed in: with a suite, and without the folders of the submitter's machine."""
    suite = run.suite or suite_of(run)._asdict()
    config = {key: value for key, value in run.config.items() if key not in ("out", "cache")}
    return dataclasses.replace(run, suite=suite, config=config, command=_without_folders(run.command))


def _without_folders(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word not in _FOLDERS and not word.startswith(tuple(f"{option}=" for option in _FOLDERS)):
            kept.append(word)
        skip = not skip and word in _FOLDERS
    return kept


# --- JSON ------------------------------------------------------------------------------------------------------------


def line(value: Any) -> str:
    """Return deterministic JSON: keys sorted, floats to the last bit, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Return `value` in JSON's terms: tuples become lists, paths text, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def row_record(entry: Entry) -> Record:
    """Return one row as JSON: all of `ScoreRow`, and the replicates."""
    record: Record = plain(dataclasses.asdict(entry.row))
    series = None if entry.replicates is None else as_record(entry.replicates)
    return record | {"replicates": series, "sampling": entry.sampling}


def run_record(run: RunHeader) -> Record:
    """Return the run's header as JSON."""
    record: Record = plain(dataclasses.asdict(run))
    return record


def content_digest(run: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of a run and its rows, which does not depend on who hands them in or when."""
    return digest([run, *rows])


def lines_of(submission: Submission) -> list[str]:
    """Return the lines of a submission's file, its header first."""
    header = {
        "schema": SCHEMA,
        "submitter": submission.submitter,
        "submitted": submission.submitted,
        "note": submission.note,
        "rows": len(submission.entries),
        "digest": submission.digest,
        "run": run_record(submission.run),
    }
    return [line(header), *(line(row_record(entry)) for entry in submission.entries)]
