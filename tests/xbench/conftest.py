"""What the tests of every kind of check share, and a stranger's plugin for whole runs."""

from pathlib import Path

import pytest

TINY = ("--dataset", "fake", "--model", "tiny:epochs=3", "--resamples", "200", "--batch-size", "16")


@pytest.fixture
def stranger():
    """Source of the stranger's plugin."""
    return (Path(__file__).parent / "stranger.py").read_text()


@pytest.fixture
def tiny(shelf, command, stranger):
    """`xbench run` on tiny data and a tiny network, with the stranger's plugin installed."""
    shelf.install("stranger", stranger)

    def run(*words, **more):
        return command("run", *TINY, *words, **more)

    return run


@pytest.fixture
def failures():
    """Name of each failing check -> its message; anything but an AssertionError is a fault of the checks."""

    def run(checks, factory):
        failed = {}
        for name, one in checks:
            try:
                one(factory)
            except AssertionError as error:
                failed[name] = str(error)
        return failed

    return run
