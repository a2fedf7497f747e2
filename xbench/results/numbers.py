"""Write numbers and ranks for a reader."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Return a number with three decimals, with an exponent where they would hide it, or a dash for NaN or None."""
    if value is None or math.isnan(value):
        return "–"
    if value and not 0.0005 <= abs(value) < 10000:
        return f"{value:.2e}"
    return f"{value:.3f}"


def rank_range(low: int, high: int) -> str:
    """Return the ranks from `low` to `high` as "1" or "2–4"; empty where `low` is 0, which means no rank."""
    if not low:
        return ""
    return str(low) if low == high else f"{low}–{high}"
