"""A leaderboard on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xbench.contracts.options import suggestion
from xbench.errors import UserError
from xbench.leaderboard.standings import Field, Standing
from xbench.results.numbers import number


def chosen(
    found: Sequence[Field], suite: str = "", dataset: str = "", model: str = "", metric: str = "", sign: str = ""
) -> list[Field]:
    """The fields of these names; an empty name is any. A suite may be named with its version, a metric without options.

    Raises:
        UserError: There is none of a name.
    """
    left = list(found)
    for kind, wanted in {"suite": suite, "dataset": dataset, "model": model, "metric": metric, "sign": sign}.items():
        if wanted:
            known = [name for field in left for name in _names(field)[kind]]
            if wanted not in known:
                raise UserError(f"{kind} {wanted!r} is not on this leaderboard", suggestion(wanted, set(known)))
            left = [field for field in left if wanted in _names(field)[kind]]
    return left


def _names(field: Field) -> dict[str, tuple[str, ...]]:
    setting = field.setting
    return {
        "suite": (setting.suite.name, setting.suite.label),
        "dataset": (setting.dataset,),
        "model": (setting.model,),
        "metric": (setting.metric, setting.metric.partition(":")[0]),
        "sign": (setting.sign,),
    }


def board_tables(found: Sequence[Field], top: int | None = None) -> RenderableType:
    """A table a field, best first.

    Args:
        found: Of one leaderboard.
        top: At most so many rows of each; all by default.
    """
    return Group(*(part for field in found for part in _field_parts(field, top)))


def _field_parts(field: Field, top: int | None) -> Iterator[RenderableType]:
    setting = field.setting
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
    for each in field.standings[:top]:
        table.add_row(*map(Text, _cells(each)), style="dim" if each.control else "")
    yield table
    hidden = len(field.standings) - len(field.standings[:top])
    yield Text(f"... and {hidden} more\n" if hidden else "", style="dim")


def _cells(each: Standing) -> list[str]:
    pooled = each.pooled
    undefined = math.isnan(pooled.value)
    return [
        each.ranks,
        f"{each.explainer} = {each.same_as}" if each.same_as else each.explainer,
        "control" if each.control else "",
        "undefined" if undefined else number(pooled.value),
        "" if undefined else f"[{number(pooled.low)}, {number(pooled.high)}]",
        "" if math.isnan(pooled.seed_sd) else number(pooled.seed_sd),
        str(min(row.n for row in each.rows)),
        str(len(each.rows)),
        ", ".join(dict.fromkeys(submission.submitter for submission in each.submissions)),
    ]
