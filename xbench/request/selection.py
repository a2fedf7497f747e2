"""Who is asked for: names and `all` to explainers and metrics, and the controls that join by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xbench.contracts.specs import ExplainerSpec
from xbench.registry.entries import Registry
from xbench.registry.references import Choice, choose
from xbench.request.config import Reference, TableConfig

ALL = "all"
"""What the user says for every installed explainer or metric; what doesn't fit is left out with its reason."""


@dataclass(frozen=True)
class Wanted:
    """An explainer of a run.

    Attributes:
        choice: The explainer.
        must_fit: Whether it is an error if it can't explain a model.
        joined: Whether it joined by itself.
    """

    choice: Choice
    must_fit: bool
    joined: bool = False

    @property
    def is_company(self) -> bool:
        """Whether it joined as the inverted or blurred copy of another explainer."""
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
    """The metrics that `config` asks for, each once; `strict`: those that are named must fit."""
    found = [WantedMetric(choice, must_fit=strict) for choice in named("metric", config.metric, registry)]
    if ALL in config.metric:
        taken = {scorer.choice.label for scorer in found}
        found += [WantedMetric(choice, must_fit=False) for choice in all_metrics(registry) if choice.label not in taken]
    return found


def wanted_explainers(config: TableConfig, registry: Registry, strict: bool) -> list[Wanted]:
    """The explainers that `config` asks for, and those that join, each once; `strict`: those named must fit."""
    asked = named("explainer", config.explainer, registry)
    found = [Wanted(choice, must_fit=strict) for choice in asked]
    others = all_explainers(registry) if ALL in config.explainer else []
    found += [Wanted(choice, must_fit=False) for choice in distinct(others) if choice not in asked]
    if config.controls:
        users = [wanted.choice for wanted in found]
        found += [Wanted(choice, must_fit=False, joined=True) for choice in _joining(registry, users)]
    return found


def named(kind: str, references: Iterable[Reference], registry: Registry) -> list[Choice]:
    """What the user names, each once; `all` is not a name."""
    return distinct(choose(kind, each, registry) for each in references if each != ALL)


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
    taken = {choice.label for choice in asked}
    # An explainer that joins every run needs no inverted and blurred company of its own.
    users = [choice for choice in asked if spec_of(choice).joins == "no"]
    for entry in registry.of_kind("explainer"):
        joins = entry.spec.joins if isinstance(entry.spec, ExplainerSpec) else "no"
        references = {"run": [entry.spec.name], "explainer": [f"{entry.spec.name}:{user.label}" for user in users]}
        for reference in references.get(joins, []):
            choice = choose("explainer", reference, registry)
            if choice.label not in taken:
                yield choice


def spec_of(choice: Choice) -> ExplainerSpec:
    """The record of an explainer."""
    assert isinstance(choice.entry.spec, ExplainerSpec)
    return choice.entry.spec


def distinct(choices: Iterable[Choice]) -> list[Choice]:
    """Each label once."""
    return list({choice.label: choice for choice in choices}.values())
