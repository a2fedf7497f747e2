"""Sum up a run beside its scores: how good the classifiers are, what the user must know, the exit code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.errors import PluginError, UserError, XbenchError
from xbench.jobs.model import PredictionsJob
from xbench.request.suite_run import SuiteRun
from xbench.run.build import Failures
from xbench.run.plan import Plan
from xbench.run.scoring import ScoredCell
from xbench.statistics.classification import Figure, classification_metrics
from xbench.statistics.reliability import Calibration, calibration

_INCOMPLETE = 0.01


@dataclass(frozen=True)
class RunRecord:
    """A finished run, to be written down.

    Attributes:
        plan: The plan of the run.
        scored: All cells with their rows.
        models: The classifiers, as `describe_models` returns them.
        warnings: Warnings for the user.
        command: The words typed.
        began: `time.perf_counter()` when it began.
        suite: The suite that was run; None without one.
    """

    plan: Plan
    scored: Sequence[ScoredCell]
    models: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    command: Sequence[str]
    began: float
    suite: SuiteRun | None = None


def describe_models(plan: Plan, failures: Failures, count: int) -> list[dict[str, Any]]:
    """Describe the classifiers of a run: figures with intervals, how they were trained, and what is suspicious."""
    predictions: dict[str, PredictionsJob] = {}
    for cell in plan.cells:
        job = cell.maps.predictions
        if job.fingerprint not in failures:
            predictions.setdefault(job.fingerprint, job)
    return [_describe_model(job, plan, count) for job in predictions.values()]


def _describe_model(job: PredictionsJob, plan: Plan, count: int) -> dict[str, Any]:
    import torch

    from xbench.contracts.model import probabilities

    scored = job.data.scored
    chances = probabilities(torch.from_numpy(job.logits)).numpy()
    given = (scored.labels, chances, scored.groups, plan.settings.seed, count)
    figures = classification_metrics(*given)
    subject = job.calibration.subject
    return {
        "name": subject.label,
        "dataset": job.data.label,
        "synthetic": job.data.info.synthetic,
        "n": len(scored),
        "groups": len(set(scored.groups)),
        "split": plan.settings.split,
        "metrics": {name: list(figure[:3]) for name, figure in figures.items()},
        "undefined_resamples": {name: figure.undefined for name, figure in figures.items() if figure.undefined},
        "calibration": _as_header(calibration(*given)),
        "training": dict(subject.job.facts),
        "seconds_fit": subject.job.manifest.seconds,
        "scoring": dict(job.calibration.facts),
        "fingerprint": subject.job.fingerprint,
        "learned": _learned(figures),
    }


def _as_header(reliability: Calibration) -> dict[str, Any]:
    """Return the fields of a calibration, with figures as [value, low, high], like those of "metrics"."""
    fields = {field.name: getattr(reliability, field.name) for field in dataclasses.fields(reliability)}
    return {name: list(value[:3]) if isinstance(value, Figure) else value.tolist() for name, value in fields.items()}


def _learned(figures: Mapping[str, Figure]) -> bool:
    """Return whether the whole interval of the held-out AUC is above chance."""
    return bool(figures["auc"].low > 0.5)


def warnings_of(plan: Plan, models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the user must know about this run before believing a number of it."""
    warnings = []
    for model in models:
        auc, low, high = model["metrics"]["auc"]
        if not model["learned"]:
            warnings.append(
                f"{model['name']} on {model['dataset']} has learned nothing that holds: held-out AUC {auc:.2f} "
                f"[{low:.2f}, {high:.2f}]; explanations of it say nothing about the task"
            )
    for cell in {cell.maps.fingerprint: cell for cell in plan.cells if not cell.control}.values():
        facts = cell.maps.facts if cell.maps.store.has(cell.maps) else {}
        state = cell.maps.innermost.state
        if state is not None and state.store.has(state) and state.facts.get("warning"):
            warnings.append(f"{cell.explainer.label}: {state.facts['warning']}")
        if facts.get("constant_maps"):
            warnings.append(
                f"{cell.explainer.label}: {facts['constant_maps']} of {len(cell.maps.data.scored)} maps are constant"
            )
        missing = facts.get("completeness_error", 0.0)
        if missing > _INCOMPLETE:
            warnings.append(f"{cell.explainer.label}: a map misses the sum it promises by {missing:.1%} of a logit")
    if plan.settings.limit is not None:
        warnings.append(f"--limit {plan.settings.limit}: for trying things out, not for reporting")
    return warnings + [f"skipped: {refusal}" for refusal in plan.skipped]


def planned_labels(plan: Plan) -> dict[str, dict[str, list[str]]]:
    """Return, for each table of a suite, what was planned: explainers, metrics, models, datasets and signs."""
    return {
        name: {
            "explainers": _distinct(cell.explainer.label for cell in cells),
            "metrics": _distinct(cell.observations.choice.label for cell in cells),
            "models": _distinct(cell.maps.model.label for cell in cells),
            "datasets": _distinct(cell.maps.data.label for cell in cells),
            "signs": _distinct(cell.sign for cell in cells),
        }
        for name, cells in plan.tables.items()
    }


def _distinct(labels: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(labels))


def worst_exit_code(scored: Sequence[ScoredCell], plan: Plan) -> int:
    """Return 0, or the exit code of what failed: 3 for a plugin's fault, 2 for the user's, 1 for xbench's."""
    codes = [cell.error.exit_code for cell in scored if cell.error is not None]
    codes += [PluginError.exit_code for _ in plan.broken]
    for error in (PluginError, UserError, XbenchError):
        if error.exit_code in codes:
            return error.exit_code
    return 0
