"""Write data as scripts, since a page opened from `file://` may load a script but not fetch a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_DIGITS = 6  # significant, of a number on the page
# A script file needs none of these escapes; pasted into a page it would.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def data_script(name: str, data: Any) -> str:
    """Return a script that hands `data` to the page under `name`, as `xbenchData("name", {...});`."""
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, escape in _UNSAFE.items():
        text = text.replace(sign, escape)
    return f"xbenchData({json.dumps(name)}, {text});\n"


def plain(value: Any) -> Any:
    """Return `value` in JSON's terms: numbers to six significant digits, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return rounded(value)
    return value


def rounded(value: float) -> float | int | None:
    """Round to six significant digits, whole numbers without a point; None for what is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short
