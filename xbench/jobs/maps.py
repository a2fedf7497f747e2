"""The job of an explainer's maps of the scored samples."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.contracts.explainer import Explainer, MapTransform
from xbench.contracts.samples import Attribution
from xbench.contracts.session import Session
from xbench.errors import UserError
from xbench.jobs.base import Instance, Job, Settings
from xbench.jobs.cost import PeakMemory, counted_passes, largest, network_bytes
from xbench.jobs.data import DataJob
from xbench.jobs.explainer import PEAK, ExplainerJob
from xbench.jobs.feature import FeatureJob
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob
from xbench.jobs.store import Store
from xbench.registry.references import Choice
from xbench.runtime.devices import float32, upload
from xbench.runtime.mapped import MappedArray, writing

if TYPE_CHECKING:
    import torch

    from xbench.contracts.samples import Batch

MAPS = "maps.npy"


@dataclass(frozen=True)
class InnerMaps:
    """The maps that an explainer of another explainer starts from.

    Attributes:
        maps: Maps of the other explainer.
        absolute: Whether their absolute values are taken first. In the absolute column, `blurred:<e>` is the blurred
            |map| of e and `inverted:<e>` its inversion, because the sign belongs to the explainer, not to the
            transform.
    """

    maps: MapsJob
    absolute: bool


class MapsJob(Job):
    """One explainer's maps of the scored samples: maps.npy float32 (N, *spatial), targets.npy int64 (N,).

    Args:
        store: The cache.
        settings: Settings of the run.
        choice: The explainer.
        instance: The plugin's object, created for the settings' device. Other jobs may share it.
        state: The trained state of the explainer, or None.
        predictions: Predictions of the classifier that the maps are scored against. They give the targets and the
            samples to explain.
        model: The shared model that `attribute` receives.
        made_of: The maps that an explainer of another explainer starts from, else None.
    """

    kind = "maps"

    def __init__(
        self,
        store: Store,
        settings: Settings,
        choice: Choice,
        instance: Instance,
        state: ExplainerJob | None,
        predictions: PredictionsJob,
        model: ModelJob,
        made_of: InnerMaps | None = None,
    ) -> None:
        super().__init__(store, settings)
        self.choice, self.resolved = choice, choice.on(settings.device)
        self._instance, self.state = instance, state
        self.predictions, self.model = predictions, model
        self.inner = made_of.maps if made_of else None
        self.absolute = made_of is not None and made_of.absolute
        self.data: DataJob = predictions.data
        feature = self.explainer.feature
        self.feature = None if feature is None else FeatureJob(store, settings, feature, choice, self.data)

    @property
    def label(self) -> str:
        return f"{self.choice.label} for {self.predictions.label}"

    @property
    def explainer(self) -> Explainer:
        """The plugin's object."""
        explainer: Explainer = self._instance.get()
        return explainer

    @property
    def innermost(self) -> MapsJob:
        """These maps, or the innermost maps for an explainer of another explainer."""
        return self if self.inner is None else self.inner.innermost

    @property
    def ready(self) -> Explainer:
        """The explainer, with its trained state if it has one."""
        return self.state.restored if self.state else self.explainer

    @property
    def calibration(self) -> CalibrationJob:
        """Calibration of the classifier that the maps are scored against."""
        return self.predictions.calibration

    @property
    def upstream(self) -> tuple[Job, ...]:
        own = (self.inner,) if self.inner is not None else (self.model, self.predictions)
        return (*own, *(job for job in (self.state, self.feature) if job is not None))

    def forget(self) -> None:
        """Drop the explainer. The state's job drops a trained one."""
        if self.state is None:
            self._instance.drop()

    def identity(self) -> dict[str, Any]:
        chosen = {"target": self.settings.target, "seed": self.settings.seed, "absolute": self.absolute}
        return self.resolved.identity() | self.machine() | chosen

    def build(self, session: Session) -> None:
        from xbench.compute.passes import unchanging

        self._check_support()
        scored, targets = self.data.scored, self.predictions.targets
        np.save(session.folder / "targets.npy", targets)
        session = session.resized(self.calibration.batch_size)
        shape = (len(scored), *self.data.info.spatial)
        computed = functools.partial(self._computed, targets)
        constant, errors, memory = 0, [], PeakMemory(self.settings.device, self._own_bytes())
        with (
            counted_passes(self.model.module) as passes,
            unchanging(self.model.module),  # inside, so that the copy takes the counting hook with it
            writing(session.folder / MAPS, "<f4", shape) as out,
        ):
            for _, (maps, error) in session.batched(len(scored), computed, "explaining"):
                flat = maps.reshape(len(maps), -1)
                constant += int((flat.max(1) == flat.min(1)).sum())
                out.append(maps)
                errors += [] if error is None else [error]
        session.facts |= {"constant_maps": constant, PEAK: memory.bytes()} | passes
        if errors:
            scale = max(float(np.abs(self.predictions.logits).max()), 1e-12)
            session.facts["completeness_error"] = max(0.0, *errors) / scale

    def _own_bytes(self) -> float:
        """Return the bytes already on the device of the networks that make the maps."""
        if self.inner is not None:
            return 0.0
        return network_bytes(self.model.module) + (self.state.held if self.state is not None else 0.0)

    def _check_support(self) -> None:
        """Ask the explainer again, now with the trained model, whose weights may break what its layers allowed.

        Raises:
            UserError: The explainer can't explain this model.
        """
        if type(self.explainer).supports is not Explainer.supports:
            with float32("32"):  # a proof needs true float32, whatever the precision of the maps
                reason = self.explainer.supports(self.model.module, self.data.info)
            if reason:
                raise UserError(f"{self.choice.label} can't explain {self.model.label} on {self.data.label}: {reason}")

    def _computed(self, targets: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, float | None]:
        """Return maps of some samples on the CPU, and the largest error of the sums that they promise."""
        found = self._attribution_of(start, stop, targets)
        error = found.completeness_error
        return found.maps.cpu().numpy(), None if error is None else float(error.abs().max())

    def _attribution_of(self, start: int, stop: int, targets: np.ndarray) -> Attribution:
        import torch

        batch = self.data.scored.batch(np.arange(start, stop))
        if self.feature is not None:
            batch = dataclasses.replace(batch, feature=torch.from_numpy(self.feature.features[start:stop]))
        batch = batch.to(self.settings.device)
        if self.inner is not None:
            return Attribution(self._transformed(batch, start))
        wanted = upload(torch.from_numpy(targets[start:stop]), self.settings.device)
        return self.ready.explain_fully(self.model.module, batch, wanted, self.choice.entry.owner, self.settings.seed)

    def _transformed(self, batch: Batch, start: int) -> torch.Tensor:
        import torch

        assert isinstance(self.explainer, MapTransform)
        assert self.inner is not None
        inner = self.inner.maps(absolute=self.absolute and self.inner.inner is None)
        finished = upload(torch.from_numpy(inner[start : start + len(batch)]), self.settings.device)
        return self.explainer.checked_transform(finished, batch, self.choice.entry.owner)

    def maps(self, absolute: bool = False) -> MappedArray:
        """Return the maps, float32 (N, *spatial), or their absolute values, read slice by slice."""
        return MappedArray(np.load(self.folder / MAPS, mmap_mode="r"), absolute)

    def cost(self) -> dict[str, float]:
        """Return the cost of the maps, including the maps that they are made from."""
        inner = self.inner.cost() if self.inner is not None else {}
        own = {
            "seconds_maps": self.manifest.seconds,
            "seconds_fit": self.state.manifest.seconds if self.state else 0.0,
            "forward_passes": float(self.facts["forward_passes"]),
            "backward_passes": float(self.facts["backward_passes"]),
        }
        total = {key: value + inner.get(key, 0.0) for key, value in own.items()}
        peaks = {
            "peak_bytes": float(self.facts[PEAK]),
            "fit_peak_bytes": float(self.state.facts[PEAK]) if self.state else 0.0,
        }
        return total | {key: largest(value, inner.get(key, value)) for key, value in peaks.items()}

    @functools.cached_property
    def of_training(self) -> MapsJob:
        """The maps of the whole training split. They share the networks of this job."""
        predictions = self.predictions.of_training
        made_of = None if self.inner is None else InnerMaps(self.inner.of_training, self.absolute)
        settings = predictions.settings
        return MapsJob(self.store, settings, self.choice, self._instance, self.state, predictions, self.model, made_of)

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """The class that each map explains, int64 (N,)."""
        targets: np.ndarray = np.load(self.folder / "targets.npy")
        return targets
