"""Change the code one node at a time and see whose fingerprints change: `python tests/mutation.py`.

Each file of a copy of the sources is changed in turn: one comparison is turned round, or where there is none a constant
or a returned value is changed, or a statement is added. After each change the real functions say what the hash of the
core and the identity of one item of each built-in package are now. Files are only hashed, never imported, so it takes
seconds.

It is a script and no test, so that it can report its figures. Its fast form, which leaves most files of the rooms that
compute nothing and of all plugins but one as they are, is a test (xbench/test_provenance.py).
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xbench.registry.entries import Registry

ROOT = Path(__file__).parent.parent
ONE_PLUGIN = "xbench_regions"
COMPUTING = ("compute", "contracts", "jobs", "registry", "runtime", "statistics")

_TURNED = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def mutated(source: str) -> tuple[str, str] | None:
    """The source with one node changed, and of which kind that was."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Compare):
            node.ops[0] = _TURNED[type(node.ops[0])]()
            return ast.unparse(tree), "comparison"
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            node.value = node.value + 1
            return ast.unparse(tree), "constant"
    for node in nodes:
        if isinstance(node, ast.Return) and node.value is not None:
            node.value = ast.Constant(None)
            return ast.unparse(tree), "returned value"
    return f"{source}\nraise SystemExit\n", "added statement"


def _fingerprints(registry: Registry) -> dict[str, str]:
    """The hash of the core, and by built-in package the identity of one item, hashed anew."""
    from xbench import provenance
    from xbench.registry import plugin_code
    from xbench.registry.references import Choice

    for cached in (provenance.core_digest, plugin_code._source):
        cached.cache_clear()
    found = {"core": provenance.core_digest()}
    for entry in registry.entries.values():
        package = entry.spec.factory.partition(".")[0]
        if entry.spec.kind != "suite" and package not in found:
            found[package] = Choice(entry, "", entry.spec.load_options()()).identity()["source"]
    return found


def sources(copy: Path, fast: bool) -> list[Path]:
    """The files to change; with `fast` all that compute and those of one plugin, and one of each other place."""
    paths = sorted([*copy.glob("xbench/**/*.py"), *copy.glob("plugins/**/*.py")])
    if not fast:
        return paths
    longest = {}
    for path in sorted(paths, key=lambda path: path.stat().st_size):
        longest[path.relative_to(copy).parts[:2]] = path
    kept = {path for path in paths if wanted(path.relative_to(copy).as_posix()) in (["core"], [ONE_PLUGIN])}
    return sorted(kept | set(longest.values()))


def experiment(copy: Path, fast: bool) -> Iterator[dict[str, Any]]:
    """What each change of a file below `copy` changes: path, kind of change, names of the fingerprints."""
    from xbench.registry.discovery import discover

    registry = discover()
    before = _fingerprints(registry)
    for path in sources(copy, fast):
        source = path.read_text()
        text, kind = mutated(source)
        path.write_text(text)
        after = _fingerprints(registry)
        path.write_text(source)
        changed = sorted(name for name in before if before[name] != after[name])
        yield {"path": path.relative_to(copy).as_posix(), "kind": kind, "changed": changed}
    assert _fingerprints(registry) == before, "the sources are not as they were"


def wanted(path: str) -> list[str]:
    """The fingerprints that a change of this file must change; a change of them alone."""
    place, name = path.split("/")[:2]
    if place == "plugins":
        return [] if name == "xbench_suites" else [name]
    return ["core"] if name in COMPUTING or name in ("errors.py", "provenance.py") else []


def run(fast: bool = False) -> list[dict[str, Any]]:
    """The results of the whole experiment, in a process of its own that imports a copy of the sources."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        leave = shutil.ignore_patterns("__pycache__")
        for name in ("xbench", "plugins"):
            shutil.copytree(ROOT / name, copy / name, ignore=leave)
        variables = os.environ | {"PYTHONPATH": os.pathsep.join([folder, str(copy / "plugins")])}
        line = [sys.executable, __file__, "--in", folder, *(["--fast"] if fast else [])]
        made = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=variables)
        if made.returncode:
            raise RuntimeError(made.stderr)
        return [json.loads(one) for one in made.stdout.splitlines()]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _report() -> bool:
    results = run()
    by_place = Counter("/".join(one["path"].split("/")[:2]) for one in results)
    wrong = [one for one in results if one["changed"] != wanted(one["path"])]
    for place, count in by_place.items():
        here = [one for one in results if one["path"].startswith(f"{place}/") or one["path"] == place]
        kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(one["kind"] for one in here).items())
        told = sorted({name for one in here for name in one["changed"]})
        _say(f"{place:28} {count:3} changes ({kinds}): {' '.join(told) or 'no fingerprint'} changed")
    _say(f"{len(results)} changes, {len(wrong)} of which changed other fingerprints than they must")
    for one in wrong:
        _say(f"  {one['path']}: {one['changed']}")
    return bool(wrong)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in"]:
        for result in experiment(Path(sys.argv[2]), "--fast" in sys.argv):
            _say(json.dumps(result))
    else:
        sys.exit(_report())
