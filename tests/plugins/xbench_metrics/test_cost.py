"""Cost: what the harness measured, per map."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from xbench import Case, DatasetInfo, Session, Split
from xbench.testing import default_scenarios, metric_checks
from xbench.testing.fakes import fake_case
from xbench.testing.networks import LinearNetwork
from xbench_metrics.cost import Cost
from xbench_metrics.options import CostOptions

MEASURED = {
    "seconds_maps": 6.0,
    "seconds_fit": 40.0,
    "forward_passes": 200.0,
    "backward_passes": 8.0,
    "peak_bytes": 2.0**30,
    "fit_peak_bytes": 2.0**31,
}


def case_of(tmp_path: Path, cost: Mapping[str, float], n: int = 4) -> Case:
    images, names = np.zeros((n, 1, 8, 8), dtype=np.float32), [f"sample-{index}" for index in range(n)]
    split = Split.from_arrays(images, np.arange(n) % 2, names, names)
    info, maps = DatasetInfo("toy", ("a", "b"), 1, (8, 8)), np.zeros((n, 8, 8), dtype=np.float32)
    return fake_case(info, split, LinearNetwork(1, (8, 8), 2), maps, Session(tmp_path), cost=cost)


@pytest.mark.parametrize(
    ("figure", "expected", "unit"),
    [
        ("seconds", 1.5, "s"),
        ("forward_passes", 50, ""),
        ("backward_passes", 2, ""),
        ("fit_seconds", 40, "s"),
        ("peak_bytes", 2**30, "B"),
        ("fit_peak_bytes", 2**31, "B"),
    ],
)
def test_figures(tmp_path: Path, figure: str, expected: float, unit: str) -> None:
    metric = Cost(CostOptions(figure=figure))
    seen = metric.observe(case_of(tmp_path, MEASURED))
    assert metric.summarise(seen) == expected
    assert metric.unit == unit
    assert not metric.higher_is_better
    assert all(np.ptp(values) == 0 and values.shape == (4,) for values in seen.values())


def test_what_was_not_measured_is_nan(tmp_path: Path) -> None:
    metric = Cost(CostOptions(figure="peak_bytes"))
    assert math.isnan(metric.summarise(metric.observe(case_of(tmp_path, {**MEASURED, "peak_bytes": math.nan}))))
    assert math.isnan(metric.summarise(metric.observe(case_of(tmp_path, {}))))


def test_the_card_says_whose_memory_is_meant(tmp_path: Path) -> None:
    info = case_of(tmp_path, MEASURED).info
    cards = {name: Cost(CostOptions(figure=name)).card(info) for name in ("seconds", "peak_bytes", "fit_peak_bytes")}
    assert "memory" not in cards["seconds"]
    assert "networks included" in cards["peak_bytes"]["memory"]
    assert [card["scope"] for card in cards.values()] == ["making the maps", "making the maps", "the whole training"]


@pytest.mark.parametrize("check", [pytest.param(run, id=name) for name, run in metric_checks(default_scenarios()[:1])])
def test_conforms(check: Callable[..., None]) -> None:
    check(lambda: Cost(CostOptions()))
