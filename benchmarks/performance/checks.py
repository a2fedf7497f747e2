"""Checks that run in processes of their own, within a limit and a common budget, and their results.

Nothing here imports torch, so that the process that watches the others can't fail in the same way.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

HERE = Path(__file__).resolve().parent
Status = Literal["passed", "missed", "failed", "not run"]
NO_TIME = "no time left"


class Verdict(NamedTuple):
    """The verdict on the figures of a check.

    Attributes:
        status: "passed", "missed" if it ran but is not as good as asked, "failed" or "not run".
        measured: Measured values in one line.
        reason: Reason for any status but "passed".
    """

    status: Status
    measured: str
    reason: str = ""


@dataclass(frozen=True)
class Check:
    """A script to run, and the requirements on its figures.

    Attributes:
        name: Name of the check in a few words.
        asked: Requirement in one line.
        words: The script in this folder and its options; `--json FILE` is added. "{seconds}" is replaced by the granted
            seconds minus the start of a process, "{out}" by the folder of results.
        judge: Function from the figures that the script wrote to the verdict.
        limit: Seconds after which the script is killed.
        needs: Modules that must be installed.
        least: Least number of seconds that must be left to start it.
    """

    name: str
    asked: str
    words: tuple[str, ...]
    judge: Callable[[dict[str, Any]], Verdict]
    limit: float
    needs: tuple[str, ...] = ()
    least: float = 15


@dataclass(frozen=True)
class Result:
    """The result of a check.

    Attributes:
        name: Name of the check.
        asked: Requirement in one line.
        status: Status, as in `Verdict`.
        measured: Measured values in words.
        reason: Why it did not pass; empty if it did.
        seconds: Seconds that it took; 0 if it was not run.
        figures: Figures that the script wrote, or None.
    """

    name: str
    asked: str
    status: Status
    measured: str = ""
    reason: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] | None = None


def run_checks(
    checks: Sequence[Check], seconds: float, out: Path, report: Callable[[Sequence[Result]], None]
) -> list[Result]:
    """Run checks in order until the time is over.

    Args:
        checks: The checks, the most important first.
        seconds: Time for all of them.
        out: Folder for the figures and the output of each check.
        report: Function that is called with all results before the first check and after each one.

    Returns:
        One result per check.
    """
    deadline = time.monotonic() + seconds
    results = [Result(check.name, check.asked, "not run", reason=NO_TIME) for check in checks]
    report(results)
    for number, check in enumerate(checks):
        left = deadline - time.monotonic()
        lacking = [name for name in check.needs if importlib.util.find_spec(name) is None]
        if lacking:
            reason = "not installed: " + ", ".join(lacking)
            results[number] = Result(check.name, check.asked, "not run", reason=reason)
        elif left >= check.least:
            print(f"{check.name} ...", flush=True)
            results[number] = run_check(check, min(check.limit, left), out)
            made = results[number]
            print(f"  {made.status} {made.seconds:.0f} s  {made.reason or made.measured}", flush=True)
        report(results)
    return results


def run_check(check: Check, granted: float, out: Path) -> Result:
    """Run one check for at most the granted seconds. Figures that it wrote before it failed or was killed are kept."""
    slug = "".join(sign if sign.isalnum() else "-" for sign in check.name)
    figures_path, log = out / f"{slug}.json", out / f"{slug}.log"
    figures_path.unlink(missing_ok=True)
    given = {"{seconds}": f"{max(1, granted - 25):.0f}", "{out}": str(out)}
    words = [_filled(word, given) for word in check.words]
    # `--json` comes first, because a script may take all words after some option.
    line = [sys.executable, str(HERE / words[0]), "--json", str(figures_path), *words[1:]]
    start = time.monotonic()
    code = _watched(line, granted, log)
    seconds = time.monotonic() - start
    figures = _read(figures_path)
    if code == 0 and figures is not None:
        verdict = _judged(check, figures)
    else:
        reason = f"killed at its limit of {granted:.0f} s" if code is None else _last_words(log, code)
        until = _judged(check, figures).measured if figures else ""
        verdict = Verdict("failed", f"until then {until}" if until else "", reason)
    return Result(check.name, check.asked, *verdict, round(seconds, 1), figures)


def _filled(word: str, given: dict[str, str]) -> str:
    for name, value in given.items():
        word = word.replace(name, value)
    return word


def _watched(line: Sequence[str], granted: float, log: Path) -> int | None:
    """Return the exit code, or None if it had to be killed. The processes that it started are killed too."""
    with log.open("w") as file:
        process = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(granted)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return None


def _judged(check: Check, figures: dict[str, Any]) -> Verdict:
    try:
        return check.judge(figures)
    except Exception as error:  # a script that was killed may have written only some of its figures
        return Verdict("failed", "", f"its figures can't be read: {type(error).__name__}: {error}")


def _last_words(log: Path, code: int) -> str:
    """Return why a process ended: its exit code and the last line that it printed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{ended}: {lines[-1][:300]}" if lines else ended


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds either the old or the new one, never a part."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    os.replace(beside, path)  # noqa: PTH105


def write_results(out: Path, header: dict[str, Any], results: Sequence[Result]) -> None:
    """Write `results.json`, and the same results for readers, `results.md`."""
    whole = {"header": header, "checks": [asdict(result) for result in results]}
    write_whole(out / "results.json", json.dumps(whole, indent=1))
    write_whole(out / "results.md", table(header, results))


def table(header: dict[str, Any], results: Sequence[Result]) -> str:
    """Return the results in Markdown: the lines of the header, and one row per check."""
    lines = [f"# {header['title']}", "", *(f"- {key}: {value}" for key, value in header.items() if key != "title"), ""]
    lines += ["| check | asked | measured | result | s |", "|---|---|---|---|---|"]
    for result in results:
        outcome = result.status + (f": {result.reason}" if result.reason else "")
        cells = (result.name, result.asked, result.measured, outcome, f"{result.seconds:.0f}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
