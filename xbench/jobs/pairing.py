"""Pairs of an explainer and a model: the jobs of their maps, and whether the explainer can explain the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbench.contracts.explainer import Explainer, undisturbed
from xbench.errors import XbenchError
from xbench.jobs.base import Instance, Settings
from xbench.jobs.explainer import ExplainerJob, OwnClassifier
from xbench.jobs.maps import InnerMaps, MapsJob
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob, Subject
from xbench.jobs.store import Store
from xbench.registry.references import Choice
from xbench.runtime.batching import give_back, out_of_memory
from xbench.runtime.devices import float32, is_out_of_memory

if TYPE_CHECKING:
    from torch import nn


class MapsFactory:
    """Factory of the maps jobs of one model, one per explainer, so that `inverted:vinet` shares the maps of `vinet`."""

    def __init__(self, store: Store, settings: Settings, model: ModelJob, shared: PredictionsJob) -> None:
        self._store, self._settings, self._model, self._shared = store, settings, model, shared
        self._made: dict[tuple[str, bool], MapsJob] = {}

    def of(self, choice: Choice, absolute: bool = False) -> MapsJob:
        """Return the maps job. `absolute` matters only for maps made from signed maps of another explainer."""
        if absolute and (choice.inner is None or not self.of(choice).innermost.explainer.signed):
            return self.of(choice)
        key = (choice.label, absolute)
        if key not in self._made:
            self._made[key] = self._make(choice, absolute)
        return self._made[key]

    def _make(self, choice: Choice, absolute: bool) -> MapsJob:
        instance = Instance(choice.on(self._settings.device))
        explainer: Explainer = instance.get()
        made_of = InnerMaps(self.of(choice.inner, absolute), absolute) if choice.inner is not None else None
        state = ExplainerJob(self._store, self._settings, choice, self._model, instance) if explainer.trained else None
        predictions = made_of.maps.predictions if made_of else self._shared
        if state is not None and scores_itself(choice):
            subject: Subject = OwnClassifier(state)
            calibration = CalibrationJob(self._store, self._settings, subject, self._model.data)
            predictions = PredictionsJob(self._store, self._settings, calibration)
        return MapsJob(self._store, self._settings, choice, instance, state, predictions, self._model, made_of)


def scores_itself(choice: Choice) -> bool:
    """Return whether the maps are scored against the explainer's own classifier (`subject=self`)."""
    if choice.inner is not None:
        return scores_itself(choice.inner)
    return getattr(choice.options, "subject", "shared") == "self"


class SupportCheck:
    """A check of which explainers can explain a model. Each is asked once, with one shared untrained copy."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._module: nn.Module | None = None

    def refusal(self, maps: MapsJob, model: ModelJob) -> str:
        """Return why the explainer can't explain the model, or an empty string.

        For an explainer of another explainer, the reason may come from either of them.
        """
        label = maps.choice.label
        if label not in self._reasons:
            of_inner = self.refusal(maps.inner, model) if maps.inner is not None else ""
            self._reasons[label] = of_inner or self._ask(maps, model)
        return self._reasons[label]

    def _ask(self, maps: MapsJob, model: ModelJob) -> str:
        if type(maps.explainer).supports is Explainer.supports:
            return ""
        try:
            if self._module is None:
                self._module = model.fresh()
            with float32("32"), undisturbed(self._module):
                return maps.explainer.supports(self._module, model.data.info) or ""
        except XbenchError as error:
            reason = str(error)
        except Exception as error:
            reason = f"{maps.choice.entry.owner} raised in supports: {type(error).__name__}: {error}"
            if is_out_of_memory(error):
                reason = str(out_of_memory(f"a trial of {maps.choice.label} on {model.label}", error))
        for job in filter(None, (maps, maps.state)):
            job.forget()
        give_back()
        return reason
