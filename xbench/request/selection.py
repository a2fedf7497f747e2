"""Selection of explainers and metrics from names and `all`, and the controls that are added automatically."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xbench.contracts.specs import ExplainerSpec
from xbench.registry.entries import Registry
from xbench.registry.references import Choice, choose
from xbench.request.config import Reference, TableConfig

ALL = "all"
"""The user's word for all installed explainers or metrics. Those that don't fit are skipped and reported."""


@dataclass(frozen=True)
class Wanted:
    """An explainer of a run.

    Attributes:
        choice: The explainer.
        must_fit: Whether it is an error if it can't explain a model.
        joined: Whether it was added automatically.
    """

    choice: Choice
    must_fit: bool
    joined: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether it was added automatically as the inverted or blurred copy of another explainer."""
        return self.joined and spec_of(self.choice).joins == "explainer"


@dataclass(frozen=True)
class WantedMetric:
    """A metric of a run.

    Attributes:
        choice: The metric.
        must_fit: Whether it is an error if it can't score an explainer that must fit.
    """

    choice: Choice
    must_fit: bool


def wanted_metrics(config: TableConfig, registry: Registry, strict: bool) -> list[WantedMetric]:
    """Return the metrics that `config` requests, each once. If `strict`, the named ones must fit."""
    wanted = [WantedMetric(choice, must_fit=strict) for choice in named("metric", config.metric, registry)]
    if ALL in config.metric:
        taken = {metric.choice.label for metric in wanted}
        others = [choice for choice in all_metrics(registry) if choice.label not in taken]
        wanted += [WantedMetric(choice, must_fit=False) for choice in others]
    return wanted


def wanted_explainers(config: TableConfig, registry: Registry, strict: bool) -> list[Wanted]:
    """Return the requested and the added explainers, each once. If `strict`, the named ones must fit."""
    asked = named("explainer", config.explainer, registry)
    wanted = [Wanted(choice, must_fit=strict) for choice in asked]
    others = all_explainers(registry) if ALL in config.explainer else []
    wanted += [Wanted(choice, must_fit=False) for choice in distinct(others) if choice not in asked]
    if config.controls:
        users = [explainer.choice for explainer in wanted]
        wanted += [Wanted(choice, must_fit=False, joined=True) for choice in _joining(registry, users)]
    return wanted


def named(kind: str, references: Iterable[Reference], registry: Registry) -> list[Choice]:
    """Return the named items, each once. `all` is not a name."""
    return distinct(choose(kind, reference, registry) for reference in references if reference != ALL)


def all_metrics(registry: Registry) -> list[Choice]:
    """Return every metric that needs no argument, with its default options."""
    specs = [entry.spec for entry in registry.of_kind("metric")]
    return [choose("metric", spec.name, registry) for spec in specs if not spec.argument]


def all_explainers(registry: Registry) -> list[Choice]:
    """Return every explainer that is not a control, with its default options.

    Explainers that need an argument are included only if they have a default one.
    """
    specs = [entry.spec for entry in registry.of_kind("explainer")]
    return [
        choose("explainer", spec.name, registry)
        for spec in specs
        if isinstance(spec, ExplainerSpec) and not spec.control and (not spec.argument or spec.default)
    ]


def _joining(registry: Registry, asked: list[Choice]) -> Iterator[Choice]:
    """Yield the explainers that are added automatically and were not requested."""
    taken = {choice.label for choice in asked}
    # An explainer that is added to every run needs no inverted and blurred copies.
    users = [choice for choice in asked if spec_of(choice).joins == "no"]
    for entry in registry.of_kind("explainer"):
        joins = entry.spec.joins if isinstance(entry.spec, ExplainerSpec) else "no"
        references = {"run": [entry.spec.name], "explainer": [f"{entry.spec.name}:{user.label}" for user in users]}
        for reference in references.get(joins, []):
            choice = choose("explainer", reference, registry)
            if choice.label not in taken:
                yield choice


def spec_of(choice: Choice) -> ExplainerSpec:
    """Return the record of an explainer."""
    assert isinstance(choice.entry.spec, ExplainerSpec)
    return choice.entry.spec


def distinct(choices: Iterable[Choice]) -> list[Choice]:
    """Return the choices with each label once."""
    return list({choice.label: choice for choice in choices}.values())
