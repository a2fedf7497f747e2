"""Hand in a run: make a submission of its folder, check it, and add it to a leaderboard."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from xbench.comparison import Run, read_runs
from xbench.errors import UserError
from xbench.leaderboard.checks import Known, check_files
from xbench.leaderboard.findings import refuse
from xbench.leaderboard.records import (
    RUNS,
    Entry,
    Submission,
    as_submitted,
    content_digest,
    lines_of,
    row_record,
    run_record,
)
from xbench.leaderboard.thinning import thinned
from xbench.results.replicates import REPLICATES
from xbench.results.rows import ScoreRow
from xbench.runtime.files import folder_beside, write_text

LOCK = ".lock"


def submission_of(folder: Path, submitter: str, note: str = "") -> Submission:
    """Make the submission of a run folder, dated now.

    Raises:
        UserError: It is not a run folder, or a row lacks its replicates.
    """
    (run,) = read_runs([folder])
    if not run.rows:
        raise UserError(f"run {folder} has no row", "a run scores at least one explainer")
    entries = tuple(_entry(row, run, folder) for row in run.rows)
    header = as_submitted(run.header)
    content = content_digest(run_record(header), map(row_record, entries))
    submitted = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Submission(content, submitter, submitted, note, header, entries)


def _entry(row: ScoreRow, run: Run, folder: Path) -> Entry:
    if row.status != "ok":
        return Entry(row, None, "")
    series = run.replicates.get(row.fingerprint)
    if series is None:
        raise UserError(
            f"{folder} holds no bootstrap replicates of {row.metric} of {row.explainer} ({REPLICATES})",
            "run the same line again (all is cached) with this version",
        )
    return Entry(row, thinned(series.values), series.sampling)


def add_run(folder: Path, board: Path, submitter: str, note: str = "", known: Known | None = None) -> Path:
    """Check a run and hand it in as one more file, whole or not at all. Two processes may add at the same time.

    Args:
        folder: Folder of the run.
        board: Folder of the leaderboard; made if it is not there.
        submitter: Name to be shown.
        note: Note to be kept beside the name.
        known: Name and version of each suite installed here -> its fingerprint.

    Returns:
        The file.

    Raises:
        UserError: It is not a run folder, was handed in before, or is not in order; all that is wrong is listed.
    """
    submission = submission_of(folder, submitter, note)
    with locked(board):
        (board / RUNS).mkdir(exist_ok=True)
        others = sorted((board / RUNS).glob("*.jsonl"))
        target = board / RUNS / submission.name
        if target in others:
            raise UserError(f"run {folder} was handed in before: {target}", "nothing was changed")
        with folder_beside(target) as hidden:  # under its own name, which the check looks at
            partial = hidden / submission.name
            write_text(partial, "".join(f"{text}\n" for text in lines_of(submission)))
            findings = check_files([partial], known or {}, others).findings
            refuse(dataclasses.replace(finding, file=target.name) for finding in findings)
            partial.replace(target)
    return target


@contextmanager
def locked(board: Path) -> Iterator[None]:
    """Keep others from adding to the leaderboard and from deriving its tables inside the block.

    The leaderboard's folder is made if it is not there.

    Raises:
        UserError: The folder can't be written to.
    """
    try:
        board.mkdir(parents=True, exist_ok=True)
        with FileLock(board / LOCK):
            yield
    except OSError as error:
        raise UserError(f"leaderboard {board} can't be written: {error.strerror or error}", "name another") from error
