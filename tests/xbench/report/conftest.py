"""Rows and headers for tables and charts; run folders written by hand, and reports made of them."""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from click.testing import CliRunner

from xbench.cli import xbench
from xbench.results.counterfactuals import CounterfactualArrays, write_counterfactuals
from xbench.results.curves import CurveSeries, CurveTable, write_curves
from xbench.results.gallery import GalleryArrays, eight_bits, write_gallery
from xbench.results.replicates import REPLICATES, Replicates, sampling, write_replicates
from xbench.results.rows import RunHeader, ScoreRow, write_header, write_scores
from xbench.statistics.resampling import interval, resamples

_HINTS = typing.get_type_hints(ScoreRow)
_BLANK: dict[str, Any] = {
    field.name: {str: "", int: 0, float: 0.0, bool: False}.get(_HINTS[field.name], ())
    for field in dataclasses.fields(ScoreRow)
    if field.default is dataclasses.MISSING
}
PATIENTS = [f"p{index}" for index in range(60)]
CLASSES = ("benign", "malignant")
SIZE = (24, 20)


class RunFolder:
    """A run folder in the making.

    Args:
        path: Where.
        explainers: Name -> its mean score; "random" is a control.
        models: Names.
        metrics: Names.
        signs: Of the maps.
    """

    def __init__(
        self,
        path: Path,
        explainers: dict[str, float],
        models: tuple[str, ...] = ("net",),
        metrics: tuple[str, ...] = ("fidelity",),
        signs: tuple[str, ...] = ("original",),
    ) -> None:
        self.path, self.explainers, self.models, self.metrics, self.signs = path, explainers, models, metrics, signs
        self.rng = np.random.default_rng(0)

    def row(self, explainer: str, model: str, metric: str, sign: str, **more: Any) -> ScoreRow:
        own: dict[str, Any] = {
            "explainer": explainer,
            "model": model,
            "metric": metric,
            "sign": sign,
            "dataset": "phantom",
        }
        own |= {"subject": "shared", "target": "predicted", "split": "test", "n": 60, "groups": 60}
        own |= {"resolved": explainer}
        own |= {"card": f"card of {metric}, {sign}", "higher_is_better": True, "control": explainer == "random"}
        own |= {"fingerprint": f"{model} {metric} {explainer} {sign}", "seconds_maps": 1.5, "seconds_metric": 2.0}
        return ScoreRow(**_BLANK | own | more)

    def scores(self, replicates: bool = True, **changes: Any) -> Self:
        """Rows with intervals; `changes`: explainer -> fields of its rows."""
        rows, kept, drawn = [], {}, resamples(PATIENTS, 200, 0)
        for model in self.models:
            for metric in self.metrics:
                for sign in self.signs:
                    shared = self.rng.normal(size=60)
                    for explainer, mean in self.explainers.items():
                        values = mean + 0.1 * shared + 0.05 * self.rng.normal(size=60)
                        series = np.array([values[where].mean() for where in drawn]) if replicates else np.zeros(1)
                        low, high = interval(series) if replicates else (values.mean() - 0.1, values.mean() + 0.1)
                        own = {"value": values.mean(), "ci_low": low, "ci_high": high} | changes.get(explainer, {})
                        rows.append(self.row(explainer, model, metric, sign, **own))
                        kept[rows[-1].fingerprint] = Replicates(series, sampling(PATIENTS, PATIENTS, 0))
        write_scores(rows, self.path / "scores.csv")
        if replicates:
            write_replicates(kept, self.path / REPLICATES)
        return self

    def header(self, **more: Any) -> Self:
        cards = {
            f"card of {metric}, {sign}": {"metric": metric, "sign": sign, "options": {"step": 0.05}, "ties": "random"}
            for metric in self.metrics
            for sign in self.signs
        }
        figures = {"accuracy": [0.9, 0.85, 0.95], "auc": [0.96, 0.93, 0.98], "mcc": [0.8, None, None]}
        calibration = {"edges": [0, 0.5, 0.75, 1], "count": [0, 20, 40], "confidence": [None, 0.7, 0.9]}
        calibration |= {"accuracy": [None, 0.6, 0.95], "expected_calibration_error": [0.07, 0.04, 0.1]}
        model = {"dataset": "phantom", "n": 60, "groups": 60, "metrics": figures, "calibration": calibration}
        known = {
            "created": "2026-01-02T03:04:05+00:00",
            "command": ["xbench", "run", "-e", "vinet", "--title", "two words"],
            "cards": cards,
            "models": [model | {"name": name, "fingerprint": name} for name in self.models],
            "explainers": [
                {"name": name, "control": name == "random", "map_facts": {"forward_passes": 60, "backward_passes": 120}}
                for name in self.explainers
            ],
            "datasets": [{"name": "phantom", "synthetic": True, "classes": list(CLASSES)}],
            "environment": {"python": "3.11", "libraries": {"numpy": "2"}},
        }
        write_header(RunHeader(**known | more), self.path / "run.json")
        return self

    def curves(self) -> Self:
        x = np.linspace(0, 100, 21)
        for model in self.models:
            for metric in self.metrics:
                for sign in self.signs:
                    series = [
                        CurveSeries(
                            name,
                            name == "random",
                            x,
                            {"most first": np.exp(-x / 30), "least first": 1 - x / 200},
                            {"most first": "most_first", "least first": "least_first"},
                        )
                        for name in self.explainers
                    ]
                    table = CurveTable("phantom", model, metric, sign, "removed (%)", "accuracy", series)
                    number = len(list((self.path / "curves").glob("*.json"))) if (self.path / "curves").exists() else 0
                    write_curves(table, self.path / "curves" / f"{number}.json")
        return self

    def gallery(self, samples: int = 6, size: tuple[int, int] = SIZE) -> Self:
        for model in self.models:
            write_gallery(self.gallery_arrays(model, samples, size), self.path / "gallery" / f"phantom--{model}.npz")
        return self

    def gallery_arrays(self, model: str, samples: int, size: tuple[int, int]) -> GalleryArrays:
        count, rng = len(self.explainers), np.random.default_rng(1)
        chances = rng.random((samples, 2)).astype(np.float32)
        masks = np.zeros((samples, *size), dtype=bool)
        masks[:-1, 5:12, 4:15] = True
        bits = [eight_bits(rng.normal(size=(samples, *size))) for _ in range(count)]
        return GalleryArrays(
            dataset="phantom",
            model=model,
            classes=CLASSES,
            ids=tuple(f"case-{index}" for index in range(samples)),
            labels=np.arange(samples) % 2,
            probabilities=chances / chances.sum(1, keepdims=True),
            images=rng.integers(0, 256, size=(samples, 1, *size), dtype=np.uint8),
            masks=masks,
            has_mask=masks.any((1, 2)),  # type: ignore[arg-type]
            explainers=tuple(self.explainers),
            control=np.array([name == "random" for name in self.explainers]),
            signed=np.array([index % 2 == 0 for index in range(count)]),
            targets=np.zeros((count, samples), dtype=np.int64),
            maps=np.stack([values for values, _ in bits]),
            scales=np.stack([scales for _, scales in bits]),
        )

    def counterfactuals(self) -> Self:
        t = np.linspace(-1, 1, 5, dtype=np.float32)
        upward = np.broadcast_to((0.5 + 0.4 * t)[None, None, :], (3, 1, 5)).astype(np.float32)
        frames = np.broadcast_to((0.5 + 0.3 * t)[None, None, :, None, None, None], (3, 1, 5, 1, *SIZE))
        found = CounterfactualArrays(
            dataset="phantom",
            model=self.models[0],
            explainer="vinet",
            classes=CLASSES,
            ids=("a", "b", "c"),
            labels=np.array([0, 1, 0]),
            images=np.full((3, 1, *SIZE), 0.5, dtype=np.float16),
            t=t,
            frames=frames.astype(np.float16),
            probabilities=np.stack([1 - upward, upward], axis=-1),
            relevance=np.random.default_rng(2).normal(size=(3, *SIZE)).astype(np.float32),
            targets=np.array([1, 1, 0]),
        )
        write_counterfactuals(found, self.path / "counterfactuals" / "phantom--net--vinet.npz")
        return self


