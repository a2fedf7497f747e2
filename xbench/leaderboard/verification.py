"""Choose the cells of a submission that are computed again, and judge each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xbench.leaderboard.agreement import EXACT, EXACT_SHARE, SHARE, disagreement, is_measured, same_machine
from xbench.leaderboard.records import Submission
from xbench.provenance import digest
from xbench.results.rows import RunHeader, ScoreRow


@dataclass(frozen=True)
class Verdict:
    """The result of computing a row again.

    Attributes:
        row: The row as handed in.
        again: The row as computed here; None where it could not be computed.
        fault: Disagreement, or why it could not be computed; empty if it agrees.
    """

    row: ScoreRow
    again: ScoreRow | None
    fault: str

    def __str__(self) -> str:
        row = self.row
        cell = f"{row.metric} of {row.resolved} ({row.sign}) on {row.dataset} / {row.model}"
        if self.again is None:
            return f"not computed  {cell}: {self.fault}"
        if self.fault:
            return f"DIFFERS       {cell}: {self.fault}"
        return f"agrees        {cell}: {_words(row.value)} and {_words(self.again.value)}"


def _words(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.6g}"


def sample(submission: Submission, count: int, seed: int) -> list[ScoreRow]:
    """Choose rows to be computed again, by a hash of the seed: who does not know the seed can't foresee which.

    Rows that failed and rows that measure the machine are never chosen.

    Args:
        submission: The submission to be verified.
        count: How many rows; all of them if there are fewer.
        seed: Seed of the choice.
    """
    cards = submission.run.cards
    good = [entry.row for entry in submission.entries if entry.row.status == "ok"]
    rows = [row for row in good if not is_measured(cards[row.card])]
    return sorted(rows, key=lambda row: digest([seed, row.fingerprint, row.sign, row.explainer]))[:count]


def verdict(row: ScoreRow, again: ScoreRow, exact: bool) -> Verdict:
    """Compare a row with what was computed here.

    Args:
        row: The row as handed in.
        again: The row as computed here.
        exact: Whether the submission comes from the same kind of machine and the same libraries.
    """
    return Verdict(row, again, disagreement(row, again, exact))


def comparability(run: RunHeader, here: dict[str, object]) -> tuple[bool, str]:
    """Return whether the environments promise the same bits, and the tolerance that follows, in words."""
    exact = same_machine(run.environment, here)
    if exact:
        return True, (
            f"the same machine and libraries: values must agree to {EXACT:g} of themselves or {EXACT_SHARE:.2%} of the "
            "width of their interval"
        )
    return False, (
        f"another machine or other libraries: values must agree to {SHARE:.0%} of the width of their interval "
        "(training drifts with rounding)"
    )
