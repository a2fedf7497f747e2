"""Fingerprints follow from where code lies: what computes counts, what shows does not."""

import importlib.metadata
import os
import runpy
from pathlib import Path
from typing import Any

import grimp
import pytest

from xbench import PluginError
from xbench.provenance import COMPUTING, content_digest, core_digest

TESTS = Path(__file__).parents[1]

EXEMPT = {"xbench": "public names alone", "xbench.version": "a label; no computation reads it"}

PLUGINS = sorted({point.value for point in importlib.metadata.entry_points(group="xbench")})


@pytest.fixture(scope="module")
def imports() -> Any:
    """All imports of xbench and its plugins, those inside functions and those for type checkers included."""
    return grimp.build_graph("xbench", *PLUGINS)


def closure(graph: Any, package: str) -> set[str]:
    """A package and all that it imports, directly or not."""
    seen, waiting = set(), [package, *graph.find_descendants(package)]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph.find_modules_directly_imported_by(module)
    return seen


@pytest.mark.parametrize("package", ["xbench.jobs", "xbench.contracts", *PLUGINS])
def test_all_that_computes_is_covered(imports: Any, package: str) -> None:
    own = {name for name in closure(imports, package) if name.partition(".")[0] == "xbench"} - set(EXEMPT)
    covered = {f"xbench.{part.removesuffix('.py')}" for part in COMPUTING}
    assert {name for name in own if ".".join(name.split(".")[:2]) not in covered} == set()
    assert own


def test_every_change_changes_the_fingerprints_that_it_must_and_no_other() -> None:
    mutation = runpy.run_path(str(TESTS / "mutation.py"))
    results = mutation["run"](fast=True)
    assert [one for one in results if one["changed"] != mutation["wanted"](one["path"])] == []
    places = {"/".join(one["path"].split("/")[:2]) for one in results}
    assert {f"xbench/{part}" for part in COMPUTING} | {f"plugins/{name}" for name in PLUGINS} <= places
    assert {"xbench/cli", "xbench/report", "xbench/run", "xbench/leaderboard"} <= places


def test_a_part_of_the_core_that_is_missing_is_no_empty_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbench.provenance.COMPUTING", (*COMPUTING, "nowhere"))
    core_digest.cache_clear()
    with pytest.raises(PluginError, match="no file of xbench/nowhere can be hashed"):
        core_digest()
    monkeypatch.undo()
    assert core_digest()


def test_a_folder_is_its_names_and_contents_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "a.bin").write_bytes(b"a")
        (tmp_path / name / "deep" / "b.bin").write_bytes(b"b")
    known = content_digest(tmp_path / "one")
    assert known == content_digest(tmp_path / "two")
    (tmp_path / "two" / "a.bin").rename(tmp_path / "two" / "c.bin")
    renamed = content_digest(tmp_path / "two")
    (tmp_path / "one" / "deep" / "b.bin").write_bytes(b"B")
    assert len({known, renamed, content_digest(tmp_path / "one")}) == 3


def test_a_link_to_the_folder_above_ends(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    known = content_digest(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert content_digest(tmp_path) == known


def test_an_edit_that_keeps_size_and_time_of_modification_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbench.provenance._SETTLED", -1.0)  # as if the file were old
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    state = path.stat()
    before = content_digest(path)
    again = tmp_path / "other.bin"
    again.write_bytes(b"two")
    again.replace(path)  # as editors and downloads do
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert content_digest(path) != before


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    monkeypatch.setattr("xbench.provenance._SETTLED", -1.0)
    known = content_digest(path)
    monkeypatch.setattr("xbench.provenance.file_digest", lambda path: pytest.fail("read again"))
    assert content_digest(path) == known
    monkeypatch.setattr("xbench.provenance._SETTLED", 2.0)
