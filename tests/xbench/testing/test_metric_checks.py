"""The checks of metrics pass for a good one and name the fault of bad ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xbench import Case, Curves, DatasetInfo, Metric, Observations, Options
from xbench.testing import metric_checks


class GoodMetric(Metric):
    """Mean value of the map inside the mask."""

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        inside = []
        for start in range(0, len(case.split), case.session.batch_size):
            rows = np.arange(start, min(start + case.session.batch_size, len(case.split)))
            masks = case.split.batch(rows).masks.numpy()
            inside.append((case.maps[rows] * masks).sum((1, 2)) / masks.sum((1, 2)))
        return {"inside": np.concatenate(inside)}

    def summarise(self, observations: Observations) -> float:
        return float(observations["inside"].mean())

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        return {"aggregation": "mean over samples"}


def test_a_good_metric_passes(failures: Callable[..., dict[str, str]]) -> None:
    assert failures(metric_checks(), lambda: GoodMetric(Options())) == {}


class TooFewRows(GoodMetric):
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        return {"inside": super().observe(case)["inside"][:-1]}


class ReservedName(GoodMetric):
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        return {**super().observe(case), "label": case.targets}


class Words(GoodMetric):
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        return {**super().observe(case), "note": np.array(["seen"] * len(case.split))}


class Chancy(GoodMetric):
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        return {"inside": np.random.default_rng().random(len(case.split))}


class BatchMaximum(GoodMetric):
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        size = case.session.batch_size
        seen = super().observe(case)["inside"]
        return {
            "inside": np.concatenate([seen[i : i + size] / seen[i : i + size].max() for i in range(0, len(seen), size)])
        }


class WritesIntoMaps(GoodMetric):
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        case.maps[:] = 0
        return super().observe(case)


class DividesByZero(GoodMetric):
    def summarise(self, observations: Observations) -> float:
        classes = [observations["inside"][observations["label"] == index].mean() for index in (0, 1)]
        return float(np.mean(classes))


class Infinite(GoodMetric):
    def summarise(self, observations: Observations) -> float:
        return float("inf") if len(observations["inside"]) == 1 else 0.0


class NotAFloat(GoodMetric):
    def summarise(self, observations: Observations) -> float:
        return observations["inside"].mean(keepdims=True)


class SeesOrder(GoodMetric):
    def summarise(self, observations: Observations) -> float:
        return float(observations["inside"][0])


class ShortCurve(GoodMetric):
    def curves(self, observations: Observations) -> Curves:
        from xbench import Curves

        return Curves(np.arange(3), {"one": np.arange(2)}, "x", "y")


class RoleOfNone(GoodMetric):
    def curves(self, observations: Observations) -> Curves:
        from xbench import Curves

        return Curves(np.arange(3), {"one": np.arange(3)}, "x", "y", {"two": "most_first"})


class NoRole(GoodMetric):
    def curves(self, observations: Observations) -> Curves:
        from xbench import Curves

        return Curves(np.arange(3), {"one": np.arange(3)}, "x", "y", {"one": "best_first"})  # type: ignore[dict-item]


class NoCard(GoodMetric):
    def card(self, info: DatasetInfo) -> dict[str, Any]:
        return {}


class CardOfArrays(GoodMetric):
    def card(self, info: DatasetInfo) -> dict[str, Any]:
        return {"steps": np.arange(3)}


class TargetsUnasked(GoodMetric):
    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        return {"first": case.targets[[0]]}


class TargetsAsked(TargetsUnasked):
    needs = frozenset({"targets"})


def test_targets_are_there_for_those_who_ask(failures: Callable[..., dict[str, str]]) -> None:
    assert failures(metric_checks(), lambda: TargetsAsked(Options())) == {}


@pytest.mark.parametrize(
    ("metric", "name", "message"),
    [
        (TooFewRows, "observations_plain", "has 11 rows for 12 samples"),
        (ReservedName, "observations_plain", "choose other names"),
        (Words, "observations_plain", "give bool, int or float"),
        (Chancy, "deterministic", "changes from call to call"),
        (BatchMaximum, "independent_of_batch_size", "changes with the batch size"),
        (WritesIntoMaps, "observations_plain", "read-only"),
        (DividesByZero, "summarises_subsets", "give NaN where the metric is undefined"),
        (Infinite, "summarises_subsets", "gave infinity on one sample"),
        (NotAFloat, "observations_plain", "gave a ndarray"),
        (SeesOrder, "summary_ignores_order", "in another order"),
        (ShortCurve, "curves", "one height per x"),
        (RoleOfNone, "curves", "gives a role to 'two', which is none of its curves"),
        (NoRole, "curves", "has the role 'best_first': use one of"),
        (NoCard, "card", "is empty"),
        (CardOfArrays, "card", "can't be written as JSON"),
        (TargetsUnasked, "observations_plain", "targets only with needs 'targets'"),
    ],
)
def test_faults_of_metrics_are_found(
    failures: Callable[..., dict[str, str]], metric: type[Metric], name: str, message: str
) -> None:
    failed = failures(metric_checks(), lambda: metric(Options()))
    assert message in failed[name]
