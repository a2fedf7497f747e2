"""Config + registry -> cells and the ordered artifacts they need; every incompatible cell is reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xbench.contracts.explainer import Explainer, check_target
from xbench.contracts.metric import Metric
from xbench.errors import PluginError, UserError
from xbench.jobs.base import Job, Settings
from xbench.jobs.counterfactuals import CounterfactualsJob
from xbench.jobs.data import DataJob
from xbench.jobs.maps import MapsJob
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob
from xbench.jobs.pairing import MapsFactory, SupportCheck, scores_itself
from xbench.jobs.scores import ObservationsJob, PreparationJob
from xbench.jobs.store import Store
from xbench.jobs.views import ViewJob
from xbench.registry.entries import Registry
from xbench.registry.references import Choice, choose
from xbench.request.config import Reference, RunConfig, resolve_device
from xbench.request.selection import Wanted, WantedMetric, distinct, named, spec_of, wanted_explainers, wanted_metrics


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
        strips: Counterfactual images of the explainers that make any.
        tables: Of a suite: name -> the cells of that table; a cell may be in several.
    """

    cells: tuple[Cell, ...]
    skipped: tuple[str, ...]
    broken: tuple[BrokenCell, ...]
    settings: Settings
    views: tuple[ViewJob, ...] = ()
    strips: tuple[CounterfactualsJob, ...] = ()
    tables: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)

    @property
    def jobs(self) -> list[Job]:
        """Every artifact to have, each once, upstream first."""
        return _ordered([*(cell.observations for cell in self.cells), *self.views, *self.strips])


def make_plan(config: RunConfig, registry: Registry, store: Store) -> Plan:
    """Resolve names and options, pair everything with everything, refuse what does not fit.

    Raises:
        UserError: Unknown names, wrong options, or cells that can't work: all of these in one message.
    """
    planner = _planner(config, store)
    planner.add(config, registry, strict=True)
    return planner.finish()


def make_suite_plan(
    tables: Mapping[str, RunConfig], added: Sequence[Reference], registry: Registry, store: Store
) -> Plan:
    """The union of the cells of several tables; what does not fit is left out with its reason, as after `all`.

    Args:
        tables: Name -> what it asks for; they differ only in what `TableConfig` holds.
        added: Explainers that the user adds to the tables; each must fit somewhere.
        registry: What is installed.
        store: The cache.

    Raises:
        UserError: Unknown names, wrong options; an added explainer, or nothing at all, that fits anywhere.
    """
    planner = _planner(next(iter(tables.values())), store)
    made = {}
    for name, config in tables.items():
        made[name] = planner.add(config, registry, strict=False)
    return planner.finish(made, named("explainer", added, registry))


def _planner(config: RunConfig, store: Store) -> _Planner:
    settings = Settings(
        seed=config.seed,
        device=resolve_device(config.device, config.precision),
        precision=config.precision,
        batch_size=config.batch_size,
        split=config.split,
        limit=config.limit,
        target=config.target,
        allow_pickle=config.allow_pickle,
    )
    return _Planner(store, settings, config.model_view)


class _Place:
    """A model on a dataset, and what has been built for it."""

    def __init__(self, store: Store, settings: Settings, model: Choice, data: DataJob) -> None:
        self.data = data
        self.job = ModelJob(store, settings, model, data)
        shared = PredictionsJob(store, settings, CalibrationJob(store, settings, self.job, data))
        self.maps = MapsFactory(store, settings, self.job, shared)
        self.fits = SupportCheck()
        self.prepared: dict[tuple[str, int], PreparationJob] = {}


