"""The content-addressed store: work is done once, kept under a hash of everything that determines it, and verified.

Layout of the cache folder:

    artifacts/<kind>/<fingerprint>/   finished: files and manifest.json, renamed into place whole
    work/<fingerprint>/               under way; survives a kill, so that a training can continue from its checkpoint
    locks/<fingerprint>.lock          held by the process that is building
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from xbench.contracts.session import Progress, Session, SilentProgress
from xbench.errors import ArtifactError
from xbench.provenance import digest, file_digest
from xbench.runtime.devices import float32
from xbench.runtime.files import PARTIAL, write_text

MANIFEST = "manifest.json"


class Buildable(Protocol):
    """What the store can make and keep."""

    @property
    def kind(self) -> str:
        """Which shelf it lies on."""
        ...

    @property
    def label(self) -> str:
        """What it is, for people."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of its recipe."""
        ...

    def recipe(self) -> dict[str, Any]:
        """Everything that determines it, as JSON; `digest` of it is the fingerprint."""
        ...

    def session(self, folder: Path, progress: Progress) -> Session:
        """The surroundings of its making."""
        ...

    def build(self, session: Session) -> None:
        """Write its files into `session.folder`."""
        ...


@dataclass(frozen=True)
class Manifest:
    """What is written beside the files of a finished artifact.

    Attributes:
        kind: Which shelf it lies on.
        label: What it is, for people.
        fingerprint: Hash of `recipe`.
        recipe: Everything that determines it.
        files: Name to [bytes, sha256].
        facts: What its making wanted remembered.
        seconds: Wall time of its making (of the last part, where a killed making was resumed).
        created: ISO time.
    """

    kind: str
    label: str
    fingerprint: str
    recipe: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]
    facts: Mapping[str, Any]
    seconds: float
    created: str


