"""Explainers: their trained state, and their maps of the scored samples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.artifacts import Store
from xbench.contracts.explainer import Explainer, MapTransform
from xbench.devices import float32
from xbench.errors import PluginError, UserError, XbenchError
from xbench.jobs.base import Job, Settings
from xbench.jobs.cost import PeakMemory, counted_passes
from xbench.jobs.data import DataJob
from xbench.jobs.feature import FeatureJob
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob
from xbench.mapped import MappedArray, writing
from xbench.references import Choice
from xbench.session import Session

if TYPE_CHECKING:
    import torch
    from torch import nn

    from xbench.samples import Batch

MAPS = "maps.npy"


class ExplainerJob(Job):
    """The state of a trained explainer."""

    kind = "explainer"

    def __init__(self, store: Store, settings: Settings, choice: Choice, model: ModelJob, explainer: Explainer) -> None:
        super().__init__(store, settings)
        self.choice, self.resolved = choice, choice.on(settings.device)
        self.model = model
        self.data = model.data
        self.explainer = explainer

    @property
    def label(self) -> str:
        return self.choice.label

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.data, self.model)

    def identity(self) -> dict[str, Any]:
        identity = self.resolved.identity()
        # Which classifier its maps are scored against does not change how it is trained.
        identity["options"] = {key: value for key, value in identity["options"].items() if key != "subject"}
        return identity | self.machine() | {"seed": self.settings.seed}

    def build(self, session: Session) -> None:
        from xbench.contracts.explainer import undisturbed
        from xbench.seeding import isolated

        train, validation = self.data.split("train"), self.data.split("validation")
        try:
            with undisturbed(self.model.module), isolated(session.seed, "fit"):
                self.explainer.fit(self.model.module, train, validation, self.data.info, session)
        except (XbenchError, OSError):
            raise
        except Exception as error:
            owner = self.choice.entry.owner
            raise PluginError(f"{owner} raised in fit: {type(error).__name__}: {error}") from error

    @functools.cached_property
    def restored(self) -> Explainer:
        """The explainer with its trained state, on the device."""
        self.explainer.restore(self.folder, self.model.module, self.data.info, self.settings.device)
        return self.explainer


class OwnClassifier:
    """A self-explaining explainer's own classifier, as a `Subject`."""

    def __init__(self, job: ExplainerJob) -> None:
        self.job = job

    @property
    def label(self) -> str:
        """The name shown in tables."""
        return f"own classifier of {self.job.label}"

    @functools.cached_property
    def module(self) -> nn.Module:
        """Images in [0, 1] to logits, in eval mode on the device."""
        return self.job.restored.classifier().to(self.job.settings.device).eval()


@dataclass(frozen=True)
class MadeOf:
    """What the maps of an explainer of another explainer are made from.

    Attributes:
        maps: The other explainer's.
        absolute: Whether those are taken absolute first. In the absolute column `blurred:<e>` is the blurred |map| of e
            and `inverted:<e>` its inversion: the sign belongs to the explainer, not to what is done to its maps.
    """

    maps: MapsJob
    absolute: bool


