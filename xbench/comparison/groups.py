"""Read run folders and group the rows that may be ranked together, of one run or of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbench.errors import UserError
from xbench.results.naming import bare_name
from xbench.results.replicates import REPLICATES, Replicates, read_replicates
from xbench.results.rows import RunHeader, ScoreRow, read_header, read_scores
from xbench.results.standings import Setting


@dataclass(frozen=True)
class Run:
    """Content of a run folder.

    Attributes:
        name: Name of the folder, or its path where two folders bear one name.
        header: Content of run.json.
        rows: Content of scores.csv.
        replicates: Fingerprint of the observations -> their replicates; empty for a run of an xbench that did not
            write them.
    """

    name: str
    header: RunHeader
    rows: tuple[ScoreRow, ...]
    replicates: Mapping[str, Replicates]


@dataclass(frozen=True, order=True)
class RunSetting(Setting):
    """Setting that rows must share to be ranked together by their replicates.

    It includes one classifier and one set of resamples.

    Attributes:
        model_fingerprint: Fingerprint of the classifier's weights.
        sampling: `xbench.results.replicates.sampling` of the resamples; empty without replicates.
    """

    model_fingerprint: str
    sampling: str

    def without(self, *names: str) -> RunSetting:
        """Return a copy with some attributes emptied, which is equal for groups that differ in these alone."""
        return dataclasses.replace(self, **dict.fromkeys(names, ""))


@dataclass(frozen=True)
class Entry:
    """A row of a group.

    Attributes:
        name: The explainer; in a comparison of several runs as it was resolved.
        label: The same, followed by its run where runs bring different results under one name.
        row: Its scores.
        runs: The runs that brought it.
        replicates: float64 (B,), the same B for all entries of a group; None without replicates.
    """

    name: str
    label: str
    row: ScoreRow
    runs: tuple[str, ...]
    replicates: np.ndarray | None


@dataclass(frozen=True)
class RankedGroup:
    """The rows that are ranked together.

    A leaderboard has a record of its own (`xbench.leaderboard.RankedGroup`): its members are pooled over seeds and
    submissions, where an entry here is one row with all its replicates.

    Attributes:
        setting: Setting that they share.
        card: The metric card, which says what the number means.
        entries: The rows with status "ok".
    """

    setting: RunSetting
    card: Mapping[str, Any]
    entries: tuple[Entry, ...]

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return self.entries[0].row.higher_is_better

    @property
    def runs(self) -> tuple[str, ...]:
        """All runs that brought a row."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.runs))

    @property
    def metric_name(self) -> str:
        """The metric without its options."""
        return str(self.card.get("metric") or bare_name(self.setting.metric))

    def oriented(self, entry: Entry) -> float:
        """Return the value such that more is better."""
        return entry.row.value if self.higher_is_better else -entry.row.value

    def twin(self, entry: Entry) -> Entry | None:
        """Return the entry of the explainer with the same maps as this one, if the run found one and it is here."""
        for other in self.entries:
            if other is not entry and entry.row.same_as == other.row.explainer and set(entry.runs) & set(other.runs):
                return other
        return None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders.

    Raises:
        UserError: One is not a run folder, is named twice, can't be read, or is of a newer schema.
    """
    known: set[Path] = set()
    for folder in folders:
        if folder.resolve() in known:
            raise UserError(f"run {folder} is named twice", "name each run once")
        known.add(folder.resolve())
        for name in ("scores.csv", "run.json"):
            if not (folder / name).is_file():
                raise UserError(
                    f"{folder} is not a run folder: it has no {name}" if folder.is_dir() else f"no run folder {folder}",
                    "name a folder that `xbench run` wrote (its --out)",
                )
    names = [folder.resolve().name for folder in folders]
    return [
        Run(
            name=name if names.count(name) == 1 else str(folder),
            header=read_header(folder / "run.json"),
            rows=tuple(read_scores(folder / "scores.csv")),
            replicates=read_replicates(folder / REPLICATES),
        )
        for folder, name in zip(folders, names, strict=True)
    ]


def ranked_groups(
    runs: Iterable[Run], metrics: Sequence[str] = (), explainers: Sequence[str] = ()
) -> list[RankedGroup]:
    """Sort the rows of all runs into groups that are ranked together, in the order they come.

    The same cell in several runs counts once. Cells of one explainer's name but of other maps stay apart, each with
    its run's name. The explainers of a single run keep the names that the user gave them. Those of several runs are
    named by what they were resolved to, since the same word need not mean the same on another device.

    Args:
        runs: As `read_runs` gives them.
        metrics: Only these, by name with or without options; empty for all.
        explainers: Only these, as the user named them or as they were resolved; empty for all.
    """
    runs = list(runs)
    members: dict[RunSetting, list[tuple[ScoreRow, Run]]] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        cards |= {card: content for card, content in run.header.cards.items() if isinstance(content, Mapping)}
        for row in run.rows:
            wanted = not metrics or row.metric in metrics or bare_name(row.metric) in metrics
            if row.status == "ok" and wanted and (not explainers or {row.explainer, row.resolved} & set(explainers)):
                replicates = run.replicates.get(row.fingerprint)
                setting = RunSetting.of(row, sampling=replicates.sampling if replicates else "")
                members.setdefault(setting, []).append((row, run))
    return [
        RankedGroup(setting, cards.get(setting.card, {}), _entries(rows, resolved=len(runs) > 1))
        for setting, rows in members.items()
    ]


def _entries(members: Sequence[tuple[ScoreRow, Run]], resolved: bool) -> tuple[Entry, ...]:
    cells: dict[tuple[str, str], list[tuple[ScoreRow, Run]]] = {}
    for row, run in members:
        cells.setdefault((row.resolved if resolved else row.explainer, row.fingerprint), []).append((row, run))
    names = [explainer for explainer, _ in cells]
    entries = []
    for (explainer, fingerprint), same in cells.items():
        row, _ = same[0]
        known = [run.replicates[fingerprint].values for _, run in same if fingerprint in run.replicates]
        label = explainer if names.count(explainer) == 1 else f"{explainer} [{same[0][1].name}]"
        brought = tuple(dict.fromkeys(run.name for _, run in same))
        entries.append(Entry(explainer, label, row, brought, max(known, key=len) if known else None))
    shortest = min((len(entry.replicates) for entry in entries if entry.replicates is not None), default=0)
    return tuple(
        dataclasses.replace(entry, replicates=None if entry.replicates is None else entry.replicates[:shortest])
        for entry in entries
    )
