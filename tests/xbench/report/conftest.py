"""Rows and headers for tables and charts."""

import dataclasses
import typing

import pytest

from xbench.results.rows import RunHeader, ScoreRow

_EMPTY = {str: "", int: 0, float: 0.0, bool: False}


@pytest.fixture
def row():
    """A factory of score rows: row("gradient", 0.5, control=False, ...)."""

    def build(explainer, value, margin=0.1, **changes):
        hints = typing.get_type_hints(ScoreRow)
        required = [field.name for field in dataclasses.fields(ScoreRow) if field.default is dataclasses.MISSING]
        plain = {name: _EMPTY.get(hints[name], ()) for name in required}
        known = {
            "dataset": "lidc-phantom",
            "model": "convnet",
            "metric": "fidelity",
            "sign": "original",
            "target": "predicted",
            "subject": "shared",
            "n": 131,
            "groups": 98,
            "higher_is_better": True,
            "explainer": explainer,
            "resolved": explainer,
            "value": value,
            "ci_low": value - margin,
            "ci_high": value + margin,
            "rank": 1,
            "rank_high": 2,
            "rank_set": (explainer,),
            "same_as": "",
            "seconds_maps": 1.25,
            "seconds_metric": 2.0,
        }
        return ScoreRow(**plain | known | changes)

    return build


@pytest.fixture
def header():
    """A factory of run headers: header(auc=[value, low, high])."""

    def build(auc=(0.96, 0.93, 0.98)):
        figures = {"auc": list(auc), "accuracy": [0.9, 0.85, 0.95], "mcc": [0.8, None, None]}
        return RunHeader(
            created="2026-01-02T03:04:05+00:00",
            datasets=[{"name": "lidc-phantom", "synthetic": True}],
            models=[{"name": "convnet", "dataset": "lidc-phantom", "n": 131, "metrics": figures}],
        )

    return build
