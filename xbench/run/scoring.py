"""Score and rank the cells of a run from their observations. Nothing else loops over cells."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbench.contracts.session import Progress
from xbench.errors import PluginError, XbenchError
from xbench.provenance import digest
from xbench.results.rows import ScoreRow
from xbench.results.standings import Ranked, ranked
from xbench.run.build import Failures
from xbench.run.plan import Cell, Plan
from xbench.run.same_maps import same_maps
from xbench.statistics.ranking import rank_sets
from xbench.statistics.resampling import interval, resamples


@dataclass(frozen=True)
class ScoredCell:
    """A cell and what became of it.

    Attributes:
        cell: The cell to score.
        row: Its score row, ranks included.
        error: Why it failed; None if it did not.
        replicates: float64 (B,), its value on each resample; None if it failed.
    """

    cell: Cell
    row: ScoreRow
    error: XbenchError | None
    replicates: np.ndarray | None = None


def score_cells(plan: Plan, failures: Failures, count: int, progress: Progress) -> list[ScoredCell]:
    """Return value, interval and ranks of every cell, failed ones included, in the plan's order.

    Cells of the same dataset, classifier and metric card are resampled alike, compared in pairs and ranked together.

    Args:
        plan: The plan that was run.
        failures: Fingerprint of what failed -> its error.
        count: Number of bootstrap resamples.
        progress: Where to show the work.
    """
    replicates: dict[int, np.ndarray] = {}
    rows: dict[int, ScoreRow] = {}
    errors: dict[int, XbenchError] = {}
    drawn: dict[str, list[np.ndarray]] = {}
    with progress.task("resampling", len(plan.cells)) as bar:
        for index, cell in enumerate(plan.cells):
            error = failures.get(cell.observations.fingerprint)
            rows[index] = _bare_row(cell, plan, str(error) if error else "")
            if error is None:
                fingerprint = cell.maps.predictions.fingerprint
                if fingerprint not in drawn:
                    drawn[fingerprint] = resamples(cell.maps.data.scored.groups, count, plan.settings.seed)
                try:
                    rows[index], replicates[index] = _valued(rows[index], cell, drawn[fingerprint])
                except Exception as raised:  # whatever a metric raises must not end the run of the others
                    owner = cell.observations.choice.entry.owner
                    error = PluginError(f"{owner} raised in summarise: {type(raised).__name__}: {raised}")
                    rows[index] = _bare_row(cell, plan, str(error))
                    progress.warn(f"failed: {cell.observations.label}: {error}")
            if error is not None:
                errors[index] = error
            bar.advance()
    for members in _ranked_together(plan.cells, rows, replicates):
        for index, ranks in _ranks(members, plan.cells, rows, replicates).items():
            rows[index] = _with_ranks(rows[index], ranks)
    return [
        ScoredCell(cell, rows[index], errors.get(index), replicates.get(index)) for index, cell in enumerate(plan.cells)
    ]


def _bare_row(cell: Cell, plan: Plan, reason: str) -> ScoreRow:
    maps, settings = cell.maps, plan.settings
    predictions = maps.predictions
    return ScoreRow(
        dataset=maps.data.label,
        split=settings.split,
        n=0,
        groups=0,
        model=predictions.calibration.label,
        explainer=cell.explainer.label,
        resolved=maps.resolved.label,
        subject=cell.subject,
        control=cell.control,
        sign=cell.sign,
        target=settings.target,
        metric=cell.observations.choice.label,
        value=math.nan,
        ci_low=math.nan,
        ci_high=math.nan,
        higher_is_better=cell.observations.metric.higher_is_better,
        rank=0,
        rank_high=0,
        rank_set=(),
        same_as="",
        seconds_fit=0.0,
        seconds_maps=0.0,
        seconds_metric=0.0,
        batch_size=settings.batch_size or 0,
        seed=settings.seed,
        card=card_digest(cell),
        fingerprint=cell.observations.fingerprint,
        maps_fingerprint=maps.fingerprint,
        model_fingerprint=predictions.calibration.subject.job.fingerprint,
        dataset_fingerprint=maps.data.dataset_identity,
        device=settings.device,
        precision=settings.precision,
        status="failed" if reason else "ok",
        reason=reason,
    )


def broken_rows(plan: Plan) -> list[ScoreRow]:
    """Return failed rows of the explainers that can't be made."""
    nothing = dict.fromkeys(("value", "ci_low", "ci_high"), math.nan) | dict.fromkeys(("n", "groups"), 0)
    nothing |= dict.fromkeys(("rank", "rank_high", "batch_size"), 0)
    nothing |= dict.fromkeys(("seconds_fit", "seconds_maps", "seconds_metric"), 0.0)
    prints = ("card", "fingerprint", "maps_fingerprint", "model_fingerprint", "dataset_fingerprint")
    settings = plan.settings
    return [
        ScoreRow(
            **(vars(cell) | nothing | dict.fromkeys(prints, "")),
            resolved=cell.explainer,
            split=settings.split,
            subject="shared",
            sign="original",
            target=settings.target,
            rank_set=(),
            same_as="",
            seed=settings.seed,
            device=settings.device,
            precision=settings.precision,
            status="failed",
        )
        for cell in plan.broken
    ]