@dataclass
class _Planner:
    """Builds cells, sharing jobs, and collects what does not fit."""

    store: Store
    settings: Settings
    model_view: bool
    data: dict[str, DataJob] = field(default_factory=dict)
    places: dict[tuple[str, str], _Place] = field(default_factory=dict)
    cells: dict[tuple[str, ...], Cell] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    broken: list[BrokenCell] = field(default_factory=list)

    def add(self, config: RunConfig, registry: Registry, strict: bool) -> tuple[Cell, ...]:
        """All cells that `config` asks for, each once, whoever asked for it before.

        Args:
            config: Everything is paired with everything.
            registry: What is installed.
            strict: Whether what is named must fit.
        """
        scorers = wanted_metrics(config, registry, strict)
        explainers = wanted_explainers(config, registry, strict)
        datasets, models = (
            distinct(choose(kind, reference, registry) for reference in getattr(config, kind))
            for kind in ("dataset", "model")
        )
        signs = ("original", "absolute") if config.sign == "both" else (config.sign,)
        found: list[Cell] = []
        for dataset in datasets:
            data = self.data.setdefault(dataset.label, DataJob(self.store, self.settings, dataset))
            check_target(self.settings.target, len(data.info.classes))
            for model in models:
                key = (data.label, model.label)
                if key not in self.places:
                    self.places[key] = _Place(self.store, self.settings, model, data)
                found += self._add_place(self.places[key], explainers, scorers, signs)
        return tuple(found)

    def _add_place(
        self, place: _Place, explainers: list[Wanted], metrics: list[WantedMetric], signs: Sequence[str]
    ) -> Iterator[Cell]:
        """All cells of one model on one dataset."""
        made_metrics: list[tuple[WantedMetric, Metric]] = [(scorer, scorer.choice.create()) for scorer in metrics]
        for wanted in explainers:
            try:
                made = self._maps(wanted, place)
            except PluginError as error:
                self._break(wanted, place.job, made_metrics, str(error))
                continue
            if made is None:
                continue
            by_sign = {"original": made, "absolute": place.maps.of(wanted.choice, absolute=True)}
            for scorer, metric in made_metrics:
                choice = scorer.choice
                if wanted.is_company and metric.costs_as_much_as_the_maps:
                    continue
                reason = _misfit(metric, choice, made.explainer, place.data)
                if reason:
                    text = f"{wanted.choice.label} x {choice.label} on {place.data.label}: {reason}"
                    self._refuse(wanted, text, must_fit=wanted.must_fit and scorer.must_fit)
                    continue
                key = (choice.label, id(made.predictions))
                if key not in place.prepared:
                    job = PreparationJob(self.store, self.settings, choice, choice.create(), made.predictions)
                    place.prepared[key] = job
                for sign in signs:
                    yield self._cell(wanted, sign, by_sign[sign], place.prepared[key])

    def _maps(self, wanted: Wanted, place: _Place) -> MapsJob | None:
        made, model = place.maps.of(wanted.choice), place.job
        reason = place.fits.refusal(made, model)
        if not reason:
            return made
        self._refuse(wanted, f"{wanted.choice.label} on {model.label} on {model.data.label}: {reason}", wanted.must_fit)
        return None

    def _break(self, wanted: Wanted, model: ModelJob, metrics: list[tuple[WantedMetric, Metric]], reason: str) -> None:
        where = (model.data.label, model.label, wanted.choice.label, spec_of(wanted.choice).control)
        for scorer, metric in metrics:
            self.broken.append(BrokenCell(*where, scorer.choice.label, metric.higher_is_better, reason))

    def _refuse(self, wanted: Wanted, text: str, must_fit: bool) -> None:
        if must_fit:
            self.refusals.append(text)
        elif not wanted.is_company:  # what is made of a refused explainer's maps goes with it, in silence
            self.skipped.append(text)

    def _cell(self, wanted: Wanted, sign: str, made: MapsJob, preparation: PreparationJob) -> Cell:
        key = (made.data.label, made.model.label, wanted.choice.label, preparation.choice.label, sign)
        if key not in self.cells:
            subject = "self" if scores_itself(wanted.choice) else "shared"
            # An unsigned map is its own absolute: the same observations stand in both rankings. What is made from
            # another explainer's maps took those absolute before.
            absolute = sign == "absolute" and made.inner is None and made.explainer.signed
            observations = ObservationsJob(self.store, self.settings, preparation, made, absolute)
            self.cells[key] = Cell(wanted.choice, spec_of(wanted.choice).control, subject, sign, observations)
        return self.cells[key]

    def finish(self, tables: Mapping[str, tuple[Cell, ...]] | None = None, added: Iterable[Choice] = ()) -> Plan:
        """The plan.

        Args:
            tables: Of a suite: name -> its cells.
            added: Explainers that must have a cell.

        Raises:
            UserError: Something the user asked for does not fit, or nothing at all does; all of it is listed.
            PluginError: Nothing is left to be scored.
        """
        scored = {cell.explainer.label for cell in self.cells.values()} | {cell.explainer for cell in self.broken}
        lost = tuple(f"{choice.label} " for choice in added if choice.label not in scored)
        refusals = self.refusals + [text for text in self.skipped if lost and text.startswith(lost)]
        if refusals or not (self.cells or self.broken):
            raise UserError("these cells can't be run:\n  " + "\n  ".join(dict.fromkeys(refusals or self.skipped)))
        if not self.cells:
            raise PluginError(self.broken[0].reason)
        skipped, broken = tuple(dict.fromkeys(self.skipped)), tuple(dict.fromkeys(self.broken))
        views = [ViewJob(self.store, self.settings, place.job) for place in self.places.values() if self.model_view]
        return Plan(
            tuple(self.cells.values()), skipped, broken, self.settings, tuple(views), self._strips(), tables or {}
        )

    def _strips(self) -> tuple[CounterfactualsJob, ...]:
        """One of each explainer that makes counterfactual images and has a cell."""
        makers = {id(cell.maps): cell.maps for cell in self.cells.values() if not cell.control}
        return tuple(
            CounterfactualsJob(self.store, self.settings, maps) for maps in makers.values() if maps.explainer.transfers
        )


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
