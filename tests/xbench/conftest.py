"""What the tests of every kind of check share."""

import pytest


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
