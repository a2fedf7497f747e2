"""Collect the data of a dataset and classifier that a page loads: the rankings, and every paired difference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xbench.leaderboard.records import Submission
from xbench.leaderboard.site.editions import Place
from xbench.leaderboard.standings import RankedGroup, Standing, SuiteSetting
from xbench.leaderboard.tables import reproduce

_DIGITS = 16  # of a fingerprint, as in the tables

Runs = tuple[Submission, ...]


class Origins:
    """The submissions that rows come from, and the commands that repeat them; each group of submissions is kept once.

    Args:
        submissions: Those of the suite's version; groups name them by their positions.
    """

    def __init__(self, submissions: Sequence[Submission]) -> None:
        self._position = {submission.digest: at for at, submission in enumerate(submissions)}
        self._groups: dict[tuple[int, ...], int] = {}
        self.records: list[dict[str, Any]] = []

    def number(self, runs: Runs) -> int:
        """Return the position of these submissions' record among `records`."""
        key = tuple(self._position[submission.digest] for submission in runs)
        if key not in self._groups:
            self._groups[key] = len(self.records)
            self.records.append({"runs": key, "command": reproduce(runs)})
        return self._groups[key]


def rankings_data(place: Place, origins: Origins) -> list[dict[str, Any]]:
    """Return the rankings of a place, their rows best first."""
    apart = distinctions([group.setting for group in place.groups])
    return [_ranking(group, words, origins) for group, words in zip(place.groups, apart, strict=True)]


def differences_data(place: Place) -> list[dict[str, Any]]:
    """Return every pair of explainers of each ranking, in the rankings' order.

    The lists `value`, `half` (of the 95 % interval's width) and `p` (Holm's) run over the pairs of `who`, the positions
    of rows: the first with each later one, then the second, and so on. `paired` is true, false or a list.
    """
    return [_differences(group) for group in place.groups]


def distinctions(settings: Sequence[SuiteSetting]) -> list[str]:
    """Say what tells each setting from the others of its metric and sign; empty where there is no other."""
    groups: dict[tuple[str, str], list[SuiteSetting]] = {}
    for setting in settings:
        groups.setdefault((setting.metric, setting.sign), []).append(setting)
    return [_distinction(setting, groups[setting.metric, setting.sign]) for setting in settings]


def _distinction(setting: SuiteSetting, others: Sequence[SuiteSetting]) -> str:
    words = {
        "subject": "own model" if setting.subject == "self" else "",
        "target": f"target {setting.target}",
        "split": f"{setting.split} split",
        "dataset_fingerprint": f"data {setting.dataset_fingerprint[:8]}",
        "card": f"card {setting.card[:8]}",
        "higher_is_better": "higher is better" if setting.higher_is_better else "lower is better",
    }
    differing = [name for name in words if name == "subject" or len({getattr(other, name) for other in others}) > 1]
    return ", ".join(words[name] for name in differing if words[name])


def _ranking(group: RankedGroup, apart: str, origins: Origins) -> dict[str, Any]:
    setting = group.setting
    position = {standing.explainer: at for at, standing in enumerate(group.standings)}
    return {
        "metric": setting.metric,
        "apart": apart,
        "sign": setting.sign,
        "subject": setting.subject,
        "target": setting.target,
        "split": setting.split,
        "card": setting.card,
        "higher": setting.higher_is_better,
        "rows": [_row(standing, position, origins) for standing in group.standings],
    }


def _row(standing: Standing, position: Mapping[str, int], origins: Origins) -> dict[str, Any]:
    rows, pooled = standing.rows, standing.pooled
    data = {
        "e": standing.explainer,
        "v": pooled.value,
        "lo": pooled.low,
        "hi": pooled.high,
        "r": [standing.rank, standing.rank_high],
        "s": sorted(position[name] for name in standing.rank_set),
        "n": min(row.n for row in rows),
        "g": min(row.groups for row in rows),
        "t": sum(row.seconds_fit + row.seconds_maps + row.seconds_metric for row in rows) / len(rows),
        "o": origins.number(standing.submissions),
        "f": [row.fingerprint[:_DIGITS] for row in rows],
    }
    optional = {
        "c": standing.control,
        "same": standing.same_as,
        "w": "; ".join(_distinct(row.warning for row in rows if row.warning)),
        "sd": None if math.isnan(pooled.seed_sd) else pooled.seed_sd,
    }
    return data | {name: value for name, value in optional.items() if value not in (None, "", False)}


def _distinct(words: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(words)


def _differences(group: RankedGroup) -> dict[str, Any]:
    position = {standing.explainer: at for at, standing in enumerate(group.standings)}
    pairs = group.differences
    paired = [pair.paired for pair in pairs]
    return {
        "who": sorted({position[name] for pair in pairs for name in (pair.first, pair.second)}),
        "value": [pair.value for pair in pairs],
        "half": [pair.high - pair.value for pair in pairs],
        "p": [pair.p_holm for pair in pairs],
        "paired": paired[0] if len(set(paired)) == 1 else paired,
    }
