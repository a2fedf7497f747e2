"""The leaderboard: submissions as JSON lines, checked, pooled over seeds, ranked; from result files alone."""

from xbench.leaderboard.adding import add_run, submission_of
from xbench.leaderboard.checks import Checked, Known, check_files
from xbench.leaderboard.findings import Finding, refuse
from xbench.leaderboard.reading import read_board, read_submission, submission_files
from xbench.leaderboard.records import RUNS, Entry, Submission, SuiteKey
from xbench.leaderboard.standings import Difference, Field, Setting, Standing, Variant, fields
from xbench.leaderboard.tables import COLUMNS, INDEX, build, derived, reproduce, stale
from xbench.leaderboard.thinning import KEPT, Thinned
from xbench.leaderboard.verification import Verdict, comparability, sample, verdict

__all__ = [
    "COLUMNS",
    "INDEX",
    "KEPT",
    "RUNS",
    "Checked",
    "Difference",
    "Entry",
    "Field",
    "Finding",
    "Known",
    "Setting",
    "Standing",
    "Submission",
    "SuiteKey",
    "Thinned",
    "Variant",
    "Verdict",
    "add_run",
    "build",
    "check_files",
    "comparability",
    "derived",
    "fields",
    "read_board",
    "read_submission",
    "refuse",
    "reproduce",
    "sample",
    "stale",
    "submission_files",
    "submission_of",
    "verdict",
]
