"""Config + registry -> cells and the ordered artifacts they need; every incompatible cell is reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xbench.artifacts import Store
from xbench.config import RunConfig, resolve_device
from xbench.contracts.explainer import Explainer, check_target
from xbench.contracts.metric import Metric
from xbench.errors import PluginError, UserError, XbenchError
from xbench.jobs.base import Job, Settings
from xbench.jobs.data import DataJob
from xbench.jobs.maps import ExplainerJob, MadeOf, MapsJob, OwnClassifier
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob, Subject
from xbench.jobs.scores import ObservationsJob, PreparationJob
from xbench.references import Choice, choose
from xbench.registry import Registry
from xbench.specs import ExplainerSpec


@dataclass(frozen=True)
class Cell:
    """One number to be: an explainer in one sign, scored by a metric against a classifier on a dataset.

    Attributes:
        explainer: The explainer.
        control: Whether it is a control.
        subject: "shared", or "self" where the maps are scored against the explainer's own classifier.
        sign: "original" or "absolute".
        observations: The artifact that holds its per-sample observations.
    """

    explainer: Choice
    control: bool
    subject: str
    sign: str
    observations: ObservationsJob

    @property
    def maps(self) -> MapsJob:
        """The maps it scores."""
        return self.observations.maps

    @property
    def jobs(self) -> list[Job]:
        """Everything it needs, in order of making."""
        return _ordered([self.observations])


@dataclass(frozen=True)
class BrokenCell:
    """A number that can't be, because the explainer can't be made, by its plugin's fault.

    Attributes:
        dataset: Label.
        model: Label.
        explainer: Label.
        control: Whether it is a control.
        metric: Label.
        higher_is_better: The metric's direction.
        reason: Naming the distribution.
    """

    dataset: str
    model: str
    explainer: str
    control: bool
    metric: str
    higher_is_better: bool
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        cells: All numbers to be.
        skipped: Controls that do not apply, with the reason.
        broken: Numbers that can't be, because an explainer can't be made.
        settings: Shared by all jobs.
    """

    cells: tuple[Cell, ...]
    skipped: tuple[str, ...]
    broken: tuple[BrokenCell, ...]
    settings: Settings

    @property
    def jobs(self) -> list[Job]:
        """Every artifact to have, each once, upstream first."""
        return _ordered([cell.observations for cell in self.cells])


def make_plan(config: RunConfig, registry: Registry, store: Store) -> Plan:
    """Resolve names and options, pair everything with everything, refuse what does not fit.

    Raises:
        UserError: Unknown names, wrong options, or cells that can't work: all of these in one message.
    """
    settings = Settings(
        seed=config.seed,
        device=resolve_device(config.device),
        precision=config.precision,
        batch_size=config.batch_size,
        split=config.split,
        limit=config.limit,
        target=config.target,
        allow_pickle=config.allow_pickle,
    )
    datasets, models, metrics, asked = (
        [choose(kind, reference, registry) for reference in getattr(config, kind)]
        for kind in ("dataset", "model", "metric", "explainer")
    )
    planner = _Planner(store, settings, config.sign)
    explainers = [_Wanted(choice, by_user=True) for choice in _distinct(asked)]
    if config.controls:
        explainers += [_Wanted(choice, by_user=False) for choice in _joining(registry, asked)]
    for dataset in _distinct(datasets):
        data = DataJob(store, settings, dataset)
        check_target(settings.target, len(data.info.classes))
        for model in _distinct(models):
            planner.add_model(data, model, explainers, _distinct(metrics))
    return planner.finish()


@dataclass(frozen=True)
class _Wanted:
    choice: Choice
    by_user: bool


def _joining(registry: Registry, asked: list[Choice]) -> Iterator[Choice]:
    """The explainers that join by themselves and were not asked for."""
    named = {choice.label for choice in asked}
    # An explainer that joins every run needs no inverted and blurred company of its own.
    users = [choice for choice in asked if _spec(choice).joins == "no"]
    for entry in registry.of_kind("explainer"):
        joins = entry.spec.joins if isinstance(entry.spec, ExplainerSpec) else "no"
        references = {"run": [entry.spec.name], "explainer": [f"{entry.spec.name}:{user.label}" for user in users]}
        for reference in references.get(joins, []):
            choice = choose("explainer", reference, registry)
            if choice.label not in named:
                yield choice


def _spec(choice: Choice) -> ExplainerSpec:
    assert isinstance(choice.entry.spec, ExplainerSpec)
    return choice.entry.spec


def _distinct(choices: Iterable[Choice]) -> list[Choice]:
    return list({choice.label: choice for choice in choices}.values())


