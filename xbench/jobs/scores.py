"""The jobs of a metric: its preparation for one classifier, and its observations of one explainer's maps."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from xbench.contracts.metric import Case, Metric, TrainMaps
from xbench.contracts.session import Session
from xbench.jobs.base import Job, Settings
from xbench.jobs.explanation import LiveExplainer
from xbench.jobs.feature import FeatureJob
from xbench.jobs.maps import MapsJob
from xbench.jobs.model import PredictionsJob
from xbench.jobs.store import Store
from xbench.registry.references import Choice
from xbench.runtime.blame import blamed
from xbench.runtime.files import whole_file

OBSERVATIONS = "observations.npz"
_AT_WORK = frozenset({"explain", "transfer", "masked"})


def _case(predictions: PredictionsJob, session: Session, **more: Any) -> Case:
    calibration, data = predictions.calibration, predictions.data
    return Case(
        info=data.info,
        split=data.scored,
        train_mean=data.train_mean,
        logits_of=calibration.scorer,
        logits=predictions.logits,
        session=session.resized(calibration.batch_size),
        model=calibration.subject.module,
        training=data.split("train"),
        **more,
    )


def _save(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    with whole_file(folder / OBSERVATIONS) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _load(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / OBSERVATIONS, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


class PreparationJob(Job):
    """The arrays that a metric computes once per dataset and classifier, for all explainers."""

    kind = "preparation"

    def __init__(
        self, store: Store, settings: Settings, choice: Choice, metric: Metric, predictions: PredictionsJob
    ) -> None:
        super().__init__(store, settings)
        self.choice, self.predictions = choice, predictions
        self._metric: Metric | None = metric
        feature = metric.feature
        self.feature = None if feature is None else FeatureJob(store, settings, feature, choice, predictions.data)

    @property
    def label(self) -> str:
        return f"{self.choice.label} of {self.predictions.label}"

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.predictions, *(() if self.feature is None else (self.feature,)))

    def forget(self) -> None:
        """Drop the metric, which all observations share."""
        self._metric = None

    @property
    def metric(self) -> Metric:
        """The plugin's object."""
        if self._metric is None:
            self._metric = self.choice.create()
        assert self._metric is not None
        return self._metric

    @property
    def _sees_targets(self) -> bool:
        return "targets" in self.metric.needs

    def identity(self) -> dict[str, Any]:
        target = {"target": self.settings.target} if self._sees_targets else {}
        return self.choice.identity() | {"seed": self.settings.seed} | target

    def build(self, session: Session) -> None:
        targets = self.predictions.targets if self._sees_targets else np.empty(0, dtype=np.int64)
        features = None if self.feature is None else self.feature.features
        case = _case(self.predictions, session, targets=targets, feature=features)
        with blamed(self.choice.entry.owner, "prepare", passed=(OSError,)):
            prepared = self.metric.prepare(case)
        _save(session.folder, prepared)

    @functools.cached_property
    def prepared(self) -> dict[str, np.ndarray]:
        """The prepared arrays by name."""
        return _load(self.folder)


class ObservationsJob(Job):
    """A metric's observations of each sample, for one explainer's maps in one sign."""

    kind = "observations"

    def __init__(
        self, store: Store, settings: Settings, preparation: PreparationJob, maps: MapsJob, absolute: bool
    ) -> None:
        super().__init__(store, settings)
        self.preparation, self.maps, self.absolute = preparation, maps, absolute
        self.choice = preparation.choice
        self.train = maps.of_training if "train" in self.metric.needs else None
        self.feature = preparation.feature

    @property
    def metric(self) -> Metric:
        """The plugin's object."""
        return self.preparation.metric

    @property
    def label(self) -> str:
        sign = ", absolute" if self.absolute else ""
        return f"{self.choice.label} of {self.maps.choice.label}{sign}"

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.preparation, self.maps, *(job for job in (self.train, self.feature) if job is not None))

    def identity(self) -> dict[str, Any]:
        return self.choice.identity() | {"absolute": self.absolute, "seed": self.settings.seed}

    def build(self, session: Session) -> None:
        from xbench.compute.passes import unchanging

        case = _case(
            self.maps.predictions,
            session,
            targets=self.maps.targets,
            maps=self.maps.maps(self.absolute),
            prepared=self.preparation.prepared,
            feature=None if self.feature is None else self.feature.features,
            train=self._train_maps(),
            explanation=LiveExplainer(self.maps, self.absolute) if self.metric.needs & _AT_WORK else None,
            cost=self.maps.cost(),
        )
        with unchanging(self.maps.model.module):
            _save(session.folder, self.metric.observations(case, self.choice.entry.owner))

    def _train_maps(self) -> TrainMaps | None:
        if self.train is None:
            return None
        return TrainMaps(self.train.data.scored, self.train.maps(self.absolute), self.train.targets)

    @functools.cached_property
    def observations(self) -> dict[str, np.ndarray]:
        """The metric's arrays, and two columns that every metric's summary may use: label and target."""
        scored = self.maps.data.scored
        return _load(self.folder) | {"label": scored.labels, "target": self.maps.targets}

    def card(self) -> dict[str, Any]:
        """Return what the value means. Rows with different cards are never ranked together."""
        settings = self.settings
        return {
            "metric": self.choice.name,
            "argument": self.choice.argument,
            "options": self.choice.contents(),
            "sign": "absolute" if self.absolute else "original",
            "target": settings.target,
            "split": settings.split,
            "limit": settings.limit,
            **self.metric.card(self.maps.data.info),
        }
