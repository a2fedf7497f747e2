"""The page around its panels: title, warnings, and the sections themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from xbench.report.page.panel import SCRIPT, STYLE, Panel, Section
from xbench.results.numbers import number

if TYPE_CHECKING:
    from xbench.comparison import Run
    from xbench.report.page.draft import Draft


def render(draft: Draft, title: str, sections: Mapping[Panel, Section]) -> str:
    """Render the page.

    Args:
        draft: The report.
        title: Title of the page; made from the runs if empty.
        sections: Content of each panel, in the order of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("xbench.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    headers = [run.header for run in draft.comparison.runs]
    datasets = list(dict.fromkeys(place.dataset for place in draft.places))
    return environment.get_template("index.html.j2").render(
        title=title or _title(draft.comparison.runs, datasets),
        runs=[{"name": run.name, "warnings": run.header.warnings} for run in draft.comparison.runs],
        version=headers[0].xbench_version,
        warnings=draft.comparison.warnings,
        counts=_counts(draft, datasets),
        phantoms=sorted({str(info["name"]) for one in headers for info in one.datasets if info.get("synthetic")}),
        downloads=draft.downloads,
        sections=[_section(environment, panel, section) for panel, section in sections.items()],
    )


def _title(runs: Sequence[Run], datasets: Sequence[str]) -> str:
    suites = list(dict.fromkeys(str(run.header.suite["name"]) for run in runs if run.header.suite.get("name")))
    return (
        f"{' and '.join(suites)} on {' and '.join(datasets)}" if suites else f"Explanations on {' and '.join(datasets)}"
    )


def _counts(draft: Draft, datasets: Sequence[str]) -> dict[str, int]:
    rows = [one.entry.row for place in draft.places for ranking in place.rankings for one in ranking.standings]
    return {
        "explainer": len({row.explainer for row in rows if not row.control}),
        "control": len({row.explainer for row in rows if row.control}),
        "metric": len({metric for place in draft.places for metric in place.metrics}),
        "model": len({place.model for place in draft.places}),
        "dataset": len(datasets),
    }


def _section(environment: jinja2.Environment, panel: Panel, section: Section) -> dict[str, Any]:
    template = environment.from_string(panel.template)
    return {
        "name": panel.name,
        "title": panel.title,
        "words": panel.words,
        "script": bool(panel.file(SCRIPT)),
        "style": bool(panel.file(STYLE)),
        "body": template.render(section.words, name=panel.name),
    }