class MapsJob(Job):
    """One explainer's maps of the scored samples: maps.npy float32 (N, *spatial), targets.npy int64 (N,).

    Args:
        store: The cache.
        settings: Of the run.
        choice: The explainer.
        explainer: The plugin object, made of the choice as it is on the settings' device.
        state: Its trained state, or None.
        predictions: Of the classifier the maps are scored against, for the targets; their samples are explained.
        model: The shared model, which `attribute` is given.
        made_of: For an explainer of another explainer: the maps it is made from.
    """

    kind = "maps"

    def __init__(
        self,
        store: Store,
        settings: Settings,
        choice: Choice,
        explainer: Explainer,
        state: ExplainerJob | None,
        predictions: PredictionsJob,
        model: ModelJob,
        made_of: MadeOf | None = None,
    ) -> None:
        super().__init__(store, settings)
        self.choice, self.resolved = choice, choice.on(settings.device)
        self.explainer, self.state = explainer, state
        self.predictions, self.model = predictions, model
        self.inner = made_of.maps if made_of else None
        self.absolute = made_of is not None and made_of.absolute
        self.data: DataJob = predictions.data
        feature = explainer.feature
        self.feature = None if feature is None else FeatureJob(store, settings, feature, self.data)

    @property
    def label(self) -> str:
        return f"{self.choice.label} for {self.predictions.label}"

    @property
    def innermost(self) -> MapsJob:
        """Itself, or the maps at the bottom of an explainer of explainers."""
        return self if self.inner is None else self.inner.innermost

    @property
    def ready(self) -> Explainer:
        """The explainer, with its trained state if it has one."""
        return self.state.restored if self.state else self.explainer

    @property
    def calibration(self) -> CalibrationJob:
        """Of the classifier the maps are scored against."""
        return self.predictions.calibration

    @property
    def upstream(self) -> tuple[Job, ...]:
        own = (self.inner,) if self.inner is not None else (self.model, self.predictions)
        return (*own, *(job for job in (self.state, self.feature) if job is not None))

    def identity(self) -> dict[str, Any]:
        chosen = {"target": self.settings.target, "seed": self.settings.seed, "absolute": self.absolute}
        return self.resolved.identity() | self.machine() | chosen

    def build(self, session: Session) -> None:
        from xbench.passes import unchanging

        self._check_support()
        scored, targets = self.data.scored, self.predictions.targets
        np.save(session.folder / "targets.npy", targets)
        size = self.calibration.batch_size
        shape = (len(scored), *self.data.info.spatial)
        constant, incomplete, memory = 0, None, PeakMemory(self.settings.device)
        with (
            counted_passes(self.model.module) as passes,
            unchanging(self.model.module),  # inside: the copy takes the hook that counts with it
            writing(session.folder / MAPS, "<f4", shape) as out,
            session.progress.task("explaining", len(scored)) as bar,
        ):
            for maps in self._batches(size, targets):
                flat = maps.flatten(1)
                constant += int((flat.amax(1) == flat.amin(1)).sum())
                out.append(maps.cpu().numpy())
                bar.advance(len(maps))
                if self.explainer.completeness_error is not None:
                    incomplete = max(incomplete or 0.0, float(self.explainer.completeness_error.abs().max()))
        session.facts |= {"constant_maps": constant, "peak_bytes": memory.bytes()} | passes
        if incomplete is not None:
            session.facts["completeness_error"] = incomplete / max(float(np.abs(self.predictions.logits).max()), 1e-12)

    def _check_support(self) -> None:
        """Ask again, now that the model is trained: its weights may break what its layers allowed.

        Raises:
            UserError: The explainer can't explain this model.
        """
        if type(self.explainer).supports is not Explainer.supports:
            with float32("32"):  # a proof is one in true float32, whatever the precision of the maps
                reason = self.explainer.supports(self.model.module, self.data.info)
            if reason:
                raise UserError(f"{self.choice.label} can't explain {self.model.label} on {self.data.label}: {reason}")

    def _batches(self, size: int, targets: np.ndarray) -> Iterator[torch.Tensor]:
        """Maps of all samples in order, `size` at a time, halved for good when the device runs out of memory."""
        import torch

        start = 0
        while start < len(targets):
            stop = min(start + size, len(targets))
            try:
                maps = self._maps_of(start, stop, targets)
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise
                size = (stop - start + 1) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            yield maps
            start = stop

    def _maps_of(self, start: int, stop: int, targets: np.ndarray) -> torch.Tensor:
        import torch

        batch = self.data.scored.batch(np.arange(start, stop))
        if self.feature is not None:
            batch = dataclasses.replace(batch, feature=torch.from_numpy(self.feature.features[start:stop]))
        batch = batch.to(self.settings.device)
        if self.inner is not None:
            return self._transformed(batch, start)
        wanted = torch.from_numpy(targets[start:stop]).to(self.settings.device)
        return self.ready.explain(self.model.module, batch, wanted, self.choice.entry.owner, self.settings.seed)

    def _transformed(self, batch: Batch, start: int) -> torch.Tensor:
        import torch

        assert isinstance(self.explainer, MapTransform)
        assert self.inner is not None
        inner = self.inner.maps(absolute=self.absolute and self.inner.inner is None)
        finished = torch.from_numpy(inner[start : start + len(batch)]).to(self.settings.device)
        return self.explainer.checked_transform(finished, batch, self.choice.entry.owner)

    def maps(self, absolute: bool = False) -> MappedArray:
        """float32 (N, *spatial), or their absolute values, read slice by slice."""
        return MappedArray(np.load(self.folder / MAPS, mmap_mode="r"), absolute)

    def cost(self) -> dict[str, float]:
        """What the maps cost, those they are made from included."""
        inner = self.inner.cost() if self.inner is not None else {}
        own = {
            "seconds_maps": self.manifest.seconds,
            "seconds_fit": self.state.manifest.seconds if self.state else 0.0,
            "forward_passes": float(self.facts["forward_passes"]),
            "backward_passes": float(self.facts["backward_passes"]),
        }
        total = {key: value + inner.get(key, 0.0) for key, value in own.items()}
        return total | {"peak_bytes": float(np.nanmax([self.facts["peak_bytes"], inner.get("peak_bytes", np.nan)]))}

    @functools.cached_property
    def of_training(self) -> MapsJob:
        """The same maps of the whole training split; the networks are those of this job, not copies."""
        predictions = self.predictions.of_training
        made_of = None if self.inner is None else MadeOf(self.inner.of_training, self.absolute)
        settings = predictions.settings
        return MapsJob(self.store, settings, self.choice, self.explainer, self.state, predictions, self.model, made_of)

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """int64 (N,)."""
        targets: np.ndarray = np.load(self.folder / "targets.npy")
        return targets
