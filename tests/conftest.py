"""Plugins of strangers, installed for one test, and the command line as a user runs it."""

import os
import subprocess
import sys
import textwrap

import pytest

_died = set()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem, report, sched):
    """Run a test again, once, whose process died under it; the summary says "rerun". A second time it has failed.

    A process that ran a thousand tests, with numba, shap and the other libraries that we compare with in it, dies now
    and then by a segmentation fault, each time in another test and inside Python itself (the garbage collector, a
    string). No run of xbench has. What memory was overwritten by whom is not known.
    """
    if crashitem not in _died:
        _died.add(crashitem)
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"


def pytest_report_teststatus(report):
    """The letter of a test that runs again."""
    return ("rerun", "R", "RERUN") if report.outcome == "rerun" else None


@pytest.fixture(autouse=True)
def same_weights():
    """Networks that a test builds have the same weights in every run and every order of tests."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


class Shelf:
    """A folder on the import path with distributions of strangers in it."""

    def __init__(self, folder):
        self.folder = folder

    def install(self, name, source, version="1.0", entry_point=None, distribution=None):
        """A distribution of one module, with an entry point of group "xbench"."""
        distribution = distribution or name.replace("_", "-")
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source))
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[xbench]\n{entry_point or name} = {name}\n")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A shelf on this process's import path."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Shelf(folder)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def command(tmp_path, shelf):
    """Run `xbench` in a process of its own, with the shelf on its path and a cache of its own."""

    def run(*words, cache=None, timeout=300, **environment):
        variables = os.environ | {
            "PYTHONPATH": str(shelf.folder),
            "XBENCH_CACHE": str(cache or tmp_path / "cache"),
            "COLUMNS": "160",
            **environment,
        }
        return subprocess.run(
            [sys.executable, "-m", "xbench", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=variables,
            cwd=tmp_path,
        )

    return run
