"""Writing a run folder: header, scores, observations, figures and gallery. It is written aside and moved into place."""

from __future__ import annotations

import csv
import datetime
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from xbench.compute.training import HISTORY
from xbench.contracts.session import Progress
from xbench.errors import ArtifactError
from xbench.jobs.base import Job
from xbench.jobs.data import DataJob
from xbench.jobs.explainer import ExplainerJob
from xbench.jobs.maps import MapsJob
from xbench.jobs.views import ViewJob
from xbench.report import calibration_chart, class_views, perturbation_curves, score_chart, training_curves
from xbench.request.config import RunConfig
from xbench.results.counterfactuals import COUNTERFACTUALS
from xbench.results.curves import CurveSeries, CurveTable, write_curves
from xbench.results.naming import calibration_name, file_name
from xbench.results.observations import ObservationCell, observations_path, write_observations
from xbench.results.replicates import REPLICATES, Replicates, sampling, write_replicates
from xbench.results.rows import RunHeader, ScoreRow, write_header, write_scores
from xbench.run.counterfactuals import draw_counterfactuals
from xbench.run.gallery import draw_gallery
from xbench.run.scoring import ScoredCell, broken_rows, card_digest, card_of
from xbench.run.summary import RunRecord, planned_labels
from xbench.runtime.environment import environment
from xbench.runtime.files import folder_beside


def write_run(
    out: Path, config: RunConfig, run: RunRecord, progress: Progress
) -> tuple[Path, RunHeader, list[ScoreRow]]:
    """Write all results of a run into `out`, which appears as a whole or not at all.

    Returns:
        The folder (numbered if another run has taken its name meanwhile), the header and the rows.

    Raises:
        ArtifactError: The folder can't be written.
    """
    try:
        with folder_beside(out) as partial:
            rows = [item.row for item in run.scored] + broken_rows(run.plan)
            write_scores(rows, partial / "scores.csv")
            _write_observations(run.scored, partial)
            write_replicates(_replicates(run.scored), partial / REPLICATES)
            with progress.task("drawing figures") as bar:
                _draw(run.scored, partial, bar.note)
                _draw_views(run.plan.views, partial / "models")
                _draw_calibrations(run.models, partial / "models")
                bar.note("counterfactual images")
                draw_counterfactuals(run.plan.strips, partial / COUNTERFACTUALS)
            header = replace(_header(config, run), wall_seconds=time.perf_counter() - run.began)
            write_header(header, partial / "run.json")
            if run.suite is not None:
                run.suite.write(partial)
            out = _put_in_place(partial, out)
    except OSError as error:
        hint = "name another with --out; all that was computed is cached"
        raise ArtifactError(f"run folder {out} can't be written: {error}", hint) from error
    return out, header, rows


def _put_in_place(partial: Path, out: Path) -> Path:
    """Rename the folder to `out`, or to the first of out-2, out-3, ... that is free."""
    for number in itertools.count(1):
        wanted = out if number == 1 else out.with_name(f"{out.name}-{number}")
        try:
            return partial.replace(wanted)  # this works over an empty folder
        except OSError:
            if not wanted.exists():
                raise
    raise AssertionError("unreachable")


def _header(config: RunConfig, run: RunRecord) -> RunHeader:
    datasets = {item.cell.maps.data.label: item.cell.maps.data for item in run.scored}
    explainers = {item.cell.explainer.label: item.cell for item in run.scored if item.error is None}
    return RunHeader(
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        command=list(run.command),
        config=config.model_dump(mode="json"),
        environment=environment(run.plan.settings.device),
        models=[dict(model) for model in run.models],
        explainers=[
            {
                "name": label,
                "resolved": cell.maps.resolved.label,
                "control": cell.control,
                "options": cell.explainer.options.model_dump(mode="json"),
                "facts": _state_facts(cell.maps),
                "map_facts": dict(cell.maps.facts),
            }
            for label, cell in explainers.items()
        ],
        cards={card_digest(item.cell): card_of(item.cell) for item in run.scored},
        datasets=[
            {**asdict(data.info), **_known_facts(data), "name": label, "fingerprint": data.dataset_identity}
            for label, data in datasets.items()
        ],
        warnings=list(run.warnings),
        suite=run.suite.record(planned_labels(run.plan)) if run.suite is not None else {},
    )


def _known_facts(data: DataJob) -> dict[str, Any]:
    return dict(data.facts) if data.store.has(data) else {}  # facts of a failed one would prepare it again


def _state_facts(maps: MapsJob) -> dict[str, Any]:
    return dict(maps.state.facts) if maps.state else {}


