"""Whose fault it is: what a plugin raises becomes an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xbench.devices import is_out_of_memory
from xbench.errors import PluginError, XbenchError


@contextmanager
def blamed(owner: str, method: str = "", passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the block raises into a `PluginError`.

    Errors of xbench itself pass, and so does out of memory, which the caller can mend with smaller batches.

    Args:
        owner: The plugin, as people know it.
        method: What of it was called, where the owner's name does not say it.
        passed: More errors that are not the plugin's fault, such as those of a full disk.
    """
    let_through: tuple[type[Exception], ...] = (XbenchError, *passed)
    try:
        yield
    except let_through:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        inside = f" in {method}:" if method else ""
        raise PluginError(f"{owner} raised{inside} {type(error).__name__}: {error}") from error
