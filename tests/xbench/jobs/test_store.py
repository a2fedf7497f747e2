import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from xbench import ArtifactError, Session
from xbench.contracts.session import Progress, SilentProgress
from xbench.jobs.store import Store, find_damage, read_manifest
from xbench.provenance import digest
from xbench.runtime.files import PARTIAL


class Item:
    """Writes a file; counts its makings in a file beside the cache."""

    kind = "toy"
    label = "a toy"

    def __init__(self, log: Path, content: bytes = b"payload", delay: float = 0.0) -> None:
        self.log, self.content, self.delay = log, content, delay
        self.fingerprint = digest(self.recipe())

    def recipe(self) -> dict[str, Any]:
        return {"content": self.content.decode()}

    def session(self, folder: Path, progress: Progress) -> Session:
        return Session(folder, progress=progress)

    def build(self, session: Session) -> None:
        with self.log.open("a") as log:
            log.write("made\n")
        time.sleep(self.delay)
        (session.folder / "file.bin").write_bytes(self.content)
        session.facts["answer"] = 42


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def _makings(log: Path) -> int:
    return log.read_text().count("made") if log.exists() else 0


def test_work_is_done_once_and_remembered_with_its_facts(tmp_path: Path, log: Path) -> None:
    item = Item(log)
    first = Store(tmp_path / "cache").ensure(item)
    second = Store(tmp_path / "cache").ensure(item)
    assert _makings(log) == 1
    assert first == second
    assert second.facts == {"answer": 42}
    assert not list((tmp_path / "cache" / "work").glob("*"))


@pytest.mark.parametrize("damage", ["truncate", "alter", "delete", "manifest", "recipe"])
def test_damage_is_named_and_rebuilt(tmp_path: Path, log: Path, damage: str) -> None:
    item, progress = Item(log), SilentProgress()
    store = Store(tmp_path / "cache")
    store.ensure(item)
    file, manifest = store.folder(item) / "file.bin", store.folder(item) / "manifest.json"
    if damage == "truncate":
        file.write_bytes(b"pay")
    elif damage == "alter":
        file.write_bytes(b"PAYLOAD")
    elif damage == "delete":
        file.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:-20])
    else:
        content = json.loads(manifest.read_text())
        content["facts"]["answer"] = 43
        manifest.write_text(json.dumps(content))
    rebuilt = Store(tmp_path / "cache", progress).ensure(item)
    assert _makings(log) == 2
    assert rebuilt.facts["answer"] == 42
    assert find_damage(store.folder(item), read_manifest(store.folder(item))) == ""
    assert len(progress.warnings) == 1
    assert "toy of a toy" in progress.warnings[0]
    assert item.fingerprint[:12] in progress.warnings[0]


def test_another_recipe_is_another_artifact(tmp_path: Path, log: Path) -> None:
    store = Store(tmp_path / "cache")
    assert store.folder(Item(log)) != store.folder(Item(log, b"other"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), r"No space left.*\(the cache is .*--cache"),
        (OSError("204800 requested and 76768 written"), r"76768 written \(is the disk full\? the cache is .*--cache"),
        (OSError("cannot identify image file"), r"image file \(the cache is"),
    ],
)
def test_a_failed_making_leaves_nothing_finished(tmp_path: Path, log: Path, error: OSError, message: str) -> None:
    item = Item(log)
    item.build = lambda session: (_ for _ in ()).throw(error)
    store = Store(tmp_path / "cache")
    with pytest.raises(ArtifactError, match=message):
        store.ensure(item)
    assert not store.has(item)
    assert Store(tmp_path / "cache").ensure(Item(log)).facts["answer"] == 42


def test_work_left_by_a_kill_is_found_by_the_next(tmp_path: Path, log: Path) -> None:
    item = Item(log)
    work = tmp_path / "cache" / "work" / item.fingerprint
    work.mkdir(parents=True)
    (work / "checkpoint").write_text("epoch 3")
    (work / f".1-0{PARTIAL}").write_text("half a checkpoint")
    seen = []
    build = item.build
    item.build = lambda session: (seen.append((session.folder / "checkpoint").read_text()), build(session))  # type: ignore[assignment]
    manifest = Store(tmp_path / "cache").ensure(item)
    assert seen == ["epoch 3"]
    assert manifest.facts["resumed"] is True
    assert set(manifest.files) == {"checkpoint", "file.bin"}
    assert not list((tmp_path / "cache").rglob(f"*{PARTIAL}"))


def _ensure(cache: Path, log: Path) -> None:
    Store(Path(cache)).ensure(Item(Path(log), delay=0.5))


def test_two_processes_share_one_making(tmp_path: Path, log: Path) -> None:
    context = multiprocessing.get_context("fork")  # the test modules of pytest's importlib mode can't be imported again
    workers = [context.Process(target=_ensure, args=(tmp_path / "cache", log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert _makings(log) == 1


def test_prune_finds_the_unused_and_the_kind(tmp_path: Path, log: Path) -> None:
    store = Store(tmp_path / "cache")
    item = Item(log)
    store.ensure(item)
    folder = store.folder(item)
    assert store.prunable(30.0) == []
    assert store.prunable(None, ["maps"]) == []
    old = time.time() - 31 * 86400
    os.utime(folder, (old, old))
    assert store.prunable(30.0) == [folder]
    store.remove(folder)
    assert not store.has(item)