def card_of(cell: Cell) -> dict[str, Any]:
    """Return the metric card of a cell. Its sign is the column it stands in, also where a map serves both."""
    return cell.observations.card() | {"sign": cell.sign}


def card_digest(cell: Cell) -> str:
    """Return the hash of the metric card."""
    return digest(card_of(cell))[:16]


def _valued(row: ScoreRow, cell: Cell, drawn: Sequence[np.ndarray]) -> tuple[ScoreRow, np.ndarray]:
    observations, maps = cell.observations.observations, cell.maps
    metric = cell.observations.metric
    replicates = np.array(
        [metric.summarise({key: values[where] for key, values in observations.items()}) for where in drawn]
    )
    low, high = interval(replicates)
    groups = np.array(maps.data.scored.groups)
    if "used" in observations:  # a metric says which samples count: those with a mask, say
        groups = groups[observations["used"].astype(bool)]
    innermost = maps.innermost
    valued = dataclasses.replace(
        row,
        n=len(groups),
        groups=len(set(groups)),
        value=float(metric.summarise(observations)),
        ci_low=low,
        ci_high=high,
        seconds_fit=innermost.state.manifest.seconds if innermost.state else 0.0,
        seconds_maps=maps.manifest.seconds,
        seconds_metric=cell.observations.manifest.seconds,
        batch_size=maps.calibration.batch_size,
        warning=str(innermost.state.facts.get("warning", "")) if innermost.state else "",
    )
    return valued, replicates


def _ranked_together(
    cells: Sequence[Cell], rows: Mapping[int, ScoreRow], replicates: Mapping[int, np.ndarray]
) -> list[list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for index, cell in enumerate(cells):
        if index in replicates and not math.isnan(rows[index].value):  # no value, no rank
            groups.setdefault((cell.maps.predictions.fingerprint, rows[index].card), []).append(index)
    return list(groups.values())


def _repeated(members: list[int], cells: Sequence[Cell]) -> dict[int, int]:
    """Return the cells whose maps are those of an earlier one -> that one; the user's explainers precede controls.

    One explainer under two names (`vinet`, and what it stands for on this device) has the very same maps.
    """
    ordered = sorted(members, key=lambda index: cells[index].control)
    jobs = [cells[index].maps for index in ordered]
    earliest: dict[str, int] = {}
    for index, job in zip(ordered, jobs, strict=True):
        earliest.setdefault(job.fingerprint, index)
    same = same_maps(jobs)
    repeated = {}
    for index, job in zip(ordered, jobs, strict=True):
        first = earliest[same.get(job.fingerprint, job.fingerprint)]
        if first != index:
            repeated[index] = first
    return repeated


def _ranks(
    members: list[int], cells: Sequence[Cell], rows: Mapping[int, ScoreRow], replicates: Mapping[int, np.ndarray]
) -> dict[int, Ranked]:
    """Rank the cells of one group; a cell with the maps of another one takes its ranks."""
    repeated = _repeated(members, cells)
    judged = [index for index in members if index not in repeated]
    first = rows[judged[0]]
    unnamed = rank_sets(
        np.array([rows[index].value for index in judged]),
        np.stack([replicates[index] for index in judged]),
        first.higher_is_better,
        patients=first.groups,
    )
    ranks = dict(zip(judged, ranked([rows[index].explainer for index in judged], unnamed), strict=True))
    twins = {index: ranks[original].shared_with(rows[index].explainer) for index, original in repeated.items()}
    return ranks | twins


def _with_ranks(row: ScoreRow, ranks: Ranked) -> ScoreRow:
    return dataclasses.replace(
        row, rank=ranks.rank, rank_high=ranks.rank_high, rank_set=ranks.rank_set, same_as=ranks.same_as
    )
