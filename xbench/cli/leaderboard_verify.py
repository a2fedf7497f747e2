"""Cells of a submission computed again by the installed xbench."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from xbench.contracts.options import parse_options
from xbench.errors import UserError, XbenchError
from xbench.jobs.store import Store
from xbench.leaderboard import Submission, Verdict, check_files, comparability, refuse, sample, verdict
from xbench.registry.discovery import discover
from xbench.registry.entries import Registry
from xbench.registry.references import choose
from xbench.request.config import RunConfig, resolve_device
from xbench.results.rows import ScoreRow
from xbench.run.build import make_artifacts
from xbench.run.plan import make_plan
from xbench.run.scoring import score_cells
from xbench.runtime.environment import environment
from xbench.runtime.precision import NO_TF32
from xbench.terminal import LiveProgress

_KEPT = ("limit", "resamples", "batch_size")
_MOST_RESAMPLES = 100_000


def verify_submission(path: Path, count: int, seed: int | None, device: str | None, cache: Path | None) -> int:
    """Compute some cells again and print a verdict on each.

    Args:
        path: The submission's file.
        count: How many cells to compute.
        seed: Which cells are chosen; None to draw one.
        device: Where to compute; None for the submission's device.
        cache: The cache folder; None for one that is removed afterwards.

    Returns:
        The exit code.

    Raises:
        UserError: The submission is not in order, or the device is not there.
    """
    checked = check_files([path], {})
    refuse(checked.findings)
    (submission,) = checked.submissions
    chosen = secrets.randbits(32) if seed is None else seed
    where = resolve_device(device or str(submission.run.environment.get("device", "auto")))
    rows = sample(submission, count, chosen)
    exact, words = comparability(submission.run, environment(where))
    click.echo(f"{len(rows)} of {len(submission.entries)} rows, chosen by --seed {chosen}; {words}")
    with ExitStack() as stack:
        root = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xbench-verify-")))
        progress, registry = LiveProgress(), discover()
        verdicts = []
        for row in rows:
            verdicts.append(_again(row, submission, where, exact, registry, Store(root, progress)))
            click.echo(str(verdicts[-1]))
    wrong = sum(bool(one.fault) for one in verdicts)
    click.echo(f"{len(verdicts) - wrong} of {len(verdicts)} cells agree")
    return 2 if wrong or not verdicts else 0


def _again(
    row: ScoreRow, submission: Submission, device: str, exact: bool, registry: Registry, store: Store
) -> Verdict:
    try:
        # What it was there, wherever it is computed now; rows of schema 3 and older say so by their device alone.
        explainer = choose("explainer", row.resolved, registry).on(row.device).label
        config = _config(row, submission, explainer, device)
        return verdict(row, _computed(row, explainer, config, registry, store), exact)
    except XbenchError as error:
        return Verdict(row, None, str(error))


def _config(row: ScoreRow, submission: Submission, explainer: str, device: str) -> RunConfig:
    """Configure the run that computes this row.

    Nothing of a stranger's is unpickled, and no more is taken over than a number needs.

    A device without TF32 computes in true float32 what was computed in TF32 elsewhere.
    """
    models = [entry.row.model for entry in submission.entries if entry.row.subject == "shared"]
    values: dict[str, Any] = {key: submission.run.config[key] for key in _KEPT if key in submission.run.config}
    values |= {"explainer": [explainer], "metric": [row.metric], "dataset": [row.dataset], "sign": row.sign}
    values |= {"model": [row.model] if row.subject == "shared" else list(dict.fromkeys(models)), "controls": False}
    precision = "32" if row.precision == "tf32" and device.partition(":")[0] in NO_TF32 else row.precision
    values |= {"target": row.target, "split": row.split, "seed": row.seed, "precision": precision, "device": device}
    config = parse_options(RunConfig, values, "the submission")
    if config.resamples > _MOST_RESAMPLES:
        raise UserError(f"{config.resamples} resamples are more than the {_MOST_RESAMPLES} computed here")
    return config


def _computed(row: ScoreRow, explainer: str, config: RunConfig, registry: Registry, store: Store) -> ScoreRow:
    plan = make_plan(config, registry, store)
    place = (row.subject, row.sign, row.model)
    cells = [
        cell
        for cell in plan.cells
        if (cell.subject, cell.sign, cell.maps.predictions.calibration.label) == place
        and cell.explainer.label == explainer
    ]
    if not cells:
        raise UserError("the installed plugins do not give this cell", "is it another version of the plugin?")
    same = [cell for cell in cells if cell.observations.fingerprint == row.fingerprint]
    plan = replace(plan, cells=tuple((same or cells)[:1]), views=())
    failures = make_artifacts(plan, store, store.progress)
    return _only(score_cells(plan, failures, config.resamples, store.progress))


def _only(scored: Sequence[Any]) -> ScoreRow:
    row: ScoreRow = scored[0].row
    if row.status != "ok":
        raise UserError(row.reason)
    return row
