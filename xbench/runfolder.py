"""Scores -> a run folder: header, scores, observations, figures, gallery; written beside and renamed into place."""

from __future__ import annotations

import csv
import datetime
import itertools
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from xbench.comparison import REPLICATES, Replicates, sampling, write_replicates
from xbench.config import RunConfig
from xbench.errors import ArtifactError
from xbench.jobs.base import Job
from xbench.jobs.maps import ExplainerJob, MapsJob
from xbench.jobs.views import ViewJob
from xbench.observations import ObservationCell, observations_path, write_observations
from xbench.provenance import environment
from xbench.report import (
    CurveSeries,
    GalleryItem,
    Overlay,
    class_views,
    gallery,
    perturbation_curves,
    score_chart,
    training_curves,
)
from xbench.results import RunHeader, ScoreRow, write_header, write_scores
from xbench.run import ScoredCell, broken_rows, card_digest, card_of
from xbench.session import Progress
from xbench.summary import Finished
from xbench.training import HISTORY

_PER_CLASS = 4
_MANY = 24  # explainers and controls in a gallery


def write_run(
    out: Path, config: RunConfig, run: Finished, progress: Progress
) -> tuple[Path, RunHeader, list[ScoreRow]]:
    """Write everything a run leaves into `out`, which appears whole or not at all.

    Returns:
        The folder, numbered if another run took its name meanwhile; the header and the rows.

    Raises:
        ArtifactError: It can't be written.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        rows = [item.row for item in run.scored] + broken_rows(run.plan)
        write_scores(rows, partial / "scores.csv")
        _write_observations(run.scored, partial)
        write_replicates(_replicates(run.scored), partial / REPLICATES)
        with progress.task("drawing figures") as bar:
            _draw(run.scored, partial, bar.note)
            _draw_views(run.plan.views, partial / "models")
        header = replace(_header(config, run), wall_seconds=time.perf_counter() - run.began)
        write_header(header, partial / "run.json")
        out = _put_in_place(partial, out)
    except OSError as error:
        hint = "name another with --out; all that was computed is cached"
        raise ArtifactError(f"run folder {out} can't be written: {error}", hint) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out, header, rows


def _put_in_place(partial: Path, out: Path) -> Path:
    """Rename to `out`, or to the first of out-2, out-3, ... that is free."""
    for number in itertools.count(1):
        wanted = out if number == 1 else out.with_name(f"{out.name}-{number}")
        try:
            return partial.replace(wanted)  # over an empty folder it works
        except OSError:
            if not wanted.exists():
                raise
    raise AssertionError("unreachable")


def _header(config: RunConfig, run: Finished) -> RunHeader:
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
                "control": cell.control,
                "options": cell.explainer.options.model_dump(mode="json"),
                "facts": _state_facts(cell.maps),
                "map_facts": dict(cell.maps.facts),
            }
            for label, cell in explainers.items()
        ],
        cards={card_digest(item.cell): card_of(item.cell) for item in run.scored},
        datasets=[
            {"name": label, **asdict(data.info), **data.facts, "fingerprint": data.fingerprint}
            for label, data in datasets.items()
        ],
        warnings=list(run.warnings),
    )


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
    """By the fingerprint of the observations: a map without signs serves both columns."""
    found: dict[str, Replicates] = {}
    for item in scored:
        if item.replicates is not None and item.row.fingerprint not in found:
            data = item.cell.maps.data.scored
            found[item.row.fingerprint] = Replicates(item.replicates, sampling(data.ids, data.groups, item.row.seed))
    return found


def _grouped(items: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


# --- figures ---------------------------------------------------------------------------------------------------------


def _draw(scored: Sequence[ScoredCell], folder: Path, note: Any) -> None:
    good = [item for item in scored if item.error is None]
    note("scores")
    for key, members in _grouped(good, _place).items():
        _draw_scores(members, folder / "scores" / file_name(*key))
        _draw_curves(members, folder / "curves" / file_name(*key))
    note("training")
    _draw_training(good, folder / "training")
    note("gallery")
    for key, members in _grouped(good, lambda item: (item.row.dataset, item.row.model)).items():
        _draw_gallery(members, folder / "gallery" / file_name(*key))


def _place(item: ScoredCell) -> tuple[str, ...]:
    row = item.row
    return (row.dataset, row.model, row.metric, row.sign)


def file_name(*words: str) -> str:
    """A file name that every file system takes."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in "--".join(words))
    return kept.strip("-.")


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
            series.append(CurveSeries(item.row.explainer, item.row.control, curves.x, curves.y))
    if series:
        stem.parent.mkdir(exist_ok=True)
        perturbation_curves(stem, _title(members[0].row), series, *axes)


