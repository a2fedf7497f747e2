"""Find the code behind an item: the files of its distribution, the versions of its libraries, and what it declares.

An item is cached under all of it. A distribution that is installed counts by its recorded files. Code that lies
anywhere else (an editable install, a plain folder or a zip file on PYTHONPATH) may be in several packages that no
metadata name, so what the modules import is followed to it. Built-in plugins share one distribution: each counts its
own package alone.
"""

from __future__ import annotations

import ast
import csv
import functools
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any

from xbench.errors import PluginError
from xbench.provenance import COMPUTING, code_files, core_digest, is_compiled, located, tree_digest
from xbench.registry.entries import BUILT_IN, Entry
from xbench.registry.libraries import library_version, required_versions

_SITES = frozenset({"site-packages", "dist-packages"})


def code_of(entry: Entry) -> dict[str, Any]:
    """Return what decides how an item computes, beside its options and the core.

    Returns:
        source: SHA-256 over the files of its distribution.
        libraries: Version of each library that it or its distribution requires; None for one that is not installed.
        depends_on: Name and SHA-256 of all that it declares besides.

    Raises:
        PluginError: Some of it can't be found, or holds no file; the distribution is named.
    """
    spec = entry.spec
    modules = tuple(path.partition(":")[0] for path in (spec.factory, spec.options) if path)
    try:
        return {
            "source": source_digest(entry.distribution, modules),
            "libraries": dict(_libraries(entry.distribution, spec.requires)),
            "depends_on": [list(pair) for pair in _dependencies(spec.depends_on)],
        }
    except PluginError as error:
        what = f"the code of {entry.owner} can't be hashed, so its results can't be kept: {error.message}"
        raise PluginError(what, error.hint) from error


def source_digest(distribution: str, modules: tuple[str, ...]) -> str:
    """Return the SHA-256 of the files of a distribution and of the modules that an item names.

    For a built-in, only the modules count.

    Raises:
        PluginError: A module can't be found, or there is no file.
    """
    return _source(distribution, tuple(sorted({_unit(name)[0] for name in modules if not _is_core(name)})))


@functools.cache
def _source(distribution: str, names: tuple[str, ...]) -> str:
    """Return the hash for units that are named by themselves; a distribution's are hashed once per process."""
    installed = None if distribution == BUILT_IN else _installed(distribution)
    units = dict(map(_unit, names))
    files: dict[str, Traversable] = {}
    if installed is not None:
        units |= dict(filter(None, map(_optional, _declared(installed))))
        files |= _recorded(installed)
    for name, spec in units.items():
        files |= _files(name, spec)
    if distribution != BUILT_IN:
        files |= _imported_files(files, set(units))
    if files:
        return tree_digest(files)
    if distribution == BUILT_IN:
        return core_digest()  # an item of the core itself
    raise PluginError(f"no file of {distribution} can be found")


@functools.cache
def _libraries(distribution: str, requires: tuple[str, ...]) -> Mapping[str, str | None]:
    if distribution == BUILT_IN and not requires:
        return {}
    installed = _installed(distribution)
    versions: dict[str, str | None] = {}
    if installed is not None and distribution != BUILT_IN:
        versions |= required_versions(installed)
    for module in requires:
        known = library_version(module, installed)
        if known is None:  # a module that no distribution brought
            name, spec = _unit(module)
            known = (name, tree_digest(_files(name, spec)))
        versions[known[0]] = known[1]
    return versions


