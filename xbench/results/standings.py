"""Records of what ranked rows share and where an explainer stands among them, for runs, comparisons, leaderboards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from xbench.results.numbers import rank_range
from xbench.results.rows import ScoreRow

if TYPE_CHECKING:
    from xbench.statistics.ranking import Rank


@dataclass(frozen=True, order=True)
class Setting:
    """Setting that rows share wherever they are ranked together.

    A comparison asks for more, since it pairs rows resample by resample (`xbench.comparison.RunSetting`). So does a
    leaderboard, since only rows of one suite answer the same question (`xbench.leaderboard.SuiteSetting`).

    Attributes:
        dataset: Name of the dataset.
        dataset_fingerprint: Fingerprint of the dataset and the samples scored.
        split: The split scored.
        model: Name of the classifier.
        subject: "shared" or "self", as in `ScoreRow`.
        target: Target rule.
        metric: Name of the metric, with options.
        card: Hash of the metric card.
        sign: "original" or "absolute" maps.
    """

    dataset: str
    dataset_fingerprint: str
    split: str
    model: str
    subject: str
    target: str
    metric: str
    card: str
    sign: str

    @classmethod
    def of(cls, row: ScoreRow, **more: Any) -> Self:
        """Return the setting of a row.

        Args:
            row: The row; every attribute that it has is taken from it.
            more: The attributes that it does not have.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name not in more]
        return cls(**{name: getattr(row, name) for name in names}, **more)

    @property
    def place(self) -> str:
        """Where it was scored, in words."""
        return f"{self.dataset} / {self.model}" + (" (own model)" if self.subject == "self" else "")


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Where an explainer stands among those ranked with it.

    Attributes:
        explainer: Name, unique among them.
        rank: Best rank that the data allow, from 1; 0 where it has none.
        rank_high: Worst rank that the data allow.
        rank_set: Names of the explainers it can't be told apart from, itself left out.
        same_as: Name of an explainer with the same maps, whose ranks it shares; empty for none.
    """

    explainer: str
    rank: int = 0
    rank_high: int = 0
    rank_set: tuple[str, ...] = ()
    same_as: str = ""

    @property
    def ranks(self) -> str:
        """The ranks that the data allow: "1" or "2–4"; empty without one."""
        return rank_range(self.rank, self.rank_high)

    def shared_with(self, twin: str) -> Ranked:
        """Return the ranks of another explainer with the same maps: two names of one method take one rank."""
        return Ranked(
            explainer=twin,
            rank=self.rank,
            rank_high=self.rank_high,
            rank_set=self.rank_set,
            same_as=self.explainer,
        )


def ranked(names: Sequence[str], ranks: Sequence[Rank]) -> list[Ranked]:
    """Put names to ranks.

    Args:
        names: E names of explainers.
        ranks: E ranks in the same order; `tied` counts through the names.
    """
    named = []
    for index, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        others = tuple(names[other] for other in sorted(rank.tied) if other != index)
        named.append(Ranked(explainer=name, rank=rank.low, rank_high=rank.high, rank_set=others))
    return named


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Value of one explainer minus that of another.

    Attributes:
        value: The difference.
        low: Lower end of its 95 % interval, which is for this difference alone.
        high: Upper end of that interval.
        p: Two-sided p of "they are equal".
        p_holm: p after Holm's correction for all comparisons of the family.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
