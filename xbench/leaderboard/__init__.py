"""Check submissions, pool them over seeds and rank them: a leaderboard, made from result files alone."""

from xbench.leaderboard.adding import add_run, submission_of
from xbench.leaderboard.checks import Checked, Known, check_files
from xbench.leaderboard.findings import Finding, refuse
from xbench.leaderboard.reading import read_board, read_submission, submission_files
from xbench.leaderboard.records import RUNS, Entry, Submission, SuiteKey
from xbench.leaderboard.standings import PairDifference, RankedGroup, Standing, SuiteSetting, Variant, ranked_groups
from xbench.leaderboard.tables import COLUMNS, INDEX, build, derived, reproduce, stale
from xbench.leaderboard.thinning import KEPT, Thinned
from xbench.leaderboard.verification import Verdict, comparability, sample, verdict

__all__ = [
    "COLUMNS",
    "INDEX",
    "KEPT",
    "RUNS",
    "Checked",
    "Entry",
    "Finding",
    "Known",
    "PairDifference",
    "RankedGroup",
    "Standing",
    "Submission",
    "SuiteKey",
    "SuiteSetting",
    "Thinned",
    "Variant",
    "Verdict",
    "add_run",
    "build",
    "check_files",
    "comparability",
    "derived",
    "ranked_groups",
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
