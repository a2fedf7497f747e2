"""Derive the CSV files of a leaderboard, byte for byte, from its submissions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xbench.leaderboard.adding import locked
from xbench.leaderboard.checks import check_files
from xbench.leaderboard.findings import refuse
from xbench.leaderboard.reading import submission_files
from xbench.leaderboard.records import Submission, SuiteKey
from xbench.leaderboard.standings import RankedGroup, Standing, ranked_groups
from xbench.results.cells import csv_text
from xbench.results.rows import ScoreRow
from xbench.runtime.files import write_text

INDEX = "index.csv"
_DIGITS = 16  # of a fingerprint in a table

COLUMNS: dict[str, Any] = {
    "suite": str,
    "version": str,
    "dataset": str,
    "split": str,
    "model": str,
    "subject": str,
    "target": str,
    "metric": str,
    "sign": str,
    "higher_is_better": bool,
    "explainer": str,
    "control": bool,
    "value": float,
    "seed_sd": float,
    "ci_low": float,
    "ci_high": float,
    "rank": int,
    "rank_high": int,
    "rank_set": tuple[str, ...],
    "same_as": str,
    "n": int,
    "groups": int,
    "seeds": tuple[str, ...],
    "submitters": tuple[str, ...],
    "seconds": float,
    "warning": str,
    "card": str,
    "dataset_fingerprint": str,
    "model_fingerprints": tuple[str, ...],
    "fingerprints": tuple[str, ...],
    "xbench_versions": tuple[str, ...],
    "devices": tuple[str, ...],
    "precisions": tuple[str, ...],
    "submissions": tuple[str, ...],
    "reproduce": str,
}
"""Columns of a suite's table, with their types; lists are joined by "|", those a seed apart in the order of `seeds`."""

_INDEX_COLUMNS: dict[str, Any] = {
    "suite": str,
    "version": str,
    "fingerprint": str,
    "table": str,
    "submissions": int,
    "seeds": tuple[str, ...],
    "submitters": tuple[str, ...],
    "datasets": int,
    "models": int,
    "explainers": int,
    "metrics": int,
    "rows": int,
    "failed": int,
    "last_submitted": str,
}


def derived(submissions: Sequence[Submission]) -> dict[str, str]:
    """Return file name -> text of every table: one per suite and version, and the index of them."""
    suites: dict[SuiteKey, list[Submission]] = {}
    for submission in submissions:
        suites.setdefault(submission.suite, []).append(submission)
    texts, index = {}, []
    for suite in sorted(suites):
        groups = ranked_groups(suites[suite])
        rows = [_record(group, standing) for group in groups for standing in group.standings]
        texts[f"{suite.label}.csv"] = csv_text(COLUMNS, rows)
        index.append(_index_record(suite, suites[suite], rows))
    return {INDEX: csv_text(_INDEX_COLUMNS, index)} | texts


def build(board: Path) -> list[Path]:
    """Derive the tables of a leaderboard; the table of a suite that has no submission any more is removed.

    Returns:
        The files.

    Raises:
        UserError: It is not a leaderboard, or a submission is not in order.
    """
    submission_files(board)  # a folder that is none is not made one
    with locked(board):
        checked = check_files(submission_files(board), {})
        refuse(checked.findings)
        texts = derived(checked.submissions)
        gone = set(_tables(board)) - texts.keys()
        for name, text in texts.items():
            write_text(board / name, text)
        for name in gone:
            (board / name).unlink(missing_ok=True)
    return [board / name for name in texts]


def stale(board: Path, submissions: Sequence[Submission]) -> list[str]:
    """Return the names of the tables of a leaderboard that are not what its submissions give."""
    texts = derived(submissions)
    wrong = [name for name, text in texts.items() if _bytes(board / name) != text.encode()]
    return sorted({*wrong, *(name for name in _tables(board) if name not in texts)})


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _tables(board: Path) -> list[str]:
    """Return the files that were derived before: those that begin as a suite's table does."""
    first = csv_text(COLUMNS, []).encode()
    return [path.name for path in board.glob("*-v*.csv") if _bytes(path).startswith(first)]


def _record(group: RankedGroup, standing: Standing) -> dict[str, Any]:
    setting, rows, pooled = group.setting, standing.rows, standing.pooled
    shared = {name: getattr(setting, name) for name in COLUMNS if hasattr(setting, name)}
    return shared | {
        "suite": setting.suite.name,
        "version": setting.suite.version,
        "explainer": standing.explainer,
        "resolved": standing.variant.resolved,
        "control": standing.control,
        "value": pooled.value,
        "seed_sd": pooled.seed_sd,
        "ci_low": pooled.low,
        "ci_high": pooled.high,
        "rank": standing.rank,
        "rank_high": standing.rank_high,
        "rank_set": standing.rank_set,
        "same_as": standing.same_as,
        "n": min(row.n for row in rows),
        "groups": min(row.groups for row in rows),
        "seeds": tuple(str(row.seed) for row in rows),
        "submitters": _distinct(submission.submitter for submission in standing.submissions),
        "seconds": float(f"{sum(map(_seconds, rows)) / len(rows):.4g}"),
        "warning": "; ".join(_distinct(row.warning for row in rows if row.warning)),
        "model_fingerprints": tuple(row.model_fingerprint[:_DIGITS] for row in rows),
        "fingerprints": tuple(row.fingerprint[:_DIGITS] for row in rows),
        "xbench_versions": _distinct(row.xbench_version for row in rows),
        "devices": _distinct(row.device for row in rows),
        "precisions": _distinct(row.precision for row in rows),
        "submissions": tuple(submission.name for submission in standing.submissions),
        "reproduce": reproduce(standing.submissions),
    }


def reproduce(submissions: Iterable[Submission]) -> str:
    """Return the commands of these runs for a shell. Words are quoted, so that a stranger's words execute nothing."""
    return " && ".join(_distinct(shlex.join(submission.run.command) for submission in submissions))


def _seconds(row: ScoreRow) -> float:
    return row.seconds_fit + row.seconds_maps + row.seconds_metric


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _index_record(suite: SuiteKey, members: Sequence[Submission], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    entries = [entry.row for submission in members for entry in submission.entries]
    counts = {f"{name}s": len({row[name] for row in rows}) for name in ("dataset", "model", "metric")}
    return counts | {
        "explainers": len({row["resolved"] for row in rows}),
        "suite": suite.name,
        "version": suite.version,
        "fingerprint": suite.fingerprint,
        "table": f"{suite.label}.csv",
        "submissions": len(members),
        "seeds": tuple(map(str, sorted({submission.seed for submission in members}))),
        "submitters": tuple(sorted({submission.submitter for submission in members})),
        "rows": len(rows),
        "failed": sum(row.status != "ok" for row in entries),
        "last_submitted": max(members, key=lambda submission: submission.order).submitted,
    }
