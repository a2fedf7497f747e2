"""The base of all jobs: settings, fingerprints and sessions."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from xbench.contracts.session import Progress, Session
from xbench.jobs.store import Manifest, Store
from xbench.provenance import core_digest, digest
from xbench.registry.references import Choice
from xbench.runtime.environment import library_versions
from xbench.runtime.seeding import derive


@dataclass(frozen=True)
class Settings:
    """The user's settings for a whole run.

    Attributes:
        seed: Seed of the run.
        device: Name of the device: "cpu", "cuda", ...
        precision: "32", "tf32", "bf16" or "16".
        batch_size: Batch size of passes without gradients, or None to calibrate it.
        split: The split to score.
        limit: Maximum number of its samples, or None for all.
        target: The class that each map explains: "predicted", "true", or a class index.
        allow_pickle: Whether the user's own weights may be a pickle.
    """

    seed: int = 0
    device: str = "cpu"
    precision: str = "32"
    batch_size: int | None = None
    split: str = "test"
    limit: int | None = None
    target: str = "predicted"
    allow_pickle: bool = False


class Instance:
    """A plugin's object that several jobs share. It is created again after it was dropped.

    Args:
        choice: The plugin with its options.

    Raises:
        PluginError: The object can't be created.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._object: Any = choice.create()

    def get(self) -> Any:
        """Return the object, and create it if it was dropped."""
        if self._object is None:
            self._object = self._choice.create()
        return self._object

    def drop(self) -> None:
        """Drop the object, with everything that it keeps."""
        self._object = None


class Job(ABC):
    """One artifact: what determines it, how to build it, and how to open it.

    Subclasses define `kind`, `label`, `upstream`, `identity` and `build`. A job only describes its artifact until the
    store builds it. Opening the artifact (`module`, `split`, `maps` ... of the subclasses) builds it if it is missing.

    Args:
        store: The cache.
        settings: Settings of the run.
    """

    kind: ClassVar[str]

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    @property
    @abstractmethod
    def label(self) -> str:
        """The artifact's name for users."""

    def forget(self) -> None:
        """Drop the networks that the job holds, and the plugin's object with everything that it keeps.

        All of it is loaded from disk when it is needed again.
        """

    @property
    @abstractmethod
    def upstream(self) -> tuple[Job, ...]:
        """The artifacts that this one is made from."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what determines the artifact, apart from its upstream, the code and the libraries."""

    @abstractmethod
    def build(self, session: Session) -> None:
        """Write the artifact's files into `session.folder`."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the recipe."""
        return digest(self.recipe())

    def recipe(self) -> dict[str, Any]:
        """Return everything that determines the artifact, as JSON."""
        return {
            "kind": self.kind,
            "identity": self.identity(),
            "upstream": [job.fingerprint for job in self.upstream],
            "core": core_digest(),
            "libraries": dict(library_versions()),
        }

    def session(self, folder: Path, progress: Progress) -> Session:
        """Return the session to build in. Its seed is derived from the run's seed and the kind of work."""
        return Session(
            folder=folder,
            device=self.settings.device,
            precision=self.settings.precision,
            seed=derive(self.settings.seed, self.kind),
            batch_size=self.settings.batch_size or 32,
            progress=progress,
            reference=self._reference,
        )

    @property
    def _reference(self) -> str:
        choice: Choice | None = getattr(self, "choice", None)
        if choice is None:
            return ""
        return f"{choice.name}:{choice.argument}" if choice.argument and choice.inner is None else choice.name

    @functools.cached_property
    def manifest(self) -> Manifest:
        """The artifact's manifest. Builds the artifact if it is missing or damaged."""
        return self.store.ensure(self)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts that were recorded during the build."""
        return self.manifest.facts

    @property
    def folder(self) -> Path:
        """The artifact's finished and verified folder."""
        _ = self.manifest
        return self.store.folder(self)

    def machine(self) -> dict[str, Any]:
        """Return the part of the settings that changes the last bits of a computation."""
        import torch

        return {"device": torch.device(self.settings.device).type, "precision": self.settings.precision}