class Store:
    """The cache. Several processes may share it.

    Args:
        root: The cache folder; made if missing.
        progress: Where to say that something is damaged or waited for.
    """

    def __init__(self, root: Path, progress: Progress | None = None) -> None:
        self.root = root
        self.progress = progress or SilentProgress()
        self.built: list[str] = []
        self._verified: dict[str, Manifest] = {}
        self._locks: dict[Path, FileLock] = {}  # one object a path: a FileLock is re-entrant only as the same object

    def folder(self, item: Buildable) -> Path:
        """Where the finished artifact lies, or would lie."""
        return self.root / "artifacts" / item.kind / item.fingerprint

    def has(self, item: Buildable) -> bool:
        """Whether it is finished, by its manifest alone; `ensure` verifies the files too."""
        return (self.folder(item) / MANIFEST).exists()

    def manifest(self, item: Buildable) -> Manifest:
        """The manifest of a finished artifact."""
        return self.ensure(item)

    def ensure(self, item: Buildable, wait: bool = True) -> Manifest:
        """Make the artifact unless it is there and whole.

        Args:
            item: What to have.
            wait: Whether to wait for another process that is making it.

        Raises:
            ArtifactError: It can't be written.
            filelock.Timeout: Another process is making it, and there is no waiting.
        """
        known = self._verified.get(item.fingerprint)
        if known is None:
            known = self._intact(item) or self._build(item, wait)
            self._verified[item.fingerprint] = known
        return known

    def attempt(self, item: Buildable) -> Manifest | None:
        """As `ensure`, but None, at once, while another process is making it.

        Raises:
            ArtifactError: It can't be written.
        """
        try:
            return self.ensure(item, wait=False)
        except Timeout:
            return None

    def _intact(self, item: Buildable) -> Manifest | None:
        folder = self.folder(item)
        if not (folder / MANIFEST).exists():
            return None
        try:
            manifest = read_manifest(folder)
            damage = find_damage(folder, manifest)
        except (ArtifactError, OSError) as error:
            damage = str(error)
        if damage:
            self.progress.warn(
                f"cached {item.kind} of {item.label} ({item.fingerprint[:12]}) is damaged: {damage}; rebuilding"
            )
            with self._lock(item):
                if (folder / MANIFEST).exists():
                    shutil.rmtree(folder)
            return None
        os.utime(folder)  # "last used", for `xbench cache prune`
        return manifest

    def _build(self, item: Buildable, wait: bool) -> Manifest:
        try:
            with self._lock(item, wait):
                # Another process may have made it while this one waited.
                return self._intact(item) or self._make(item)
        except Timeout:
            raise
        except OSError as error:
            # All that NumPy says of a full disk is how much it could write.
            full = "is the disk full? " if str(error).endswith("written") else ""
            hint = f"{full}the cache is {self.root}; choose another with --cache or XBENCH_CACHE"
            raise ArtifactError(f"can't make the {item.kind} of {item.label}: {error}", hint) from error

    def _make(self, item: Buildable) -> Manifest:
        work = self.root / "work" / item.fingerprint
        resumed = work.exists()
        work.mkdir(parents=True, exist_ok=True)
        session = item.session(work, self.progress)
        start = time.perf_counter()
        with float32(session.precision):
            item.build(session)
        seconds = time.perf_counter() - start
        for leftover in work.rglob(f"*{PARTIAL}"):
            leftover.unlink()
        facts = session.facts | ({"resumed": True} if resumed else {})
        manifest = _write_manifest(work, item, facts, seconds)
        target = self.folder(item)
        target.parent.mkdir(parents=True, exist_ok=True)
        work.replace(target)
        self.built.append(item.fingerprint)
        return manifest

    @contextmanager
    def _lock(self, item: Buildable, wait: bool = True) -> Iterator[None]:
        path = self.root / "locks" / f"{item.fingerprint}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._locks.setdefault(path, FileLock(path))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise
            self.progress.warn(f"another process is making the {item.kind} of {item.label}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    # --- housekeeping: `xbench cache` -------------------------------------------------------------------------------

    def finished(self) -> Iterator[tuple[Path, Manifest | None]]:
        """Every finished artifact; the manifest is None where it can't be read."""
        for path in sorted((self.root / "artifacts").glob("*/*")):
            try:
                yield path, read_manifest(path)
            except ArtifactError:
                yield path, None

    def unfinished(self) -> list[Path]:
        """Folders of work under way or left by a kill."""
        return sorted((self.root / "work").glob("*"))

    def prunable(self, unused_days: float | None, kinds: Collection[str] = ()) -> list[Path]:
        """RunRecord artifacts and abandoned work, filtered by kind and by the days since a run last used them."""
        found = [path for path, _ in self.finished() if not kinds or path.parent.name in kinds]
        found += [] if kinds else self.unfinished()
        before = time.time() - (unused_days or 0) * 86400
        return [path for path in found if unused_days is None or path.stat().st_mtime < before]

    def remove(self, path: Path) -> None:
        """Delete a folder of the cache, unless a process is building it right now."""
        lock = FileLock(self.root / "locks" / f"{path.name}.lock")
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            shutil.rmtree(path)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ArtifactError: It is missing, not readable, or was altered.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
        seal = content.pop("seal")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{MANIFEST} can't be read: {error}") from error
    if seal != digest(content) or digest(content["recipe"]) != content["fingerprint"]:
        raise ArtifactError(f"{MANIFEST} was altered")
    content["files"] = {name: tuple(entry) for name, entry in content["files"].items()}
    return Manifest(**content)


def find_damage(folder: Path, manifest: Manifest) -> str:
    """What is wrong with an artifact's files, or an empty string."""
    for name, (size, checksum) in manifest.files.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
        if file_digest(path) != checksum:
            return f"{name} was altered (checksum)"
    return ""


def _write_manifest(folder: Path, item: Buildable, facts: Mapping[str, Any], seconds: float) -> Manifest:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): (path.stat().st_size, file_digest(path)) for path in paths}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = Manifest(item.kind, item.label, item.fingerprint, item.recipe(), files, dict(facts), seconds, created)
    content = json.loads(json.dumps(vars(manifest), default=_plain))
    content["seal"] = digest(content)
    write_text(folder / MANIFEST, json.dumps(content, indent=1))
    return manifest


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays, paths, as JSON."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def default_root() -> Path:
    """The cache folder: $XBENCH_CACHE, else the user's cache folder of the platform."""
    import platformdirs

    return Path(os.environ.get("XBENCH_CACHE") or platformdirs.user_cache_dir("xbench"))
