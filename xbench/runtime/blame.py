"""Blame for errors: whatever a plugin raises becomes an error that names the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xbench.errors import PluginError, XbenchError
from xbench.runtime.devices import is_out_of_memory, kept_settings


@contextmanager
def blamed(owner: str, method: str = "", passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn an error raised in the block into a `PluginError`.

    Errors of xbench itself pass unchanged. So do errors for lack of memory, because the caller can try smaller batches.
    Torch's switches of float32 and its default dtype are restored, and a plugin that changed them is refused.

    Args:
        owner: Name of the plugin, as users know it.
        method: Name of the method that was called, where the owner's name does not say it.
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
        # The result was not computed in the precision that the row would name.
        what = " and ".join(changed)
        raise PluginError(f"{owner} changed {what} of torch{inside.rstrip(':')}", "leave them as they are")
