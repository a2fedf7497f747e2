"""Render the part of the pages that needs no script: words, counts, submissions, metric cards."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from xbench.leaderboard.records import Submission
from xbench.leaderboard.site.editions import Edition
from xbench.version import __version__


@dataclass(frozen=True)
class Links:
    """Where a submission's report lies, relative to the site; empty where there is none.

    Attributes:
        report: Its page.
        gallery: The part of it that shows maps.
    """

    report: str = ""
    gallery: str = ""


def render_index(editions: Sequence[Edition]) -> str:
    """Render the page that lists the suites."""
    facts = [(edition, _facts(edition)) for edition in editions]
    return _template("index.html.j2").render(
        version=__version__,
        suites=[each for each in facts if not each[0].is_custom and not each[0].is_old],
        custom=[each for each in facts if each[0].is_custom],
        older=_older(editions),
    )


def render_edition(edition: Edition, links: Mapping[str, Links]) -> str:
    """Render the page of one version of a suite.

    Args:
        edition: The version.
        links: Links to the reports, by the digest of the submission.
    """
    return _template("edition.html.j2").render(
        version=__version__,
        edition=edition,
        facts=_facts(edition),
        submissions=[_submission(submission, links[submission.digest]) for submission in edition.submissions],
        failed=_failed(edition),
        cards=_cards(edition),
    )


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("xbench.leaderboard.site"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _older(editions: Sequence[Edition]) -> dict[str, list[Edition]]:
    """Name of a suite -> its older versions."""
    found: dict[str, list[Edition]] = {}
    for edition in editions:
        if edition.is_old:
            found.setdefault(edition.suite.name, []).append(edition)
    return found


def _facts(edition: Edition) -> dict[str, Any]:
    settings = [group.setting for group in edition.groups]
    standings = [standing for group in edition.groups for standing in group.standings]
    datasets = list(dict.fromkeys(setting.dataset for setting in settings))
    return {
        "datasets": [(name, _is_phantom(name, edition)) for name in datasets],
        "models": list(dict.fromkeys(setting.model for setting in settings)),
        "metrics": len({setting.metric for setting in settings}),
        "explainers": len({standing.variant.resolved for standing in standings if not standing.control}),
        "controls": len({standing.variant.resolved for standing in standings if standing.control}),
        "seeds": sorted({submission.seed for submission in edition.submissions}),
        "submitters": list(dict.fromkeys(submission.submitter for submission in edition.submissions)),
        "last": edition.submissions[-1].submitted[:10],
    }


def _is_phantom(dataset: str, edition: Edition) -> bool:
    infos = (info for submission in edition.submissions for info in submission.run.datasets)
    return any(info.get("name") == dataset and info.get("synthetic") for info in infos)


def _submission(submission: Submission, links: Links) -> dict[str, Any]:
    rows = [entry.row for entry in submission.entries]
    environment = submission.run.environment
    return {
        "name": submission.name,
        "submitter": submission.submitter,
        "submitted": submission.submitted[:10],
        "seed": submission.seed,
        "note": submission.note,
        "rows": len(rows),
        "failed": sum(row.status != "ok" for row in rows),
        "version": submission.run.xbench_version,
        "machine": str(environment.get("gpu") or environment.get("processor") or environment.get("device") or ""),
        "links": links,
    }


def _failed(edition: Edition) -> list[dict[str, Any]]:
    """List what could not be scored and why: one line for all metrics that failed for the same reason."""
    metrics: dict[tuple[str, str, str, int, str], list[str]] = {}
    for submission in edition.submissions:
        for row in (entry.row for entry in submission.entries if entry.row.status != "ok"):
            key = (row.resolved, row.dataset, row.model, row.seed, row.reason)
            metrics.setdefault(key, []).append(row.metric)
    names = ("explainer", "dataset", "model", "seed", "reason")
    return [dict(zip(names, key, strict=True)) | {"metrics": list(dict.fromkeys(of))} for key, of in metrics.items()]


def _cards(edition: Edition) -> list[dict[str, Any]]:
    """List every metric card that a ranking bears, once."""
    found: dict[str, dict[str, Any]] = {}
    for group in edition.groups:
        setting = group.setting
        found.setdefault(
            setting.card, {"hash": setting.card, "metric": setting.metric, "sign": setting.sign, "card": group.card}
        )
    return sorted(found.values(), key=lambda card: (card["metric"], card["sign"], card["hash"]))
