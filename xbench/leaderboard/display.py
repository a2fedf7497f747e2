"""Show a leaderboard on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xbench.contracts.options import suggestion
from xbench.errors import UserError
from xbench.leaderboard.standings import RankedGroup, Standing
from xbench.results.naming import bare_name
from xbench.results.numbers import number


def chosen(
    groups: Sequence[RankedGroup],
    suite: str = "",
    dataset: str = "",
    model: str = "",
    metric: str = "",
    sign: str = "",
) -> list[RankedGroup]:
    """Return the groups of these names.

    An empty name is any. A suite may be named with its version, a metric without its options.

    Raises:
        UserError: There is none of a name.
    """
    left = list(groups)
    for kind, wanted in {"suite": suite, "dataset": dataset, "model": model, "metric": metric, "sign": sign}.items():
        if wanted:
            known = [name for group in left for name in _names(group)[kind]]
            if wanted not in known:
                raise UserError(f"{kind} {wanted!r} is not on this leaderboard", suggestion(wanted, set(known)))
            left = [group for group in left if wanted in _names(group)[kind]]
    return left


def _names(group: RankedGroup) -> dict[str, tuple[str, ...]]:
    setting = group.setting
    return {
        "suite": (setting.suite.name, setting.suite.label),
        "dataset": (setting.dataset,),
        "model": (setting.model,),
        "metric": (setting.metric, bare_name(setting.metric)),
        "sign": (setting.sign,),
    }


def board_tables(groups: Sequence[RankedGroup], top: int | None = None) -> RenderableType:
    """Return a table per group, best first.

    Args:
        groups: Groups of one leaderboard.
        top: Most rows of each table; all by default.
    """
    return Group(*(part for group in groups for part in _group_parts(group, top)))


def _group_parts(group: RankedGroup, top: int | None) -> Iterator[RenderableType]:
    setting = group.setting
    signs = {"original": "maps as they are", "absolute": "absolute maps"}[setting.sign]
    own = ", each against its own classifier" if setting.subject == "self" else ""
    yield Text.assemble(
        (f"{setting.metric} on {setting.dataset} / {setting.model}", "bold"),
        f"  {'higher' if setting.higher_is_better else 'lower'} is better; {signs}{own}; suite {setting.suite.label}",
    )
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("explainer", overflow="fold")
    table.add_column("")
    for name in ("value", "95 % CI", "seed sd", "n", "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("by", overflow="fold")
    for standing in group.standings[:top]:
        table.add_row(*map(Text, _cells(standing)), style="dim" if standing.control else "")
    yield table
    hidden = len(group.standings) - len(group.standings[:top])
    yield Text(f"... and {hidden} more\n" if hidden else "", style="dim")


def _cells(standing: Standing) -> list[str]:
    pooled = standing.pooled
    undefined = math.isnan(pooled.value)
    return [
        standing.ranks,
        f"{standing.explainer} = {standing.same_as}" if standing.same_as else standing.explainer,
        "control" if standing.control else "",
        "undefined" if undefined else number(pooled.value),
        "" if undefined else f"[{number(pooled.low)}, {number(pooled.high)}]",
        "" if math.isnan(pooled.seed_sd) else number(pooled.seed_sd),
        str(min(row.n for row in standing.rows)),
        str(len(standing.rows)),
        ", ".join(dict.fromkeys(submission.submitter for submission in standing.submissions)),
    ]
