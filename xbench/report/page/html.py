"""What stands in the page from the start: its words, the classifiers, the metric cards, the paper, the environment."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from xbench.report.page.rankings import Place
from xbench.report.table import has_learned
from xbench.results.numbers import number
from xbench.results.paper import PAPER_FILE, beside_paper, read_paper_rows

if TYPE_CHECKING:
    from xbench.comparison import Comparison, Run
    from xbench.report.page.source import Source

_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "f1": "F1",
    "informedness": "informedness",
    "markedness": "markedness",
    "mcc": "Matthews correlation",
    "auc": "area under the ROC curve",
}
_CALIBRATION = {"expected_calibration_error": "expected calibration error", "brier_score": "Brier score"}


def render(
    comparison: Comparison,
    sources: Sequence[Source],
    places: Sequence[Place],
    title: str,
    pictures: Mapping[str, Sequence[Mapping[str, str]]],
    index: Mapping[str, Any],
) -> str:
    """The page itself.

    Args:
        comparison: Of the runs.
        sources: The runs.
        places: Datasets and models.
        title: Of the page, or empty.
        pictures: Figures to show, by run.
        index: What the page's scripts know from the start.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("xbench.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    datasets = list(dict.fromkeys(place.dataset for place in places))
    rows = [one.entry.row for place in places for ranking in place.rankings for one in ranking.standings]
    return environment.get_template("index.html.j2").render(
        title=title or _title(comparison.runs, datasets),
        runs=[_run(run) for run in comparison.runs],
        warnings=comparison.warnings,
        counts={
            "explainer": len({row.explainer for row in rows if not row.control}),
            "control": len({row.explainer for row in rows if row.control}),
            "metric": len({metric for place in places for metric in place.metrics}),
            "model": len({place.model for place in places}),
            "dataset": len(datasets),
        },
        phantoms=sorted(
            {str(info["name"]) for run in comparison.runs for info in run.header.datasets if info.get("synthetic")}
        ),
        models=list(_models(comparison.runs)),
        pictures=[picture for run in pictures.values() for picture in run],
        cards=_cards(comparison.runs),
        papers=[
            column for source, run in zip(sources, comparison.runs, strict=True) for column in _papers(source, run)
        ],
        apart=comparison.apart,
        index=index,
    )


def _title(runs: Sequence[Run], datasets: Sequence[str]) -> str:
    suites = list(dict.fromkeys(str(run.header.suite["name"]) for run in runs if run.header.suite.get("name")))
    return (
        f"{' and '.join(suites)} on {' and '.join(datasets)}" if suites else f"Explanations on {' and '.join(datasets)}"
    )


def _run(run: Run) -> dict[str, Any]:
    header = run.header
    return {
        "name": run.name,
        "created": header.created,
        "command": shlex.join(header.command),
        "version": header.xbench_version,
        "wall": None if header.wall_seconds != header.wall_seconds else header.wall_seconds,
        "suite": {name: str(value) for name, value in header.suite.items() if not isinstance(value, dict | list)},
        "environment": list(_flat(header.environment)),
        "config": list(_flat(header.config)),
        "datasets": [dict(_flat(info)) for info in header.datasets],
        "warnings": header.warnings,
    }


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested names joined by blanks; what is empty is left out."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        elif isinstance(value, list | tuple):
            if value:
                yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        elif value not in (None, ""):
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)


def _models(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Every classifier once."""
    seen: set[tuple[str, str, str]] = set()
    for run in runs:
        for one in run.header.models:
            key = (str(one.get("name")), str(one.get("dataset")), str(one.get("fingerprint")))
            if key not in seen:
                seen.add(key)
                yield _model(one)


def _model(one: Mapping[str, Any]) -> dict[str, Any]:
    figures = one.get("metrics") or {}
    named = {name: _FIGURES.get(name, name.replace("_", " ")) for name in [*_FIGURES, *figures] if name in figures}
    calibration = one.get("calibration") or {}
    return {
        "name": str(one.get("name")),
        "dataset": str(one.get("dataset")),
        "synthetic": bool(one.get("synthetic")),
        "n": one.get("n"),
        "groups": one.get("groups"),
        "split": one.get("split"),
        "learned": has_learned(figures) is not False,
        "figures": [(label, *figures[name]) for name, label in named.items()],
        "bins": _bins(calibration),
        "calibration": [(label, *calibration[name]) for name, label in _CALIBRATION.items() if name in calibration],
        "facts": [
            *_flat(one.get("training") or {}, "training "),
            *_flat({"seconds of training": one.get("seconds_fit")}),
            *_flat(one.get("scoring") or {}, "scoring "),
            *_flat({"weights": one.get("fingerprint")}),
        ],
    }


def _bins(calibration: Mapping[str, Any]) -> list[dict[str, float]]:
    """The bins that hold a sample: edges, samples, mean confidence, accuracy."""
    if not all(calibration.get(name) for name in ("edges", "count", "confidence", "accuracy")):
        return []
    edges = calibration["edges"]
    return [
        {"low": edges[at], "high": edges[at + 1], "count": count, "confidence": confidence, "accuracy": accuracy}
        for at, (count, confidence, accuracy) in enumerate(
            zip(calibration["count"], calibration["confidence"], calibration["accuracy"], strict=True)
        )
        if count and confidence is not None and accuracy is not None
    ]


def _cards(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The metric cards that any row bears, in the order of their metrics."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        metrics = {row.card: row.metric for row in run.rows}
        for digest, card in run.header.cards.items():
            if digest in metrics and isinstance(card, Mapping):
                found[digest] = {
                    "digest": digest,
                    "metric": metrics[digest],
                    "sign": str(card.get("sign", "")),
                    "facts": list(_flat(card)),
                }
    return list(found.values())


def _papers(source: Source, run: Run) -> Iterator[dict[str, Any]]:
    """A paper's numbers beside this run's, where it is a run of a suite that has them."""
    path = source.folder / PAPER_FILE
    if not path.is_file():
        return
    for column in beside_paper(read_paper_rows(path), run.rows):
        yield {
            "table": column.table,
            "citation": column.citation,
            "metric": column.metric,
            "sign": column.sign,
            "dataset": column.dataset,
            "rho": column.rho,
            "methods": column.methods,
            "pairings": column.pairings,
        }