@functools.cache
def _dependencies(wanted: tuple[str | Path, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((_name(item), tree_digest(_files_of(item))) for item in wanted)


def _name(wanted: str | Path) -> str:
    return wanted if isinstance(wanted, str) else wanted.name


def _files_of(wanted: str | Path) -> Mapping[str, Traversable]:
    if isinstance(wanted, str):
        return _files(wanted, _found(wanted))
    found = located(wanted)
    if found is None:
        raise PluginError(f"depends_on {str(wanted)!r} does not exist")
    return code_files(found, wanted.name)


def _installed(distribution: str) -> Distribution | None:
    try:
        return importlib.metadata.distribution(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _recorded(distribution: Distribution) -> dict[str, Traversable]:
    """Return the files that the installer wrote: packages, modules, their data, and data beside the import path."""
    text = distribution.read_text("RECORD") or ""
    files: dict[str, Traversable] = {}
    for row in csv.reader(text.splitlines()):
        path = PurePosixPath(row[0]) if row else PurePosixPath()
        file: Any = distribution.locate_file(str(path))
        if path.parts and not _is_installers(path) and file.is_file():
            files["/".join(part for part in path.parts if part != "..")] = file
    return files


def _is_installers(path: PurePosixPath) -> bool:
    """Return whether the installer made a recorded file for this machine, so that it says nothing about the plugin."""
    if path.is_absolute() or path.parts[0].endswith(".dist-info") or is_compiled(str(path)):
        return True
    if path.parts[0] == "..":  # what is not data there is a script that starts Python at its place on this machine
        return not {"bin", "Scripts"}.isdisjoint(path.parts[:-1])
    # An editable install writes down where it lies.
    return len(path.parts) == 1 and (path.suffix == ".pth" or path.name.startswith("__editable__"))


def _declared(distribution: Distribution) -> Iterator[str]:
    """Return the importable names in the metadata: entry points, and the names that setuptools records."""
    yield from (point.module for point in distribution.entry_points)
    yield from (distribution.read_text("top_level.txt") or "").split()


def _is_core(module: str) -> bool:
    """Return whether a module needs no hash here: the hash of the core covers it, or does not have to."""
    top, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return top == "xbench" and (not room or room in COMPUTING or f"{room}.py" in (*COMPUTING, "version.py"))


def _unit(module: str) -> tuple[str, ModuleSpec]:
    """Return the package or module that a module is hashed with: the first from the top that has a file of its own.

    Below xbench it is a room. Above that, in a namespace package, there are other distributions' files too.
    """
    parts = module.split(".")
    for depth in range(2 if parts[0] == "xbench" else 1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = _found(name)
        if spec.origin is not None:
            return name, spec
    raise PluginError(f"{module} is a folder without a module")


def _found(module: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(f"module {module} can't be found: {error}") from error
    if spec is None:
        raise PluginError(f"module {module} can't be found")
    return spec


def _files(name: str, spec: ModuleSpec) -> dict[str, Traversable]:
    """Return the files of a package or module, by their paths from the import path on."""
    path = name.replace(".", "/")
    files: dict[str, Traversable] = {}
    for folder in spec.submodule_search_locations or ():
        found = located(Path(folder))
        files |= {} if found is None else code_files(found, path)
    if spec.submodule_search_locations is None:
        found = located(Path(spec.origin)) if spec.origin else None
        if found is not None and not is_compiled(found.name):
            files |= code_files(found, f"{path}{PurePosixPath(found.name).suffix}")
    if not files:
        raise PluginError(f"no file of module {name} can be hashed: its origin is {spec.origin}")
    return files


def _imported_files(files: Mapping[str, Traversable], units: set[str]) -> dict[str, Traversable]:
    """Return the code that files import, directly or not, and that no installer recorded.

    Args:
        files: By their paths from the import path on.
        units: Packages and modules whose files are among them.
    """
    imported: dict[str, Traversable] = {}
    seen, waiting = set(units), dict(files)
    while waiting:
        path, file = waiting.popitem()
        for module in _imports(file.read_bytes(), _package(path)) if path.endswith(".py") else ():
            unit = _loose(module)
            if unit is not None and unit[0] not in seen:
                seen.add(unit[0])
                brought = _files(*unit)
                imported |= brought
                waiting |= brought
    return imported


def _package(path: str) -> tuple[str, ...]:
    """Return the package that a module's relative imports start from."""
    return PurePosixPath(path).parts[:-1]


def _imports(source: bytes, package: tuple[str, ...]) -> set[str]:
    """Return the modules that a source may import, wherever in it; for `from a import b` both "a" and "a.b"."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()  # whoever imports it is told
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *(node.module or "").split("."))).strip(".")
            modules |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return modules - {""}


def _loose(module: str) -> tuple[str, ModuleSpec] | None:
    """Return the unit of an imported module that counts by content; None for a library or a missing module."""
    unit = None if module.partition(".")[0] in sys.stdlib_module_names else _optional(module)
    if unit is None or (_in_site(unit[1]) and not module.startswith("xbench.")):
        return None
    return unit  # rooms of xbench that compute nothing are in no other hash, wherever they lie


def _optional(module: str) -> tuple[str, ModuleSpec] | None:
    """Return the unit of a module that may be missing; None where it is, and for the core."""
    try:
        return None if _is_core(module) else _unit(module)
    except PluginError:
        return None


def _in_site(spec: ModuleSpec) -> bool:
    return not _SITES.isdisjoint(re.split(r"[/\\]", spec.origin or ""))
