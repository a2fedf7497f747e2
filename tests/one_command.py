"""What a forked process does that stands for `python -m xbench`: run by path, with its globals given (conftest.py)."""

import atexit
import os
import runpy
import sys
from pathlib import Path

for _name, _stream in (("stdout", 1), ("stderr", 2)):
    with open(globals()[_name], "w") as _file:  # noqa: PTH123
        os.dup2(_file.fileno(), _stream)
_threads = os.listdir(f"/proc/{os.getppid()}/task")  # noqa: PTH208
if len(_threads) > 1:  # their locks and half-done work would be copied without them
    raise SystemExit(f"the process that forks has {len(_threads)} threads: what does HEAVY import?")
if globals()["environment"].get("XBENCH_TESTS_PICTURES") == "none":
    from matplotlib.figure import Figure  # a third of the time of a tiny run; for tests of its numbers

    Figure.savefig = lambda self, target, **_: None if hasattr(target, "write") else Path(target).touch()
os.environ.clear()
os.environ.update(globals()["environment"])
os.chdir(globals()["folder"])
_before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
sys.path[:] = [globals()["folder"], *_before, *(path for path in sys.path if path not in _before)]
sys.argv = ["xbench", *globals()["words"]]
try:
    runpy.run_module("xbench", run_name="__main__", alter_sys=True)
finally:
    atexit._run_exitfuncs()  # a process of multiprocessing ends without
