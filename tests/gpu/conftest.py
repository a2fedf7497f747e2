"""Tests of what only an NVIDIA GPU does."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

DEVICE = "cuda"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder carry the marker, and are skipped where there is no such GPU."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU that CUDA can use"))


@pytest.fixture
def device() -> str:
    """Where the tests run."""
    return DEVICE


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """As that of all tests, but never forked: CUDA does not work in a process forked from one that has asked for it."""

    def begin(
        words: Sequence[str], environment: dict[str, str], folder: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "xbench", *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=timeout, env=environment, cwd=folder)

    return begin
