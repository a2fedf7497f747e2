"""Check submissions: each by itself, and each against the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xbench.leaderboard.agreement import disagreement, is_measured, same_machine
from xbench.leaderboard.consistency import inner_faults
from xbench.leaderboard.findings import Finding, quoted
from xbench.leaderboard.reading import inspect
from xbench.leaderboard.records import CUSTOM, Submission
from xbench.leaderboard.rules import header_faults, row_faults
from xbench.results.rows import ScoreRow

Known = Mapping[tuple[str, str], str]
"""Name and version of the suites installed here -> fingerprint."""


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        submissions: The submissions in order, by the names of their files.
        findings: Faults of the others.
        notes: Notes on checks that were not possible here, and other notes for the reader.
    """

    submissions: tuple[Submission, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def check_files(paths: Sequence[Path], known: Known, others: Sequence[Path] = ()) -> Checked:
    """Check files one by one, and against each other.

    Args:
        paths: Files to be checked.
        known: The suites installed here.
        others: Other files of the same leaderboard, taken to be in order; `paths` must not contradict them.
    """
    findings: list[Finding] = []
    good: list[tuple[Path, Submission]] = []
    for path in paths:
        submission, of_file = inspect(path)
        if submission is not None and not of_file:
            of_file = list(_findings(path, submission, known))
        findings += of_file
        if submission is not None and not of_file:
            good.append((path, submission))
    context = [(path, submission) for path, submission in map(_silently, others) if submission is not None]
    across = list(_across(context, good))
    notes = dict.fromkeys(
        f"suite {suite.name} version {suite.version} is not installed here: its fingerprint was not compared"
        for _, submission in good
        if (suite := submission.suite)[:2] not in known and not suite.name.startswith(CUSTOM)
    )
    wrong = {finding.file for finding in across}
    whole = tuple(submission for path, submission in good if str(path) not in wrong)
    return Checked(whole, (*findings, *across), tuple(notes))


def _silently(path: Path) -> tuple[Path, Submission | None]:
    return path, inspect(path)[0]


def _findings(path: Path, submission: Submission, known: Known) -> Iterator[Finding]:
    file = str(path)
    for field, message in (*header_faults(submission), *_suite_faults(submission, known)):
        yield Finding(file, message, 1, field)
    by_row = [(index, fault) for index, entry in enumerate(submission.entries) for fault in row_faults(entry)]
    for index, (field, message) in [*by_row, *inner_faults(submission)]:
        yield Finding(file, message, index + 2, field)
    if path.name != submission.name:
        yield Finding(file, f"a submission of this content is called {submission.name}")


def _suite_faults(submission: Submission, known: Known) -> Iterator[tuple[str, str]]:
    suite = submission.suite
    installed = known.get((suite.name, suite.version))
    if installed is not None and suite.fingerprint != installed:
        message = f"{quoted(suite.fingerprint)} is not that of the installed suite {suite.label}, {installed}"
        yield "run.suite.fingerprint", message
    changed = submission.run.suite.get("changed")
    if isinstance(changed, Mapping) and changed.get("limit"):
        yield "run.suite.changed.limit", f"only {changed['limit']} samples were scored: --limit is for trials"


# --- against each other ----------------------------------------------------------------------------------------------


def _across(
    context: Iterable[tuple[Path, Submission]], checked: Iterable[tuple[Path, Submission]]
) -> Iterator[Finding]:
    """Yield findings of `checked` only: of two that contradict each other, the one handed in later is wrong."""
    suites: dict[tuple[str, str], tuple[str, str]] = {}
    rows: dict[str, tuple[str, int, ScoreRow, Submission]] = {}
    for path, submission in [*context, *sorted(checked, key=lambda pair: pair[1].order)]:
        yield from _suite_conflict(path, submission, suites)
        yield from _row_conflicts(path, submission, rows)


def _suite_conflict(
    path: Path, submission: Submission, suites: dict[tuple[str, str], tuple[str, str]]
) -> Iterator[Finding]:
    suite = submission.suite
    fingerprint, where = suites.setdefault((suite.name, suite.version), (suite.fingerprint, path.name))
    if fingerprint != suite.fingerprint:
        message = f"suite {suite.label} has another fingerprint in {where}: raise the version of a changed suite"
        yield Finding(str(path), message, 1, "run.suite.fingerprint")


def _row_conflicts(
    path: Path, submission: Submission, rows: dict[str, tuple[str, int, ScoreRow, Submission]]
) -> Iterator[Finding]:
    for number, entry in enumerate(submission.entries, 2):
        row = entry.row
        if row.status != "ok" or is_measured(submission.run.cards[row.card]):
            continue
        name, line, first, earlier = rows.setdefault(row.fingerprint, (path.name, number, row, submission))
        if name == path.name:
            continue
        exact = same_machine(submission.run.environment, earlier.run.environment)
        words = disagreement(row, first, exact, intervals=False)
        if words:
            yield Finding(str(path), f"{words}, which {name}, line {line} has of this fingerprint", number, "value")