def _report(*words: object) -> str:
    done = CliRunner().invoke(xbench, ["report", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="session")
def report() -> Callable[..., str]:
    """`xbench report` in this process; the error it raised, if any, is raised here."""
    return _report


@pytest.fixture(scope="session")
def run_folder() -> type[RunFolder]:
    """The class that writes run folders."""
    return RunFolder


_EMPTY = {str: "", int: 0, float: 0.0, bool: False}


@pytest.fixture
def row() -> Callable[..., ScoreRow]:
    """A factory of score rows: row("gradient", 0.5, control=False, ...)."""

    def build(explainer: str, value: float, margin: float = 0.1, **changes: Any) -> ScoreRow:
        hints = typing.get_type_hints(ScoreRow)
        required = [field.name for field in dataclasses.fields(ScoreRow) if field.default is dataclasses.MISSING]
        plain: dict[str, Any] = {name: _EMPTY.get(hints[name], ()) for name in required}
        known: dict[str, Any] = {
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
def header() -> Callable[..., RunHeader]:
    """A factory of run headers: header(auc=[value, low, high])."""

    def build(auc: Sequence[float | None] = (0.96, 0.93, 0.98)) -> RunHeader:
        figures = {"auc": list(auc), "accuracy": [0.9, 0.85, 0.95], "mcc": [0.8, None, None]}
        return RunHeader(
            created="2026-01-02T03:04:05+00:00",
            datasets=[{"name": "lidc-phantom", "synthetic": True}],
            models=[{"name": "convnet", "dataset": "lidc-phantom", "n": 131, "metrics": figures}],
        )

    return build
