"""The command, configuration and environment of each run, and the list of downloads."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from xbench.report.page.draft import Draft
from xbench.report.page.facts import flat
from xbench.report.page.panel import Panel, Section

if TYPE_CHECKING:
    from xbench.comparison import Run


class ReproducePanel(Panel):
    """The commands that reproduce the numbers, and the downloads."""

    name = "reproduce"
    title = "Reproduce"

    def section(self, draft: Draft) -> Section:
        """Return the record of each run, and the downloads that the panels before this one offer."""
        return Section({"runs": [_run(run) for run in draft.comparison.runs], "downloads": draft.downloads})


def _run(run: Run) -> dict[str, Any]:
    header = run.header
    return {
        "name": run.name,
        "created": header.created,
        "command": shlex.join(header.command),
        "version": header.xbench_version,
        "wall": None if math.isnan(header.wall_seconds) else header.wall_seconds,
        "suite": {name: str(value) for name, value in header.suite.items() if not isinstance(value, dict | list)},
        "environment": list(flat(header.environment)),
        "config": list(flat(header.config)),
        "datasets": [dict(flat(info)) for info in header.datasets],
    }
