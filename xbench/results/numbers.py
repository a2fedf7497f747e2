"""How a number is written for a reader."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Three decimals; an exponent where they would hide the number; a dash where it is undefined."""
    if value is None or math.isnan(value):
        return "–"
    if value and not 0.0005 <= abs(value) < 10000:
        return f"{value:.2e}"
    return f"{value:.3f}"
