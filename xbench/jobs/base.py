"""What all jobs share: settings, fingerprints, sessions."""

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
    """What the user chose for a whole run.

    Attributes:
        seed: Of the run.
        device: "cpu", "cuda", ...
        precision: "32", "tf32", "bf16", "16".
        batch_size: For passes without gradients; None = calibrated.
        split: The split that is scored.
        limit: At most so many of its samples; None = all.
        target: "predicted", "true", or a class index: the class each map explains.
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
    """A plugin's object that several jobs share, made anew once it was dropped.

    Args:
        choice: The plugin with its options.

    Raises:
        PluginError: It can't be made.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._object: Any = choice.create()

    def get(self) -> Any:
        """The object."""
        if self._object is None:
            self._object = self._choice.create()
        return self._object

    def drop(self) -> None:
        """Forget it, with whatever it keeps for itself."""
        self._object = None


class Job(ABC):
    """One artifact to have: what determines it, how it is made, how it is opened.

    Subclasses give `kind`, `label`, `upstream`, `identity` and `build`. Jobs are pure data until the store builds them;
    opening one (`module`, `split`, `maps` ... of the subclasses) builds it if it is not there.

    Args:
        store: The cache.
        settings: Of the run.
    """

    kind: ClassVar[str]

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is, for people."""

    def forget(self) -> None:
        """Drop the networks that it holds, and the plugin's object with whatever that keeps for itself.

        All of it comes back, from disk, when it is asked for again.
        """

    @property
    @abstractmethod
    def upstream(self) -> tuple[Job, ...]:
        """The artifacts it is made from."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What determines it, apart from its upstream, the code and the libraries."""

    @abstractmethod
    def build(self, session: Session) -> None:
        """Write its files into `session.folder`."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of its recipe."""
        return digest(self.recipe())

    def recipe(self) -> dict[str, Any]:
        """Everything that determines it, as JSON."""
        return {
            "kind": self.kind,
            "identity": self.identity(),
            "upstream": [job.fingerprint for job in self.upstream],
            "core": core_digest(),
            "libraries": dict(library_versions()),
        }

    def session(self, folder: Path, progress: Progress) -> Session:
        """The surroundings of its making; the seed is drawn from the run's seed and the kind of work."""
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
        """Its manifest, once it is made and whole."""
        return self.store.ensure(self)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its making remembered."""
        return self.manifest.facts

    @property
    def folder(self) -> Path:
        """Its finished, verified folder."""
        _ = self.manifest
        return self.store.folder(self)

    def machine(self) -> dict[str, Any]:
        """The part of the settings that changes the last bits of a computation."""
        import torch

        return {"device": torch.device(self.settings.device).type, "precision": self.settings.precision}
