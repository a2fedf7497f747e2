"""Config + registry -> cells and the ordered artifacts they need; every incompatible cell is reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xbench.artifacts import Store
from xbench.config import Reference, RunConfig, resolve_device
from xbench.contracts.explainer import Explainer, check_target
from xbench.contracts.metric import Metric
from xbench.errors import PluginError, UserError
from xbench.jobs.base import Job, Settings
from xbench.jobs.data import DataJob
from xbench.jobs.maps import MapsJob
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob
from xbench.jobs.pairing import Fits, MapsOf, scores_itself
from xbench.jobs.scores import ObservationsJob, PreparationJob
from xbench.jobs.views import ViewJob
from xbench.references import Choice, choose
from xbench.registry import Registry
from xbench.specs import ExplainerSpec

ALL = "all"
"""What the user says for every installed explainer or metric; what doesn't fit is left out with its reason."""


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
        views: Pictures of the models.
    """

    cells: tuple[Cell, ...]
    skipped: tuple[str, ...]
    broken: tuple[BrokenCell, ...]
    settings: Settings
    views: tuple[ViewJob, ...] = ()

    @property
    def jobs(self) -> list[Job]:
        """Every artifact to have, each once, upstream first."""
        return _ordered([*(cell.observations for cell in self.cells), *self.views])


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
    datasets, models = (
        [choose(kind, reference, registry) for reference in getattr(config, kind)] for kind in ("dataset", "model")
    )
    metrics = [_Scorer(choice, by_user=True) for choice in _named("metric", config.metric, registry)]
    if ALL in config.metric:
        taken = {scorer.choice.label for scorer in metrics}
        metrics += [_Scorer(choice, by_user=False) for choice in all_metrics(registry) if choice.label not in taken]
    planner = _Planner(store, settings, config.sign, config.model_view)
    named = _named("explainer", config.explainer, registry)
    others = all_explainers(registry) if ALL in config.explainer else []
    explainers = [_Wanted(choice, by_user=True) for choice in named]
    explainers += [_Wanted(choice, by_user=False) for choice in _distinct(others) if choice not in named]
    asked = [wanted.choice for wanted in explainers]
    if config.controls:
        explainers += [_Wanted(choice, by_user=False) for choice in _joining(registry, asked)]
    for dataset in _distinct(datasets):
        data = DataJob(store, settings, dataset)
        check_target(settings.target, len(data.info.classes))
        for model in _distinct(models):
            planner.add_model(data, model, explainers, metrics)
    return planner.finish()


@dataclass(frozen=True)
class _Wanted:
    choice: Choice
    by_user: bool

    @property
    def is_company(self) -> bool:
        """Whether it joined as the inverted or blurred copy of another explainer."""
        return not self.by_user and _spec(self.choice).joins == "explainer"


@dataclass(frozen=True)
class _Scorer:
    choice: Choice
    by_user: bool


def _named(kind: str, references: Iterable[Reference], registry: Registry) -> list[Choice]:
    """What the user names, each once; `all` is not a name."""
    return _distinct(choose(kind, each, registry) for each in references if each != ALL)


def all_metrics(registry: Registry) -> list[Choice]:
    """Every metric that needs no argument, as it is by default."""
    specs = [entry.spec for entry in registry.of_kind("metric")]
    return [choose("metric", spec.name, registry) for spec in specs if not spec.argument]


def all_explainers(registry: Registry) -> list[Choice]:
    """Every explainer that is no control, as it is by default; those that need an argument only if they have one."""
    specs = [entry.spec for entry in registry.of_kind("explainer")]
    return [
        choose("explainer", spec.name, registry)
        for spec in specs
        if isinstance(spec, ExplainerSpec) and not spec.control and (not spec.argument or spec.default)
    ]


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
    model_view: bool
    views: list[ViewJob] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    broken: list[BrokenCell] = field(default_factory=list)

    def add_model(self, data: DataJob, model: Choice, explainers: list[_Wanted], metrics: list[_Scorer]) -> None:
        """All cells of one model on one dataset."""
        job = ModelJob(self.store, self.settings, model, data)
        shared = PredictionsJob(self.store, self.settings, CalibrationJob(self.store, self.settings, job, data))
        maps = MapsOf(self.store, self.settings, job, shared)
        fits = Fits()
        if self.model_view:
            self.views.append(ViewJob(self.store, self.settings, job))
        prepared: dict[tuple[str, int], PreparationJob] = {}
        made_metrics: list[tuple[_Scorer, Metric]] = [(scorer, scorer.choice.create()) for scorer in metrics]
        for wanted in explainers:
            try:
                made = self._maps(maps, wanted, job, fits)
            except PluginError as error:
                self._break(wanted, job, made_metrics, str(error))
                continue
            if made is None:
                continue
            of_absolute = maps.of(wanted.choice, absolute=True)
            for scorer, metric in made_metrics:
                choice = scorer.choice
                if metric.dear and wanted.is_company:
                    continue
                reason = _misfit(metric, choice, made.explainer, data)
                if reason:
                    text = f"{wanted.choice.label} x {choice.label} on {data.label}: {reason}"
                    self._refuse(wanted, text, by_user=wanted.by_user and scorer.by_user)
                    continue
                key = (choice.label, id(made.predictions))
                if key not in prepared:
                    prepared[key] = PreparationJob(self.store, self.settings, choice, metric, made.predictions)
                self._add_cells(wanted, {"original": made, "absolute": of_absolute}, prepared[key])

    def _maps(self, maps: MapsOf, wanted: _Wanted, model: ModelJob, fits: Fits) -> MapsJob | None:
        made = maps.of(wanted.choice)
        reason = fits.refusal(made, model)
        if not reason:
            return made
        self._refuse(wanted, f"{wanted.choice.label} on {model.label} on {model.data.label}: {reason}", wanted.by_user)
        return None

    def _break(self, wanted: _Wanted, model: ModelJob, metrics: list[tuple[_Scorer, Metric]], reason: str) -> None:
        where = (model.data.label, model.label, wanted.choice.label, _spec(wanted.choice).control)
        for scorer, metric in metrics:
            self.broken.append(BrokenCell(*where, scorer.choice.label, metric.higher_is_better, reason))

    def _refuse(self, wanted: _Wanted, text: str, by_user: bool) -> None:
        if by_user:
            self.refusals.append(text)
        elif not wanted.is_company:  # what is made of a refused explainer's maps goes with it, in silence
            self.skipped.append(text)

    def _add_cells(self, wanted: _Wanted, maps: dict[str, MapsJob], preparation: PreparationJob) -> None:
        subject = "self" if scores_itself(wanted.choice) else "shared"
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
        return Plan(tuple(self.cells), tuple(self.skipped), tuple(self.broken), self.settings, tuple(self.views))


def _misfit(metric: Metric, choice: Choice, explainer: Explainer, data: DataJob) -> str:
    if "masks" in metric.needs and not data.info.has_masks:
        return f"metric {choice.name} needs expert masks, and {data.label} has none"
    if "transfer" in metric.needs and not explainer.transfers:
        return f"metric {choice.name} needs an explainer that makes counterfactual images"
    if "masked" in metric.needs and not explainer.reads_through_maps:
        return f"metric {choice.name} needs an explainer whose own classifier reads through its maps"
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
