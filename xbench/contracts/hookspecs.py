"""The five hooks of xbench's plugins.

A plugin is a module that implements at least one of them and is named in an entry point of the group "xbench":

# my_package/__init__.py
from xbench import ExplainerSpec, hookimpl

@hookimpl
def xbench_explainers():
    yield ExplainerSpec("mine", "what it does in a line", factory="my_package.mine:Mine")

# pyproject.toml
[project.entry-points.xbench]
mine = "my_package"
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from xbench.contracts.specs import DatasetSpec, ExplainerSpec, MetricSpec, ModelSpec, SuiteSpec

hookspec = pluggy.HookspecMarker("xbench")
hookimpl = pluggy.HookimplMarker("xbench")


@hookspec
def xbench_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return the datasets of this plugin."""


@hookspec
def xbench_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Return the models of this plugin."""


@hookspec
def xbench_explainers() -> Iterable[ExplainerSpec]:  # type: ignore[empty-body]
    """Return the explainers of this plugin."""


@hookspec
def xbench_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Return the metrics of this plugin."""


@hookspec
def xbench_suites() -> Iterable[SuiteSpec]:  # type: ignore[empty-body]
    """Return the suites of this plugin."""
