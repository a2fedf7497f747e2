"""Make bootstrap replicates small enough for a repository: the first of a run, each in one byte."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

KEPT = 256
"""How many of a run's replicates (2,000, say) are kept: a standard error of a difference is then known to 4.4 %."""

_UNDEFINED = 255
_STEPS = 254
_KEYS = ("high", "low", "values")


@dataclass(frozen=True)
class Thinned:
    """A row's value on the first resamples of its run.

    A submission keeps these and no table of pairs: they grow with the explainers, not with their pairs, and they pair
    rows of different submissions too, where these were resampled alike.

    Attributes:
        low: Smallest value.
        high: Largest value.
        codes: uint8 (B,), B at most `KEPT`: 0 is `low`, 254 `high`, 255 undefined (NaN).
    """

    low: float
    high: float
    codes: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The values to within 1/508 of their range, float64 (B,); NaN where undefined."""
        values = self.low + self.codes.astype(np.float64) * ((self.high - self.low) / _STEPS)
        return np.where(self.codes == _UNDEFINED, np.nan, values)

    @property
    def step(self) -> float:
        """Difference between two neighbouring codes."""
        return (self.high - self.low) / _STEPS


def thinned(replicates: np.ndarray) -> Thinned:
    """Thin replicates (B,) to the first `KEPT`."""
    first = np.asarray(replicates, dtype=np.float64)[:KEPT]
    defined = first[np.isfinite(first)]
    if not len(defined):
        return Thinned(0.0, 0.0, np.full(len(first), _UNDEFINED, dtype=np.uint8))
    low, high = float(defined.min()), float(defined.max())
    scaled = np.zeros(len(first)) if high == low else (np.nan_to_num(first, nan=low) - low) * (_STEPS / (high - low))
    codes = np.where(np.isfinite(first), scaled.round().clip(0, _STEPS), _UNDEFINED)
    return Thinned(low, high, codes.astype(np.uint8))


def as_record(series: Thinned) -> dict[str, Any]:
    """Return thinned replicates as JSON, with the codes in base 64."""
    return {"low": series.low, "high": series.high, "values": base64.b64encode(series.codes.tobytes()).decode()}


def from_record(record: Any) -> Thinned:
    """Read thinned replicates; the inverse of `as_record`.

    Raises:
        ValueError: It is something else; the message says what.
    """
    if not isinstance(record, Mapping) or sorted(record) != list(_KEYS):
        raise ValueError(f"expected an object of {', '.join(_KEYS)}")
    low, high, text = record["low"], record["high"], record["values"]
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}, not a finite number")
    if low > high:
        raise ValueError(f"low {low!r} is above high {high!r}")
    if not isinstance(text, str):
        raise ValueError("values is no text")
    try:
        codes = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"values is not base 64: {error}") from None
    if not 2 <= len(codes) <= KEPT:
        raise ValueError(f"{len(codes)} replicates, expected 2 to {KEPT}")
    return Thinned(float(low), float(high), codes)
