"""Score maps by every metric on the CPU and on the pretend accelerator, and count what makes the host wait.

Run as a process of its own: the device stays registered. Writes JSON to the path that is its only argument:

    {metric: {"failure": what it raised on the pretend accelerator, or "",
              "values": its value on the CPU and on the accelerator,
              "difference": of its observations, the largest, as a share of the largest of the CPU's,
              "waits": [[line, operation, count], ...] for two batches of images,
              "longer": the same for four, where only maps are scored}}
"""

import copy
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pretend
import torch
from measure import INFO, SIDE, network, network_on, split
from torch import nn

from xbench import Case, Metric, Session
from xbench.compute.passes import unchanging
from xbench.contracts.metric import TrainMaps
from xbench.registry.discovery import discover
from xbench.registry.entries import Registry
from xbench.registry.references import choose
from xbench.runtime.devices import float32
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case

BATCH = 4
# The class of an untrained network moves with no pixel; its score does. And of Quantus' some.
MORE = ["fidelity:score=logit", "quantus:Sparseness", "quantus:FaithfulnessCorrelation:nr_runs=4"]
WORK = frozenset({"explain", "transfer", "masked", "train"})  # of metrics that put explainers or trainings to work
QUICK = {"epochs": 1, "draws": 4, "samples": 4, "limit": 4, "steps": 4, "repeats": 1, "networks": 1}


def metric_of(name: str, registry: Registry) -> Metric:
    """With little of what it repeats."""
    choice = choose("metric", name, registry)
    known = type(choice.options).model_fields
    quick = {key: value for key, value in QUICK.items() if key in known}
    factory, options = choice.entry.spec.load(), choice.options.model_copy(update=quick)
    return factory(options, choice.argument) if choice.entry.spec.argument else factory(options)


def case_of(metric: Metric, model: nn.Module, device: str, count: int, folder: Path) -> Case:
    """Of `count` images with maps of noise."""
    data, draws = split(count), rng(0, "maps")
    maps = draws.normal(size=(count, SIDE, SIDE)).astype(np.float32)
    train = split(16)
    more = {"training": train}
    if "train" in metric.needs:
        made = draws.normal(size=(16, SIDE, SIDE)).astype(np.float32)
        more["train"] = TrainMaps(train, made, np.zeros(16, dtype=np.int64))
    if metric.feature is not None:
        features = [metric.feature.join(batch).feature for batch in data.batches(BATCH)]
        more["feature"] = torch.cat(features).numpy()
    session = Session(folder, device=device, batch_size=BATCH)
    return fake_case(INFO, data, network_on(model, device), maps, session, **more)


def observed(
    metric: Metric, model: nn.Module, device: str, count: int
) -> tuple[dict[str, np.ndarray], float, list[list[Any]]]:
    """Observations, value, and waits of `observe` alone."""
    import dataclasses

    with tempfile.TemporaryDirectory() as folder:
        case = case_of(metric, model, device, count, Path(folder))
        case = dataclasses.replace(case, prepared=metric.prepare(case))
        with unchanging(case.model):
            pretend.waits.clear()
            found = metric.observations(case, "under test")
        waits = [[where, what, number] for (where, what), number in sorted(pretend.waits.items())]
        value = metric.summarise({**found, "label": case.split.labels, "target": case.targets})
    return found, value, waits


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest of all observations, as a share of the largest there; what is not a number must be in both."""
    largest = 0.0
    for name, values in expected.items():
        one, other = np.asarray(found[name], dtype=np.float64), np.asarray(values, dtype=np.float64)
        if not (np.isnan(one) == np.isnan(other)).all():
            return float("inf")
        apart = np.nan_to_num(abs(one - other)).max(initial=0.0)
        largest = max(largest, apart / max(np.nan_to_num(abs(other)).max(initial=0.0), 1e-12))
    return float(largest)


def measured(name: str, registry: Registry, model: nn.Module) -> dict[str, Any]:
    """The entry of one metric."""
    entry: dict[str, Any] = {"failure": "", "values": [], "difference": None, "waits": [], "longer": []}
    made = metric_of(name, registry)
    expected, value, _ = observed(made, model, "cpu", 2 * BATCH)
    try:
        found, other, entry["waits"] = observed(metric_of(name, registry), model, pretend.NAME, 2 * BATCH)
        if not (made.needs & WORK or made.expensive):
            _, _, entry["longer"] = observed(metric_of(name, registry), model, pretend.NAME, 4 * BATCH)
    except Exception as error:
        entry["failure"] = f"{type(error).__name__}: {error}"
        return entry
    entry["values"] = [float(value), float(other)]
    entry["difference"] = difference(found, expected)
    return entry


def main(path: str) -> None:
    """Every metric that comes with xbench, and one of Quantus'."""
    registry = discover()
    model = copy.deepcopy(network(registry))
    specs = [each.spec for each in registry.of_kind("metric") if each.distribution == "xbench"]
    names = [spec.name for spec in specs if not spec.argument] + MORE
    torch.set_num_threads(1)
    Path(path).write_text(json.dumps({name: measured(name, registry, model) for name in names}, indent=1))


if __name__ == "__main__":
    with float32("32"):
        main(sys.argv[1])
