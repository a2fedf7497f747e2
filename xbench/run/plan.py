"""Plan a run: its cells and the ordered artifacts they need. All cells that do not fit are reported at once."""

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
    """A number to be computed: an explainer in one sign, scored by a metric against a classifier on a dataset.

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
        """Everything it needs, in the order it is made."""
        return _ordered([self.observations])


@dataclass(frozen=True)
class BrokenCell:
    """A number that can't be computed because the explainer can't be made, by its plugin's fault.

    Attributes:
        dataset: Label of the dataset.
        model: Label of the classifier.
        explainer: Label of the explainer.
        control: Whether it is a control.
        metric: Label of the metric.
        higher_is_better: Direction of the metric.
        reason: Why, with the name of the distribution.
    """

    dataset: str
    model: str
    explainer: str
    control: bool
    metric: str
    higher_is_better: bool
    reason: str


@dataclass(frozen=True)
class Refusal:
    """An explainer that does not fit a model, or a metric that does not fit an explainer or a dataset.

    Attributes:
        explainer: Label of the explainer.
        dataset: Label of the dataset.
        reason: Why it does not fit, as a plugin or the plan says it.
        model: Label of the classifier that the explainer can't explain; empty where the metric does not fit.
        metric: Label of the metric that does not fit; empty where the explainer does not.
    """

    explainer: str
    dataset: str
    reason: str
    model: str = ""
    metric: str = ""

    def __str__(self) -> str:
        if self.metric:
            return f"{self.explainer} x {self.metric} on {self.dataset}: {self.reason}"
        return f"{self.explainer} on {self.model} on {self.dataset}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """Cells of a run, and the pictures drawn with them.

    Attributes:
        cells: All numbers to be computed.
        skipped: Combinations that do not fit and need not, such as controls that do not apply.
        broken: Numbers that can't be computed because an explainer can't be made.
        settings: Settings shared by all jobs.
        views: Images that maximise the score of each class of a model.
        strips: Counterfactual images of the explainers that make any.
        tables: Name of each table of a suite -> its cells; a cell may be in several. Empty without a suite.
    """

    cells: tuple[Cell, ...]
    skipped: tuple[Refusal, ...]
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
    """Resolve names and options, pair everything with everything, and refuse what does not fit.

    Raises:
        UserError: Unknown names, wrong options, or cells that can't work: all of these in one message.
    """
    planner = _planner(config, store)
    planner.add(config, registry, strict=True)
    return planner.finish()


def make_suite_plan(
    tables: Mapping[str, RunConfig], added: Sequence[Reference], registry: Registry, store: Store
) -> Plan:
    """Plan the cells of several tables together. What does not fit is skipped and reported, as with `all`.

    Args:
        tables: Name -> what it asks for; they differ only in what `TableConfig` holds.
        added: Explainers that the user adds to the tables; each must fit somewhere.
        registry: The installed items.
        store: The cache.

    Raises:
        UserError: Unknown names, wrong options; an added explainer, or nothing at all, that fits anywhere.
    """
    planner = _planner(next(iter(tables.values())), store)
    cells = {name: planner.add(config, registry, strict=False) for name, config in tables.items()}
    return planner.finish(cells, named("explainer", added, registry))


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


class _ModelOnData:
    """A model on a dataset, and what has been built for it."""

    def __init__(self, store: Store, settings: Settings, model: Choice, data: DataJob) -> None:
        self.data = data
        self.job = ModelJob(store, settings, model, data)
        shared = PredictionsJob(store, settings, CalibrationJob(store, settings, self.job, data))
        self.maps = MapsFactory(store, settings, self.job, shared)
        self.support = SupportCheck()
        self.prepared: dict[tuple[str, int], PreparationJob] = {}


@dataclass
class _Planner:
    """Build cells that share jobs, and collect what does not fit."""

    store: Store
    settings: Settings
    model_view: bool
    data: dict[str, DataJob] = field(default_factory=dict)
    pairs: dict[tuple[str, str], _ModelOnData] = field(default_factory=dict)
    cells: dict[tuple[str, ...], Cell] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    skipped: list[Refusal] = field(default_factory=list)
    broken: list[BrokenCell] = field(default_factory=list)

    def add(self, config: RunConfig, registry: Registry, strict: bool) -> tuple[Cell, ...]:
        """Add all cells that `config` asks for, and return them; one that was asked for before is shared.

        Args:
            config: Everything is paired with everything.
            registry: The installed items.
            strict: Whether every item that is named must fit.
        """
        scorers = wanted_metrics(config, registry, strict)
        explainers = wanted_explainers(config, registry, strict)
        datasets, models = (
            distinct(choose(kind, reference, registry) for reference in getattr(config, kind))
            for kind in ("dataset", "model")
        )
        signs = ("original", "absolute") if config.sign == "both" else (config.sign,)
        cells: list[Cell] = []
        for dataset in datasets:
            data = self.data.setdefault(dataset.label, DataJob(self.store, self.settings, dataset))
            check_target(self.settings.target, len(data.info.classes))
            for model in models:
                key = (data.label, model.label)
                if key not in self.pairs:
                    self.pairs[key] = _ModelOnData(self.store, self.settings, model, data)
                cells += self._add_pair(self.pairs[key], explainers, scorers, signs)
        return tuple(cells)

    def _add_pair(
        self, pair: _ModelOnData, explainers: list[Wanted], metrics: list[WantedMetric], signs: Sequence[str]
    ) -> Iterator[Cell]:
        """Yield all cells of one model on one dataset."""
        created: list[tuple[WantedMetric, Metric]] = [(scorer, scorer.choice.create()) for scorer in metrics]
        for wanted in explainers:
            try:
                maps = self._maps(wanted, pair)
            except PluginError as error:
                self._break(wanted, pair.job, created, str(error))
                continue
            if maps is None:
                continue
            by_sign = {"original": maps, "absolute": pair.maps.of(wanted.choice, absolute=True)}
            for scorer, metric in created:
                choice = scorer.choice
                if wanted.is_copy and metric.costs_as_much_as_the_maps:
                    continue
                reason = _misfit(metric, choice, maps.explainer, pair.data)
                if reason:
                    refusal = Refusal(wanted.choice.label, pair.data.label, reason, metric=choice.label)
                    self._refuse(wanted, refusal, must_fit=wanted.must_fit and scorer.must_fit)
                    continue
                key = (choice.label, id(maps.predictions))
                if key not in pair.prepared:
                    job = PreparationJob(self.store, self.settings, choice, choice.create(), maps.predictions)
                    pair.prepared[key] = job
                for sign in signs:
                    yield self._cell(wanted, sign, by_sign[sign], pair.prepared[key])

    def _maps(self, wanted: Wanted, pair: _ModelOnData) -> MapsJob | None:
        """Return the maps of an explainer; None, and a refusal noted, where it can't explain the model."""
        maps, model = pair.maps.of(wanted.choice), pair.job
        reason = pair.support.refusal(maps, model)
        if not reason:
            return maps
        refusal = Refusal(wanted.choice.label, model.data.label, reason, model=model.label)
        self._refuse(wanted, refusal, wanted.must_fit)
        return None

    def _break(self, wanted: Wanted, model: ModelJob, metrics: list[tuple[WantedMetric, Metric]], reason: str) -> None:
        where = (model.data.label, model.label, wanted.choice.label, spec_of(wanted.choice).control)
        for scorer, metric in metrics:
            self.broken.append(BrokenCell(*where, scorer.choice.label, metric.higher_is_better, reason))

    def _refuse(self, wanted: Wanted, refusal: Refusal, must_fit: bool) -> None:
        if must_fit:
            self.refusals.append(refusal)
        elif not wanted.is_copy:  # what is made of a refused explainer's maps goes with it, in silence
            self.skipped.append(refusal)

    def _cell(self, wanted: Wanted, sign: str, maps: MapsJob, preparation: PreparationJob) -> Cell:
        key = (maps.data.label, maps.model.label, wanted.choice.label, preparation.choice.label, sign)
        if key not in self.cells:
            subject = "self" if scores_itself(wanted.choice) else "shared"
            # An unsigned map is its own absolute: the same observations stand in both rankings. What is made from
            # another explainer's maps took those absolute before.
            absolute = sign == "absolute" and maps.inner is None and maps.explainer.signed
            observations = ObservationsJob(self.store, self.settings, preparation, maps, absolute)
            self.cells[key] = Cell(wanted.choice, spec_of(wanted.choice).control, subject, sign, observations)
        return self.cells[key]

    def finish(self, tables: Mapping[str, tuple[Cell, ...]] | None = None, added: Iterable[Choice] = ()) -> Plan:
        """Return the plan.

        Args:
            tables: Name of each table of a suite -> its cells.
            added: Explainers that must have a cell.

        Raises:
            UserError: Something the user asked for does not fit, or nothing at all does; all of it is listed.
            PluginError: No explainer that is left can be made.
        """
        scored = {cell.explainer.label for cell in self.cells.values()} | {cell.explainer for cell in self.broken}
        lost = {choice.label for choice in added} - scored
        refusals = self.refusals + [refusal for refusal in self.skipped if refusal.explainer in lost]
        if refusals or not (self.cells or self.broken):
            lines = dict.fromkeys(map(str, refusals or self.skipped))
            raise UserError("these cells can't be run:\n  " + "\n  ".join(lines))
        if not self.cells:
            raise PluginError(self.broken[0].reason)
        skipped, broken = tuple(dict.fromkeys(self.skipped)), tuple(dict.fromkeys(self.broken))
        views = [ViewJob(self.store, self.settings, pair.job) for pair in self.pairs.values() if self.model_view]
        return Plan(
            tuple(self.cells.values()), skipped, broken, self.settings, tuple(views), self._strips(), tables or {}
        )

    def _strips(self) -> tuple[CounterfactualsJob, ...]:
        """Return one job for each explainer that makes counterfactual images and has a cell."""
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
    """Return the ends and everything upstream of them, each fingerprint once, upstream first."""
    seen: dict[str, Job] = {}

    def visit(job: Job) -> None:
        if job.fingerprint not in seen:
            for above in job.upstream:
                visit(above)
            seen.setdefault(job.fingerprint, job)

    for end in ends:
        visit(end)
    return list(seen.values())
