"""Load plugins from their entry points through pluggy into the registry. Built-in plugins are loaded the same way.

pluggy's own loader is not used: it silently drops a second plugin of the same entry-point name, and one plugin that
fails to import aborts all.
"""

from __future__ import annotations

import importlib.metadata
import traceback
from typing import Any

import pluggy

from xbench.contracts import hookspecs
from xbench.contracts.specs import KINDS, SPECS
from xbench.errors import UserError
from xbench.registry.entries import BrokenPlugin, Entry, Registry

GROUP = "xbench"


def discover() -> Registry:
    """Load every plugin of the entry-point group "xbench".

    A plugin that fails is kept, with its traceback, in `Registry.broken`; the others work.

    Raises:
        UserError: No plugin at all is installed, not even xbench's own.
    """
    points = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: (_owner(point), point.name))
    offered: list[Entry] = []
    broken: list[BrokenPlugin] = []
    for point in points:
        try:
            offered += _entries_of(point)
        except Exception as error:
            reason = f"plugin {point.name} of {_owner(point)} can't be used: {type(error).__name__}: {error}"
            broken.append(BrokenPlugin(point.name, _owner(point), reason, traceback.format_exc()))
    if not points:
        raise UserError("no plugins are installed, not even xbench's own", "install the checkout: pip install -e .")
    return Registry.collect(offered, broken)


def _owner(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"


def _entries_of(point: importlib.metadata.EntryPoint) -> list[Entry]:
    """Return what one plugin offers; a manager of its own keeps its faults from touching the others."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(point.load(), name=point.name)
    manager.check_pending()
    version = point.dist.version if point.dist is not None else ""
    entries = []
    for kind in KINDS:
        for records in getattr(manager.hook, f"xbench_{kind}s")():
            entries += [Entry(_record(kind, record), _owner(point), version) for record in records]
    return entries


def _record(kind: str, record: Any) -> Any:
    if not isinstance(record, SPECS[kind]):
        raise TypeError(f"xbench_{kind}s gave a {type(record).__name__}, expected {SPECS[kind].__name__}")
    return record
