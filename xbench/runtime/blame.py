"""Whose fault it is: what a plugin raises becomes an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xbench.errors import PluginError, XbenchError
from xbench.runtime.devices import is_out_of_memory, kept_settings


@contextmanager
def blamed(owner: str, method: str = "", passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the block raises into a `PluginError`.

    Errors of xbench itself pass, and so does out of memory, which the caller can mend with smaller batches. Torch's
    switches of float32 and its default dtype are put back; a plugin that changed them is refused.

    Args:
        owner: The plugin, as people know it.
        method: What of it was called, where the owner's name does not say it.
        passed: More errors that are not the plugin's fault, such as those of a full disk.
    """
    let_through: tuple[type[Exception], ...] = (XbenchError, *passed)
    inside = f" in {method}:" if method else ""
    try:
        with kept_settings() as changed:
            yield
    except let_through:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise PluginError(f"{owner} raised{inside} {type(error).__name__}: {error}") from error
    if changed:
        # What it computed is not in the precision that the row would name.
        what = " and ".join(changed)
        raise PluginError(f"{owner} changed {what} of torch{inside.rstrip(':')}", "leave them as they are")