@dataclass
class _Planner:
    """Builds cells, sharing jobs, and collects what does not fit."""

    store: Store
    settings: Settings
    sign: str
    cells: list[Cell] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    broken: list[BrokenCell] = field(default_factory=list)

    def add_model(self, data: DataJob, model: Choice, explainers: list[_Wanted], metrics: list[Choice]) -> None:
        """All cells of one model on one dataset."""
        job = ModelJob(self.store, self.settings, model, data)
        shared = PredictionsJob(self.store, self.settings, CalibrationJob(self.store, self.settings, job, data))
        maps = _MapsOf(self.store, self.settings, job, shared)
        prepared: dict[tuple[str, int], PreparationJob] = {}
        made_metrics: list[tuple[Choice, Metric]] = [(choice, choice.create()) for choice in metrics]
        for wanted in explainers:
            try:
                made = self._maps(maps, wanted, job)
            except PluginError as error:
                self._break(wanted, job, made_metrics, str(error))
                continue
            if made is None:
                continue
            of_absolute = maps.of(wanted.choice, absolute=True)
            for choice, metric in made_metrics:
                reason = _misfit(metric, choice, made.explainer, data)
                if reason:
                    self._refuse(wanted, f"{wanted.choice.label} x {choice.label} on {data.label}: {reason}")
                    continue
                key = (choice.label, id(made.predictions))
                if key not in prepared:
                    prepared[key] = PreparationJob(self.store, self.settings, choice, metric, made.predictions)
                self._add_cells(wanted, {"original": made, "absolute": of_absolute}, prepared[key])

    def _maps(self, maps: _MapsOf, wanted: _Wanted, model: ModelJob) -> MapsJob | None:
        where = f"{wanted.choice.label} on {model.label} on {model.data.label}"
        made = maps.of(wanted.choice)
        reason = _unsupported(made, model)
        if reason:
            self._refuse(wanted, f"{where}: {reason}")
            return None
        return made

    def _break(self, wanted: _Wanted, model: ModelJob, metrics: list[tuple[Choice, Metric]], reason: str) -> None:
        where = (model.data.label, model.label, wanted.choice.label, _spec(wanted.choice).control)
        for choice, metric in metrics:
            self.broken.append(BrokenCell(*where, choice.label, metric.higher_is_better, reason))

    def _refuse(self, wanted: _Wanted, text: str) -> None:
        (self.refusals if wanted.by_user else self.skipped).append(text)

    def _add_cells(self, wanted: _Wanted, maps: dict[str, MapsJob], preparation: PreparationJob) -> None:
        subject = "self" if _scores_itself(wanted.choice) else "shared"
        for sign in ("original", "absolute") if self.sign == "both" else (self.sign,):
            made = maps[sign]
            # An unsigned map is its own absolute: the same observations stand in both rankings. What is made from
            # another explainer's maps took those absolute before.
            absolute = sign == "absolute" and made.inner is None and made.explainer.signed
            observations = ObservationsJob(self.store, self.settings, preparation, made, absolute)
            self.cells.append(Cell(wanted.choice, _spec(wanted.choice).control, subject, sign, observations))

    def finish(self) -> Plan:
        """The plan.

        Raises:
            UserError: Something the user asked for does not fit; all of it is listed.
        PluginError: Nothing is left to be scored.
        """
        if self.refusals:
            raise UserError("these cells can't be run:\n  " + "\n  ".join(self.refusals))
        if not self.cells:
            raise PluginError(self.broken[0].reason)
        return Plan(tuple(self.cells), tuple(self.skipped), tuple(self.broken), self.settings)


class _MapsOf:
    """The maps jobs of one model, each explainer once, so that `inverted:vinet` shares the maps of `vinet`."""

    def __init__(self, store: Store, settings: Settings, model: ModelJob, shared: PredictionsJob) -> None:
        self._store, self._settings, self._model, self._shared = store, settings, model, shared
        self._made: dict[tuple[str, bool], MapsJob] = {}

    def of(self, choice: Choice, absolute: bool = False) -> MapsJob:
        """The maps; `absolute` matters only for those made from signed maps of another explainer."""
        if absolute and (choice.inner is None or not self.of(choice).innermost.explainer.signed):
            return self.of(choice)
        key = (choice.label, absolute)
        if key not in self._made:
            self._made[key] = self._make(choice, absolute)
        return self._made[key]

    def _make(self, choice: Choice, absolute: bool) -> MapsJob:
        explainer: Explainer = choice.create()
        made_of = MadeOf(self.of(choice.inner, absolute), absolute) if choice.inner is not None else None
        state = ExplainerJob(self._store, self._settings, choice, self._model, explainer) if explainer.trained else None
        predictions = made_of.maps.predictions if made_of else self._shared
        if state is not None and _scores_itself(choice):
            subject: Subject = OwnClassifier(state)
            calibration = CalibrationJob(self._store, self._settings, subject, self._model.data)
            predictions = PredictionsJob(self._store, self._settings, calibration)
        return MapsJob(self._store, self._settings, choice, explainer, state, predictions, self._model, made_of)


def _scores_itself(choice: Choice) -> bool:
    if choice.inner is not None:
        return _scores_itself(choice.inner)
    return getattr(choice.options, "subject", "shared") == "self"


def _unsupported(maps: MapsJob, model: ModelJob) -> str:
    """Why the explainer can't explain the model, or an empty string."""
    if maps.inner is not None:
        return _unsupported(maps.inner, model)
    if type(maps.explainer).supports is Explainer.supports:
        return ""
    try:
        return maps.explainer.supports(model.fresh(), model.data.info) or ""
    except XbenchError as error:
        return str(error)
    except Exception as error:
        return f"{maps.choice.entry.owner} raised in supports: {type(error).__name__}: {error}"


def _misfit(metric: Metric, choice: Choice, explainer: Explainer, data: DataJob) -> str:
    if "masks" in metric.needs and not data.info.has_masks:
        return f"metric {choice.name} needs expert masks, and {data.label} has none"
    if "transfer" in metric.needs and not explainer.transfers:
        return f"metric {choice.name} needs an explainer that makes counterfactual images"
    return metric.supports(data.info) or ""


def _ordered(ends: Iterable[Job]) -> list[Job]:
    """The ends and all their upstream, each fingerprint once, upstream first."""
    seen: dict[str, Job] = {}

    def visit(job: Job) -> None:
        if job.fingerprint not in seen:
            for above in job.upstream:
                visit(above)
            seen.setdefault(job.fingerprint, job)

    for end in ends:
        visit(end)
    return list(seen.values())
