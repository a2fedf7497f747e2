import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# A script as those that are run: it writes figures, then does what it is told.
SCRIPT = """
import json, os, signal, subprocess, sys, time
path, what = sys.argv[2], sys.argv[3:]
json.dump({"value": 3}, open(path, "w"))
if what[0] == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open(what[1], "w").write(str(child.pid))
    time.sleep(60)
if what[0] == "raises":
    raise ValueError("no such thing")
if what[0] == "dies":
    os.kill(os.getpid(), signal.SIGSEGV)
if what[0] == "says":
    json.dump({"value": what[1]}, open(path, "w"))
"""


@pytest.fixture
def checks(script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with its scripts in a folder of the test."""
    module = script("checks")
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


@pytest.fixture
def check(checks: ModuleType) -> Callable[..., Any]:
    """A check whose script does what it is told."""

    def make(
        *what: str,
        limit: int = 20,
        least: float = 0.0,
        needs: tuple[str, ...] = (),
        judge: Callable[..., Any] | None = None,
    ) -> Any:
        judge = judge or (lambda figures: checks.Verdict("passed", f"value {figures['value']}"))
        return checks.Check(what[0], "3", ("script.py", *what), judge, limit, needs, least)

    return make


def written(folder: Path) -> list[dict[str, Any]]:
    """The results that stand in the folder."""
    return json.loads((folder / "results.json").read_text())["checks"]


def run(checks: ModuleType, all_checks: Sequence[Any], folder: Path, seconds: float = 60.0) -> Any:
    return checks.run_checks(
        all_checks, seconds, folder, lambda results: checks.write_results(folder, {"title": "T"}, results)
    )


def test_a_check_that_fails_or_dies_leaves_the_others_and_says_why(
    checks: ModuleType, check: Callable[..., Any], tmp_path: Path
) -> None:
    run(checks, [check("ends"), check("raises"), check("dies"), check("ends")], tmp_path)
    found = written(tmp_path)
    assert [one["status"] for one in found] == ["passed", "failed", "failed", "passed"]
    assert "no such thing" in found[1]["reason"]
    assert "signal 11" in found[2]["reason"]
    assert found[1]["figures"] == {"value": 3}
    assert found[1]["measured"] == "until then value 3"


def test_a_check_that_hangs_is_killed_at_its_limit_with_all_that_it_started(
    checks: ModuleType, check: Callable[..., Any], tmp_path: Path
) -> None:
    start = time.monotonic()
    run(checks, [check("hangs", str(tmp_path / "child"), limit=1.5), check("ends")], tmp_path)
    assert time.monotonic() - start < 20
    found = written(tmp_path)
    assert [one["status"] for one in found] == ["failed", "passed"]
    assert "killed at its limit" in found[0]["reason"]
    assert not alive(int((tmp_path / "child").read_text()))


def alive(process: int) -> bool:
    """Whether it runs; one that ended may still be listed until somebody asks how."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_what_there_is_no_time_for_is_not_run_and_says_so(
    checks: ModuleType, check: Callable[..., Any], tmp_path: Path
) -> None:
    results = run(checks, [check("ends"), check("ends", least=1000.0), check("ends")], tmp_path)
    assert [result.status for result in results] == ["passed", "not run", "passed"]
    assert results[1].reason == "no time left"


def test_the_budget_cuts_a_check_short_of_its_limit(
    checks: ModuleType, check: Callable[..., Any], tmp_path: Path
) -> None:
    run(checks, [check("hangs", str(tmp_path / "child"), limit=50), check("ends", least=1.0)], tmp_path, seconds=2.0)
    found = written(tmp_path)
    assert [one["status"] for one in found] == ["failed", "not run"]


def test_results_are_written_after_every_check(checks: ModuleType, check: Callable[..., Any], tmp_path: Path) -> None:
    seen = []

    def report(results: list[Any]) -> None:
        checks.write_results(tmp_path, {"title": "T"}, results)
        seen.append([one["status"] for one in written(tmp_path)])

    checks.run_checks([check("ends"), check("raises")], 60, tmp_path, report)
    assert seen == [["not run", "not run"], ["passed", "not run"], ["passed", "failed"]]


def test_a_missing_library_keeps_its_check_from_running_and_nothing_else(
    checks: ModuleType, check: Callable[..., Any], tmp_path: Path
) -> None:
    results = run(checks, [check("ends", needs=("json", "no_such_library")), check("ends")], tmp_path)
    assert [(one.status, one.reason) for one in results] == [
        ("not run", "not installed: no_such_library"),
        ("passed", ""),
    ]


def test_a_check_is_told_how_long_it_has_and_where_results_are(
    checks: ModuleType, check: Callable[..., Any], tmp_path: Path
) -> None:
    told = check("says", "{seconds} {out}", limit=50)
    result = checks.run_check(told, 40, tmp_path)
    assert result.figures == {"value": f"15 {tmp_path}"}


def test_figures_that_cannot_be_judged_fail_the_check(
    checks: ModuleType, check: Callable[..., Any], tmp_path: Path
) -> None:
    result = checks.run_check(check("ends", judge=lambda figures: figures["other"]), 20, tmp_path)
    assert result.status == "failed"
    assert "other" in result.reason


def test_the_table_has_a_row_a_check(checks: ModuleType) -> None:
    result = checks.Result("a | b", "at most 1", "missed", "2", "too many", 3.4)
    text = checks.table({"title": "Title", "GPU": "one"}, [result])
    assert text.splitlines()[0] == "# Title"
    assert "- GPU: one" in text
    assert text.splitlines()[-1] == "| a \\| b | at most 1 | 2 | missed: too many | 3 |"
