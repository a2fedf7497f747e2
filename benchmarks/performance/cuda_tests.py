"""The tests that need an NVIDIA GPU, counted.

python benchmarks/performance/cuda_tests.py [--json FILE]

They lie in tests/gpu, beside this folder's parent: a copy of the sources has them, a wheel has not. Which xbench they
test is which is installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import measuring

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "gpu"


class Outcomes:
    """What became of each test, for pytest to report to."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test, or note why it failed or was skipped."""
        if report.failed:
            self.failed.append(f"{report.nodeid} ({report.when})")
        elif report.skipped:
            self.skipped.append(str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr))
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: Any) -> None:
        """A module that can't be imported has failed."""
        if report.failed:
            self.failed.append(f"{report.nodeid} (collection)")
        elif report.skipped:
            self.skipped.append(str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr))


def main() -> None:
    """Run them; exits with pytest's code only where it could not run them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not TESTS.is_dir():
        measuring.write({"absent": f"there is no folder {TESTS.relative_to(ROOT)} here"}, options.json)
        return
    import pytest

    outcomes = Outcomes()
    code = pytest.main(["-m", "gpu", "-p", "no:cacheprovider", f"--rootdir={ROOT}", str(TESTS)], plugins=[outcomes])
    measuring.write(vars(outcomes), options.json)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(int(code))


if __name__ == "__main__":
    main()