def _draw_training(good: Sequence[ScoredCell], folder: Path) -> None:
    trained: dict[str, Job] = {}
    for item in good:
        maps = item.cell.maps
        found = [maps.predictions.calibration.subject.job, maps.model]
        found += [maps.state] if isinstance(maps.state, ExplainerJob) else []
        trained |= {job.fingerprint: job for job in found if (job.folder / HISTORY).exists()}
    for job in trained.values():
        folder.mkdir(exist_ok=True)
        with (job.folder / HISTORY).open(newline="") as file:
            history = list(csv.DictReader(file))
        if history:
            stem = folder / file_name(job.kind, job.label, job.fingerprint[:6])
            training_curves(stem, f"Training of {job.kind} {job.label}", history)


def _draw_views(views: Sequence[ViewJob], folder: Path) -> None:
    for job in views:
        if job.store.has(job):  # it may have failed, and a run goes on without
            folder.mkdir(exist_ok=True)
            data, found = job.model.data, job.found
            stem = folder / file_name(data.label, job.label)
            title = f"What each class of {job.label} likes to see, {data.label}"
            class_views(stem, title, data.info.classes, found.images, found.scores, found.probabilities)


def _draw_gallery(members: Sequence[ScoredCell], stem: Path) -> None:
    first = members[0].cell
    chosen, chances = _gallery_samples(first)
    data = first.maps.data
    batch, classes = data.scored.batch(chosen), data.info.classes
    # A map that is the same everywhere on every image has nothing to show.
    shown = {
        item.row.explainer: item.cell
        for item in sorted(members, key=lambda item: item.row.control)
        if item.cell.maps.facts.get("constant_maps") != item.row.n
    }
    if len(shown) > _MANY:  # pages of inverted and blurred copies hide what there is to see
        shown = {label: cell for label, cell in shown.items() if not (cell.control and cell.maps.inner is not None)}
    maps = {label: cell.maps.maps() for label, cell in shown.items()}
    # An inverted map has negative values even where the map itself is unsigned.
    signed = {
        label: cell.maps.innermost.explainer.signed or any((maps[label][index] < 0).any() for index in chosen)
        for label, cell in shown.items()
    }
    items = [
        GalleryItem(
            id=batch.ids[place],
            image=batch.images[place].numpy(),
            mask=batch.masks[place].numpy() if batch.has_mask[place] else None,
            label=classes[int(batch.labels[place])],
            predicted=classes[int(chances[index].argmax())],
            probability=float(chances[index].max()),
            overlays=[Overlay(label, maps[label][index], signed[label], cell.control) for label, cell in shown.items()],
        )
        for place, index in enumerate(chosen)
    ]
    stem.parent.mkdir(exist_ok=True)
    gallery(stem, items, f"{data.label}, {first.maps.predictions.calibration.label}")


def _gallery_samples(cell: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of each class a few samples, from the surest to the most wrong; and all class probabilities (N, K)."""
    import torch

    from xbench.contracts.model import probabilities

    chances = probabilities(torch.from_numpy(cell.maps.predictions.logits)).numpy()
    labels = cell.maps.data.scored.labels
    chosen: list[int] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ordered = members[np.argsort(-chances[members, label], kind="stable")]
        where = np.unique(np.linspace(0, len(ordered) - 1, _PER_CLASS).round().astype(int))
        chosen += ordered[where].tolist()
    return np.array(chosen[: 2 * _PER_CLASS]), chances
