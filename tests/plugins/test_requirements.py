"""Built-in items say which libraries they compute with, so that what they compute is cached under their versions."""

import functools
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import grimp
import pytest

from xbench.contracts.specs import KINDS
from xbench.provenance import COMPUTING
from xbench.registry.discovery import discover
from xbench.registry.entries import Entry
from xbench.registry.libraries import canonical, library_version
from xbench.runtime.environment import BUILT_IN, CORE

NO_NUMBER = {
    "pydantic": "checks options",
    "pluggy": "hands records over",
    "safetensors": "keeps every bit of the weights",
    "huggingface-hub": "finds files that timm downloaded",
    "filelock": "locks files",
    "platformdirs": "finds the cache folder",
    "packaging": "reads requirements",
}
"""Libraries that change no number."""

ENTRIES = [entry for kind in KINDS if kind != "suite" for entry in discover().of_kind(kind)]


@functools.cache
def imports() -> Any:
    packages = sorted({point.value for point in importlib.metadata.entry_points(group="xbench")})
    return grimp.build_graph("xbench", *packages, include_external_packages=True)


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def libraries(modules: Iterable[str]) -> set[str]:
    """The distributions that modules import, directly or through modules of their own package."""
    graph, seen, waiting, found = imports(), set(), list(modules), set()
    while waiting:
        module = waiting.pop()
        top = module.partition(".")[0]
        if module in seen or top in sys.stdlib_module_names:
            continue
        seen.add(module)
        if top == "xbench" and not module.startswith("xbench.testing"):
            continue  # the core counts by itself
        if graph.is_module_squashed(module):
            found |= {canonical(name) for name in distributions().get(top, [top])}
        else:
            waiting += graph.find_modules_directly_imported_by(module)
    return found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.spec.kind}-{entry.spec.name}")
def test_a_built_in_requires_what_it_computes_with(entry: Entry) -> None:
    spec = entry.spec
    modules = [path.partition(":")[0] for path in (spec.factory, spec.options) if path]
    required = {library_version(name, importlib.metadata.distribution("xbench"))[0] for name in spec.requires}
    assert libraries(modules) - set(CORE) - set(NO_NUMBER) <= required
    assert required <= set(BUILT_IN) | set(CORE)


def test_the_core_counts_the_libraries_that_it_computes_with() -> None:
    graph = imports()
    beginnings = tuple(f"xbench.{part.removesuffix('.py')}" for part in COMPUTING)
    rooms = [name for name in graph.modules if name.startswith(beginnings)]
    tops = {module.partition(".")[0] for room in rooms for module in graph.find_modules_directly_imported_by(room)}
    outside = {top for top in tops if top not in sys.stdlib_module_names and top != "xbench"}
    named = {canonical(name) for top in outside for name in distributions().get(top, [top])}
    assert named - set(NO_NUMBER) <= set(CORE)
    assert set(CORE) <= named
