"""When two computations of one cell agree: of the same fingerprint in two submissions, or computed again here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xbench.results.rows import ScoreRow

EXACT = 1e-6
"""Relative: what the same machine and libraries may differ by."""

EXACT_SHARE = 1e-4
"""Of the 95 % interval's width, where that is more: the classifier's scoring copy (memory layout, batch) is the fastest
at the moment, so its logits may be rounded otherwise the next time, and the rest of a difference that cancels with
them."""

SHARE = 0.25
"""Of the 95 % interval's width: what other machines may differ by, where training drifts with rounding."""

_MACHINE = ("platform", "processor", "cores", "threads", "device", "gpu", "libraries", "xbench", "python")


def is_measured(card: Mapping[str, Any]) -> bool:
    """Whether a metric measures the machine (seconds, bytes): its card says `"measured": true`.

    Such a value is never the same twice, and no computation can be held against it.
    """
    return card.get("measured") is True


def same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two environments promise the same bits."""
    return all(one.get(key) == other.get(key) for key in _MACHINE)


def tolerance(row: ScoreRow, exact: bool) -> float:
    """How far another computation of this row may lie from it.

    Args:
        row: A row with an interval; of a submission and a recomputed one, the recomputed one: nobody's own interval
            widens what is forgiven.
        exact: Whether both come from the same kind of machine.
    """
    rounding = EXACT * max(abs(row.value), abs(row.ci_low), abs(row.ci_high))
    return max(rounding, (EXACT_SHARE if exact else SHARE) * (row.ci_high - row.ci_low))


def disagreement(theirs: ScoreRow, ours: ScoreRow, exact: bool, intervals: bool = True) -> str:
    """What differs by more than the tolerance, in words; empty for nothing.

    Args:
        theirs: To be judged.
        ours: To be judged by.
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
