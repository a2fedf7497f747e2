"""The job of a trained explainer's state, and the classifiers that some of them bring."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from xbench.contracts.explainer import Explainer
from xbench.contracts.session import Session
from xbench.jobs.base import Instance, Job, Settings
from xbench.jobs.cost import PeakMemory, allocated, network_bytes
from xbench.jobs.model import ModelJob
from xbench.jobs.store import Store
from xbench.registry.references import Choice
from xbench.runtime.blame import blamed

if TYPE_CHECKING:
    from torch import nn

PEAK = "peak_bytes"


class ExplainerJob(Job):
    """The state of a trained explainer.

    Args:
        store: The cache.
        settings: Settings of the run.
        choice: The explainer.
        model: The shared model that the explainer is fitted to.
        instance: The plugin's object, shared with the maps.
    """

    kind = "explainer"

    def __init__(self, store: Store, settings: Settings, choice: Choice, model: ModelJob, instance: Instance) -> None:
        super().__init__(store, settings)
        self.choice, self.resolved = choice, choice.on(settings.device)
        self.model = model
        self.data = model.data
        self._instance = instance

    @property
    def label(self) -> str:
        return self.choice.label

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.data, self.model)

    def identity(self) -> dict[str, Any]:
        identity = self.resolved.identity()
        # The classifier that the maps are scored against does not change the training.
        identity["options"] = {key: value for key, value in identity["options"].items() if key != "subject"}
        return identity | self.machine() | {"seed": self.settings.seed}

    def build(self, session: Session) -> None:
        from xbench.contracts.explainer import undisturbed
        from xbench.runtime.randomness import isolated

        train, validation = self.data.split("train"), self.data.split("validation")
        memory = PeakMemory(self.settings.device, own=network_bytes(self.model.module))
        explainer: Explainer = self._instance.get()
        blame = blamed(self.choice.entry.owner, "fit", passed=(OSError,))
        with blame, undisturbed(self.model.module), isolated(session.seed, "fit"):
            explainer.fit(self.model.module, train, validation, self.data.info, session)
        session.facts[PEAK] = memory.bytes()

    @functools.cached_property
    def restored(self) -> Explainer:
        """The explainer with its trained state, on the device."""
        explainer: Explainer = self._instance.get()
        module, before = self.model.module, allocated(self.settings.device)
        explainer.restore(self.folder, module, self.data.info, self.settings.device)
        self._held = allocated(self.settings.device) - before
        return explainer

    @functools.cached_property
    def own_classifier(self) -> nn.Module:
        """The classifier of a self-explaining explainer, in eval mode on the device."""
        return self.restored.classifier().to(self.settings.device).eval()

    @property
    def held(self) -> float:
        """Bytes on the device of the restored state; 0 if it is not restored."""
        return self._held if "restored" in vars(self) else 0.0

    def forget(self) -> None:
        """Drop the explainer with its trained state."""
        for name in ("restored", "own_classifier"):
            vars(self).pop(name, None)
        self._instance.drop()


class OwnClassifier:
    """The own classifier of a self-explaining explainer, as a `Subject`."""

    def __init__(self, job: ExplainerJob) -> None:
        self.job = job

    @property
    def label(self) -> str:
        """The name shown in tables."""
        return f"own classifier of {self.job.label}"

    @property
    def module(self) -> nn.Module:
        """Module from images in [0, 1] to logits, in eval mode on the device."""
        return self.job.own_classifier
