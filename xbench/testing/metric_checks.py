"""The conformance checks of metrics."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from xbench.contracts.metric import Case, Metric, TrainMaps
from xbench.contracts.roles import CurveRole
from xbench.contracts.session import Session
from xbench.errors import PluginError
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case
from xbench.testing.scenarios import Scenario, default_scenarios, fresh

_TOLERANCE = 1e-5
_NUMBERS = "biuf"  # numpy kinds: bool, int, unsigned, float
_RESERVED = {"id", "group", "label", "target", "dataset", "model", "explainer", "subject", "sign"}


def metric_checks(scenarios: Sequence[Scenario] | None = None) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield the checks of a metric: (name, check), where check takes an instance or a factory without arguments.

    Args:
        scenarios: Datasets and models to score random maps on; by default `default_scenarios()`.
    """
    scenarios = default_scenarios() if scenarios is None else scenarios
    for scenario in scenarios:
        yield f"observations_{scenario.name}", functools.partial(_observations, scenario)
    for check in (_deterministic, _independent_of_batch_size, _summarises_subsets, _summary_ignores_order):
        yield check.__name__.removeprefix("_"), functools.partial(check, scenarios[0])
    yield "curves", functools.partial(_curves, scenarios[0])
    yield "card", lambda subject: _card(scenarios[0], subject)


def _observed(metric: Metric, scenario: Scenario, batch_size: int = 8) -> tuple[Case, dict[str, np.ndarray]]:
    """Return a case of random maps, and the observations that the harness would hand to `summarise`."""
    split = scenario.split("test")
    maps = rng(0, "maps").standard_normal((len(split), *scenario.info.spatial)).astype(np.float32)
    maps.flags.writeable = False  # as the harness's memory maps are
    with tempfile.TemporaryDirectory(prefix="xbench-checks-") as folder:
        session = Session(Path(folder), batch_size=batch_size)
        case = fake_case(scenario.info, split, scenario.module(), maps, session, **_wanted(metric, scenario))
        prepared = _prepared(metric, case)
        for key, value in prepared.items():
            assert isinstance(value, np.ndarray), (
                f"prepare() gave {type(value).__name__} for {key!r}: give numpy arrays"
            )
        case = dataclasses.replace(case, prepared=prepared)
        try:
            observed = metric.observations(case, "under test")
        except PluginError as error:
            raise AssertionError(str(error)) from error
        own = observed.keys() & _RESERVED
        assert not own, f"observe() gave {', '.join(sorted(own))}: the harness adds these, choose other names"
    return case, {**observed, "label": split.labels, "target": case.targets}


def _prepared(metric: Metric, case: Case) -> dict[str, np.ndarray]:
    targets = case.targets if "targets" in metric.needs else np.empty(0, dtype=np.int64)
    try:
        return metric.prepare(dataclasses.replace(case, maps=np.empty((0,), dtype=np.float32), targets=targets))
    except Exception as error:
        raise AssertionError(
            f"prepare() raised {type(error).__name__}: {error} (it gets no maps, and targets only with needs 'targets')"
        ) from error


def _wanted(metric: Metric, scenario: Scenario) -> dict[str, Any]:
    """Return what the metric needs beside the maps: features of the images, maps of the training split."""
    import torch

    wanted: dict[str, Any] = {"training": scenario.split("train")}
    if metric.feature is not None:
        joined = [metric.feature.join(batch).feature for batch in scenario.split("test").batches(8)]
        wanted["feature"] = torch.cat([part for part in joined if part is not None]).numpy()
    if "train" in metric.needs:
        train = scenario.split("train")
        random = rng(0, "train maps").standard_normal((len(train), *scenario.info.spatial)).astype(np.float32)
        wanted["train"] = TrainMaps(train, random, train.labels.copy())
    return wanted


