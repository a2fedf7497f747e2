"""Decide whether two computations of one cell agree: those of two submissions, or one and its repetition here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xbench.results.rows import ScoreRow

EXACT = 1e-6
"""Relative difference that the same machine and libraries may show."""

EXACT_SHARE = 1e-4
"""The same as a share of the 95 % interval's width, where that is more. The classifier's scoring copy (memory layout,
batch) is the one that is fastest at the moment. So its logits may be rounded otherwise the next time, and with them
what is left of a difference that nearly cancels."""

SHARE = 0.25
"""Difference that other machines may show, as a share of the 95 % interval's width: training drifts with rounding."""

_MACHINE = ("platform", "processor", "cores", "threads", "device", "gpu", "libraries", "xbench", "python")


def is_measured(card: Mapping[str, Any]) -> bool:
    """Return whether a metric measures the machine (seconds, bytes): its card says `"measured": true`.

    Such a value is never the same twice, so no computation is compared with it.
    """
    return card.get("measured") is True


def same_machine(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two environments promise the same bits."""
    return all(first.get(key) == second.get(key) for key in _MACHINE)


def tolerance(row: ScoreRow, exact: bool) -> float:
    """Return how far another computation of this row may lie from it.

    Args:
        row: A row with an interval. Of a submitted row and its repetition it is the repetition, so that nobody's own
            interval widens what is forgiven.
        exact: Whether both come from the same kind of machine.
    """
    rounding = EXACT * max(abs(row.value), abs(row.ci_low), abs(row.ci_high))
    return max(rounding, (EXACT_SHARE if exact else SHARE) * (row.ci_high - row.ci_low))


def disagreement(theirs: ScoreRow, ours: ScoreRow, exact: bool, intervals: bool = True) -> str:
    """Say what differs by more than the tolerance; empty if nothing does.

    Args:
        theirs: The row to be judged.
        ours: The row to judge it by.
        exact: As in `tolerance`.
        intervals: Whether the ends of the intervals are compared too (they depend on the number of resamples).
    """
    for name in ("n", "groups", "higher_is_better"):
        if getattr(theirs, name) != getattr(ours, name):
            return f"{name} {getattr(theirs, name)}, not {getattr(ours, name)}"
    allowed = tolerance(ours, exact)
    for name in ("value", "ci_low", "ci_high") if intervals else ("value",):
        mine, given = getattr(ours, name), getattr(theirs, name)
        if math.isnan(mine) != math.isnan(given) or abs(mine - given) > allowed:
            return f"{name} {given!r}, not {mine!r} (allowed: {allowed:.3g})"
    return ""
