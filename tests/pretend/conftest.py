"""What was measured on the pretend accelerator, each time in a process of its own and once for all tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Shelf


HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def on_pretend(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Run a script of this folder, with a path to write JSON to and other arguments: what it wrote."""

    def run(script: str, *words: str, **environment: str) -> Any:
        path = tmp_path_factory.mktemp("pretend") / "found.json"
        line = [sys.executable, str(HERE / script), str(path), *words]
        variables = os.environ | {"OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(line, capture_output=True, text=True, timeout=600, env=variables, cwd=path.parent)
        assert done.returncode == 0, done.stderr
        return json.loads(path.read_text())

    return run


@pytest.fixture
def pretend_command(
    shelf: Shelf, command: Callable[..., subprocess.CompletedProcess[str]], stranger: str
) -> Callable[..., CompletedProcess[str]]:
    """`xbench` in a process in which the pretend accelerator is a plugin, beside the stranger's."""
    shelf.install("stranger", stranger)
    shelf.install("pretend", (HERE / "pretend.py").read_text())
    return command


@pytest.fixture
def stranger() -> str:
    """Source of the stranger's plugin."""
    return (HERE.parent / "xbench" / "stranger.py").read_text()
