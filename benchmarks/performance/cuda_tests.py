"""Run and count the tests that need an NVIDIA GPU.

python benchmarks/performance/cuda_tests.py [--json FILE]

The tests are in tests/gpu, beside this folder's parent. A copy of the sources has them, but a wheel does not. They test
the installed xbench.
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
    """The outcomes of the tests, as pytest reports them."""

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
        """Count a module that can't be imported as failed."""
        if report.failed:
            self.failed.append(f"{report.nodeid} (collection)")
        elif report.skipped:
            self.skipped.append(str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr))


def main() -> None:
    """Run the tests. Exit with pytest's code only if it could not run them."""
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
