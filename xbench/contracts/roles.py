"""What a curve shows; a module of its own, for those who read curves without torch."""

from __future__ import annotations

from typing import Literal

CurveRole = Literal["most_first", "least_first", "other"]
"""What a curve shows: pixels removed from the most important on, from the least important on, or anything else."""