def _write_observations(scored: Sequence[ScoredCell], folder: Path) -> None:
    for metric, members in _grouped(scored, lambda item: item.row.metric).items():
        path = observations_path(folder, metric)
        path.parent.mkdir(exist_ok=True)
        write_observations((_observation_cell(item) for item in members if item.error is None), path)


def _observation_cell(item: ScoredCell) -> ObservationCell:
    job, row = item.cell.observations, item.row
    data = job.maps.data.scored
    return ObservationCell(
        dataset=row.dataset,
        model=row.model,
        explainer=row.explainer,
        subject=row.subject,
        sign=row.sign,
        ids=data.ids,
        groups=data.groups,
        labels=data.labels,
        targets=job.maps.targets,
        observations={key: value for key, value in job.observations.items() if key not in ("label", "target")},
    )


def _replicates(scored: Sequence[ScoredCell]) -> dict[str, Replicates]:
    """Return replicates by the fingerprint of the observations, because unsigned maps serve both columns."""
    replicates: dict[str, Replicates] = {}
    for item in scored:
        if item.replicates is not None and item.row.fingerprint not in replicates:
            data = item.cell.maps.data.scored
            sampled = sampling(data.ids, data.groups, item.row.seed)
            replicates[item.row.fingerprint] = Replicates(item.replicates, sampled)
    return replicates


def _grouped(items: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


# --- figures ---------------------------------------------------------------------------------------------------------


def _draw(scored: Sequence[ScoredCell], folder: Path, note: Any) -> None:
    good = [item for item in scored if item.error is None]
    note("scores")
    for key, members in _grouped(good, _column).items():
        _draw_scores(members, folder / "scores" / file_name(*key))
        _draw_curves(members, folder / "curves" / file_name(*key))
    note("training")
    _draw_training(good, folder / "training")
    note("gallery")
    for key, members in _grouped(good, lambda item: (item.row.dataset, item.row.model)).items():
        draw_gallery(members, folder / "gallery" / file_name(*key))


def _column(item: ScoredCell) -> tuple[str, ...]:
    row = item.row
    return (row.dataset, row.model, row.metric, row.sign)


def _title(row: ScoreRow) -> str:
    sign = "" if row.sign == "original" else ", absolute values"
    return f"{row.metric} on {row.dataset}, {row.model}{sign}"


def _draw_scores(members: Sequence[ScoredCell], stem: Path) -> None:
    stem.parent.mkdir(exist_ok=True)
    score_chart(stem, _title(members[0].row), [item.row for item in members])


def _draw_curves(members: Sequence[ScoredCell], stem: Path) -> None:
    series, axes = [], ("", "")
    for item in members:
        job = item.cell.observations
        curves = job.metric.curves(job.observations)
        if curves is not None:
            axes = (curves.x_label, curves.y_label)
            series.append(CurveSeries(item.row.explainer, item.row.control, curves.x, curves.y, curves.roles))
    if series:
        row = members[0].row
        stem.parent.mkdir(exist_ok=True)
        perturbation_curves(stem, _title(row), series, *axes)
        table = CurveTable(row.dataset, row.model, row.metric, row.sign, *axes, series)
        write_curves(table, stem.with_name(f"{stem.name}.json"))


def _draw_training(good: Sequence[ScoredCell], folder: Path) -> None:
    trained: dict[str, Job] = {}
    for item in good:
        maps = item.cell.maps
        jobs = [maps.predictions.calibration.subject.job, maps.model]
        jobs += [maps.state] if isinstance(maps.state, ExplainerJob) else []
        trained |= {job.fingerprint: job for job in jobs if (job.folder / HISTORY).exists()}
    for job in trained.values():
        folder.mkdir(exist_ok=True)
        with (job.folder / HISTORY).open(newline="") as file:
            history = list(csv.DictReader(file))
        if history:
            stem = folder / file_name(job.kind, job.label, job.fingerprint[:6])
            training_curves(stem, f"Training of {job.kind} {job.label}", history)


def _draw_views(views: Sequence[ViewJob], folder: Path) -> None:
    for job in views:
        if job.store.has(job):  # it may have failed, and the run continues without it
            folder.mkdir(exist_ok=True)
            data, images = job.model.data, job.class_images
            stem = folder / file_name(data.label, job.label)
            title = f"Images that maximise each class's score: {job.label}, {data.label}"
            class_views(stem, title, data.info.classes, images.images, images.scores, images.probabilities)


def _draw_calibrations(models: Sequence[Mapping[str, Any]], folder: Path) -> None:
    for model in models:
        stem = folder / calibration_name(model["dataset"], model["name"])
        calibration_chart(stem, f"{model['name']} on {model['dataset']}", model["calibration"])
