"""The role of a curve. It has its own module, so that curves can be read without importing torch."""

from __future__ import annotations

from typing import Literal

CurveRole = Literal["most_first", "least_first", "other"]
"""Role of a curve: the most important pixels are removed first, the least important first, or anything else."""
