"""The content-addressed store. Work is done once, kept under a hash of everything that determines it, and verified.

Layout of the cache folder:

    artifacts/<kind>/<fingerprint>/   finished: files and manifest.json, moved into place as a whole
    work/<fingerprint>/               in progress; survives a kill, so that a training can continue from its checkpoint
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
    """An artifact that the store can build and keep."""

    @property
    def kind(self) -> str:
        """The kind of the artifact, which names its folder in the cache."""
        ...

    @property
    def label(self) -> str:
        """The artifact's name for users."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the recipe."""
        ...

    def recipe(self) -> dict[str, Any]:
        """Return everything that determines the artifact, as JSON. Its `digest` is the fingerprint."""
        ...

    def session(self, folder: Path, progress: Progress) -> Session:
        """Return the session to build in."""
        ...

    def build(self, session: Session) -> None:
        """Write the artifact's files into `session.folder`."""
        ...


@dataclass(frozen=True)
class Manifest:
    """The record that is written beside the files of a finished artifact.

    Attributes:
        kind: Kind of the artifact, which names its folder in the cache.
        label: The artifact's name for users.
        fingerprint: Hash of `recipe`.
        recipe: Everything that determines the artifact.
        files: Name -> [bytes, sha256].
        facts: Facts that were recorded during the build.
        seconds: Wall time of the build in seconds. After a kill, only the time of the resumed part.
        created: ISO time at which the build ended.
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
        root: The cache folder. It is created if it is missing.
        progress: Where to report damage and waiting.
    """

    def __init__(self, root: Path, progress: Progress | None = None) -> None:
        self.root = root
        self.progress = progress or SilentProgress()
        self.built: list[str] = []
        self._verified: dict[str, Manifest] = {}
        self._locks: dict[Path, FileLock] = {}  # one per path: only the same FileLock is re-entrant

    def folder(self, item: Buildable) -> Path:
        """Return the folder of the finished artifact, whether it exists or not."""
        return self.root / "artifacts" / item.kind / item.fingerprint

    def has(self, item: Buildable) -> bool:
        """Return whether the artifact has a manifest. `ensure` also verifies the files."""
        return (self.folder(item) / MANIFEST).exists()

    def manifest(self, item: Buildable) -> Manifest:
        """Return the manifest of the artifact. Builds the artifact if it is missing or damaged."""
        return self.ensure(item)

    def ensure(self, item: Buildable, wait: bool = True) -> Manifest:
        """Build the artifact unless it exists and is undamaged, and return its manifest.

        Args:
            item: The artifact.
            wait: Whether to wait for another process that is building it.

        Raises:
            ArtifactError: The artifact can't be written.
            filelock.Timeout: Another process is building it, and `wait` is False.
        """
        known = self._verified.get(item.fingerprint)
        if known is None:
            known = self._intact(item) or self._build(item, wait)
            self._verified[item.fingerprint] = known
        return known

    def attempt(self, item: Buildable) -> Manifest | None:
        """Do the same as `ensure`, but return None at once if another process is building the artifact.

        Raises:
            ArtifactError: The artifact can't be written.
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
                # Another process may have built it while this one waited.
                return self._intact(item) or self._make(item)
        except Timeout:
            raise
        except OSError as error:
            # For a full disk, NumPy only says how much it could write.
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
        """Yield the folder and the manifest of every finished artifact, with None for a manifest that can't be read."""
        for path in sorted((self.root / "artifacts").glob("*/*")):
            try:
                yield path, read_manifest(path)
            except ArtifactError:
                yield path, None

    def unfinished(self) -> list[Path]:
        """Return the folders of work that is in progress or was left by a kill."""
        return sorted((self.root / "work").glob("*"))

    def prunable(self, unused_days: float | None, kinds: Collection[str] = ()) -> list[Path]:
        """Return finished artifacts and abandoned work, filtered by kind and by the days since a run last used them."""
        paths = [path for path, _ in self.finished() if not kinds or path.parent.name in kinds]
        paths += [] if kinds else self.unfinished()
        before = time.time() - (unused_days or 0) * 86400
        return [path for path in paths if unused_days is None or path.stat().st_mtime < before]

    def remove(self, path: Path) -> None:
        """Delete a folder of the cache, unless a process is building it now."""
        lock = FileLock(self.root / "locks" / f"{path.name}.lock")
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            shutil.rmtree(path)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ArtifactError: The manifest is missing, not readable, or was altered.
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
    """Return what is wrong with an artifact's files, or an empty string."""
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
    """Return numpy scalars and arrays as lists and numbers, and paths as strings, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def default_root() -> Path:
    """Return the cache folder: $XBENCH_CACHE, else the platform's cache folder of the user."""
    import platformdirs

    return Path(os.environ.get("XBENCH_CACHE") or platformdirs.user_cache_dir("xbench"))
