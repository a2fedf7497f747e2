"""The suites that come with xbench: one per paper, a quick one, and one with everything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xbench import SuiteSpec, hookimpl

_HERE = Path(__file__).resolve().parent
# A wheel carries the files beside this module; in a checkout they are at its root.
FOLDER = _HERE / "suites" if (_HERE / "suites").is_dir() else _HERE.parents[1] / "benchmarks" / "suites"


@hookimpl
def xbench_suites() -> Iterable[SuiteSpec]:
    """Return the suites `brocki2022`, `full`, `gu2020`, `katzmann2021`, `phantoms` and `quick`."""
    return [SuiteSpec.of(path) for path in sorted(FOLDER.glob("*.toml"))]