def _observations(scenario: Scenario, subject: Any) -> None:
    metric = fresh(subject, Metric)
    _, observed = _observed(metric, scenario)
    names = observed.keys() - {"label", "target"}
    assert names, "observe() gave nothing: give at least one array of one row per sample"
    for name in names:
        assert observed[name].dtype.kind in _NUMBERS, (
            f"observation {name!r} is {observed[name].dtype}: give bool, int or float"
        )
    _value(metric, observed, "all samples")


def _deterministic(scenario: Scenario, subject: Any) -> None:
    first, second = (_observed(fresh(subject, Metric), scenario)[1] for _ in range(2))
    _assert_same(first, second, "changes from call to call: draw from batch.seeds or session.generator()")


def _independent_of_batch_size(scenario: Scenario, subject: Any) -> None:
    first, second = (_observed(fresh(subject, Metric), scenario, size)[1] for size in (3, 16))
    _assert_same(first, second, "changes with the batch size: observe each sample by itself")


def _summarises_subsets(scenario: Scenario, subject: Any) -> None:
    metric = fresh(subject, Metric)
    _, observed = _observed(metric, scenario)
    labels = observed["label"]
    draw = rng(0, "subsets")
    subsets = {"one sample": np.array([0]), "one class only": np.flatnonzero(labels == labels[0])}
    subsets |= {f"resample {index}": draw.integers(len(labels), size=len(labels)) for index in range(20)}
    for name, rows in subsets.items():
        _value(metric, {key: values[rows] for key, values in observed.items()}, name)


def _summary_ignores_order(scenario: Scenario, subject: Any) -> None:
    metric = fresh(subject, Metric)
    _, observed = _observed(metric, scenario)
    turned = {key: values[::-1] for key, values in observed.items()}
    values = _value(metric, observed, "all samples"), _value(metric, turned, "all samples, last first")
    assert np.isclose(*values, rtol=1e-9, atol=1e-12, equal_nan=True), (
        f"summarise() gives {values[0]}, and {values[1]} for the same samples in another order: ignore the order"
    )


def _curves(scenario: Scenario, subject: Any) -> None:
    metric = fresh(subject, Metric)
    _, observed = _observed(metric, scenario)
    curves = metric.curves(observed)
    if curves is None:
        return
    for name, heights in curves.y.items():
        assert np.shape(heights) == np.shape(curves.x), (
            f"curve {name!r} has shape {np.shape(heights)}: give one height per x, {np.shape(curves.x)}"
        )
    assert all((curves.x_label, curves.y_label)), "curves() gave no axis label: name the quantity and its unit"
    for name, role in curves.roles.items():
        assert name in curves.y, f"curves() gives a role to {name!r}, which is none of its curves: {list(curves.y)}"
        assert role in get_args(CurveRole), f"curve {name!r} has the role {role!r}: use one of {get_args(CurveRole)}"


def _card(scenario: Scenario, subject: Any) -> None:
    card = fresh(subject, Metric).card(scenario.info)
    try:
        json.dumps(card, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(
            f"card() can't be written as JSON ({error}): use strings, numbers, lists and dicts"
        ) from None
    assert card, "card() is empty: say what the number means (score, target, ties, aggregation)"


def _value(metric: Metric, observed: dict[str, np.ndarray], name: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            value = metric.summarise(observed)
        except Exception as error:
            raise AssertionError(
                f"summarise() raised {type(error).__name__}: {error} on {name}: give NaN where the metric is undefined"
            ) from error
    assert isinstance(value, float), f"summarise() gave a {type(value).__name__} on {name}: give a float"
    assert not math.isinf(value), f"summarise() gave infinity on {name}: give NaN where the metric is undefined"
    return value


def _assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray], message: str) -> None:
    for name, values in first.items():
        numbers = values.dtype.kind in _NUMBERS
        close = functools.partial(np.allclose, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
        assert (close if numbers else np.array_equal)(values, second[name]), f"observation {name!r} {message}"
