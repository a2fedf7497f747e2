"""The classifiers: test figures, calibration, training, and the figures that the runs drew of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xbench.report.page.draft import Draft
from xbench.report.page.facts import flat
from xbench.report.page.panel import Panel, Section
from xbench.report.table import has_learned
from xbench.results.naming import calibration_name

if TYPE_CHECKING:
    from xbench.comparison import Run

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
_PICTURES = {"models": "Images that maximise each class’s score", "training": "Losses and accuracy by epoch"}


class ModelsPanel(Panel):
    """A card for each classifier."""

    name = "models"
    title = "The classifiers"
    link = "Models"

    def section(self, draft: Draft) -> Section | None:
        """Return the classifiers of all runs, each once; None without any."""
        models = list(_models(draft.comparison.runs))
        return Section({"models": models, "pictures": list(_pictures(draft))}) if models else None


def _models(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
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
            *flat(one.get("training") or {}, "training "),
            *flat({"seconds of training": one.get("seconds_fit")}),
            *flat(one.get("scoring") or {}, "scoring "),
            *flat({"weights": one.get("fingerprint")}),
        ],
    }


def _bins(calibration: Mapping[str, Any]) -> list[dict[str, float]]:
    """Return the bins that hold a sample: edges, samples, mean confidence, accuracy."""
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


def _pictures(draft: Draft) -> Iterator[dict[str, str]]:
    """Copy the runs' figures that the page shows unchanged: images of the classes, calibration and training."""
    for source, run in zip(draft.sources, draft.comparison.runs, strict=True):
        diagrams = {calibration_name(str(one.get("dataset")), str(one.get("name"))) for one in run.header.models}
        for kind, usual in _PICTURES.items():
            for path in sorted((source.folder / kind).glob("*.svg")):
                target = draft.folder / "pictures" / f"{draft.stem(kind, path.stem)}.svg"
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target)
                words = "Calibration" if path.stem in diagrams else usual
                yield {"words": words, "name": path.stem, "path": target.relative_to(draft.folder).as_posix()}
