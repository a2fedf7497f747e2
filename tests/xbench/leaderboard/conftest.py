"""Run folders made by hand, as `xbench run` would leave them: consistent to the last fingerprint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest

from xbench.leaderboard import Entry, Submission, add_run, check_files
from xbench.leaderboard.records import content_digest, line
from xbench.leaderboard.thinning import thinned
from xbench.provenance import digest
from xbench.results.replicates import REPLICATES, Replicates, sampling, write_replicates
from xbench.results.rows import RunHeader, ScoreRow, write_header, write_scores
from xbench.statistics.ranking import rank_sets
from xbench.statistics.resampling import interval, resamples

PATIENTS = [f"p{index}" for index in range(60)]
EXPLAINERS = {"gradient": 0.40, "vinet": 0.60, "occlusion": 0.40, "random": 0.0}
SUITE = {"name": "quick", "version": 1, "fingerprint": digest("quick 1"), "changed": {}}
METRICS = {"fidelity": True, "spread": False}
_BLANK = {str: "", int: 0, float: 0.0, bool: False}


def card(metric: str, sign: str) -> dict[str, Any]:
    """A metric card."""
    return {"metric": metric, "sign": sign, "split": "test", "target": "predicted", "options": {"step": 0.1}}


def _row(
    seed: int, metric: str, explainer: str, sign: str, values: np.ndarray, replicates: np.ndarray, computed: _Computed
) -> ScoreRow:
    low, high = interval(replicates)
    hints, required = get_type_hints(ScoreRow), dataclasses.fields(ScoreRow)
    blank: dict[str, Any] = {
        each.name: _BLANK.get(hints[each.name], ()) for each in required if each.default is dataclasses.MISSING
    }
    return ScoreRow(
        **blank
        | {"dataset": "phantom", "split": "test", "n": 60, "groups": 60, "model": "net", "explainer": explainer}
        | {"resolved": computed.resolved.get(explainer, explainer)}
        | {"subject": "shared", "control": explainer == "random", "sign": sign, "target": "predicted"}
        | {"metric": metric, "value": float(values.mean()), "ci_low": low, "ci_high": high, "seed": seed}
        | {"higher_is_better": METRICS[metric], "card": digest(card(metric, sign))[:16]}
        | {"fingerprint": computed.digest(seed, metric, explainer, sign)}
        | {"maps_fingerprint": computed.digest(seed, explainer), "model_fingerprint": computed.digest("net", seed)}
        | {"dataset_fingerprint": digest("phantom"), "batch_size": 16}
        | {"device": computed.device, "precision": computed.precision}
    )


def _ranked(rows: list[ScoreRow], replicates: dict[str, np.ndarray]) -> list[ScoreRow]:
    groups = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.metric, row.sign), []).append(index)
    for members in groups.values():
        first = rows[members[0]]
        stacked = np.stack([replicates[rows[index].fingerprint] for index in members])
        ranks = rank_sets(
            np.array([rows[index].value for index in members]), stacked, first.higher_is_better, patients=first.groups
        )
        for index, rank in zip(members, ranks, strict=True):
            tied = tuple(rows[members[other]].explainer for other in sorted(rank.tied) if members[other] != index)
            rows[index] = replace(rows[index], rank=rank.low, rank_high=rank.high, rank_set=tied)
    return rows


class _Computed:
    """Where a run was computed, in which precision, and what it resolved: explainer -> reference."""

    def __init__(self, device: str = "cpu", precision: str = "32", resolved: dict[str, str] | None = None) -> None:
        self.device, self.precision, self.resolved = device, precision, resolved or {}

    def digest(self, *parts: Any) -> str:
        """A fingerprint, another on each device and for each precision."""
        usual = (self.device, self.precision) == ("cpu", "32")
        return digest([*parts] if usual else [*parts, self.device, self.precision])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """run("a", seed=0): a run folder of 60 patients, four explainers, two metrics and one failed cell.

    More words: device, precision, resolved (explainer -> reference).
    """

    def build(
        name: str,
        seed: int = 0,
        suite: dict[str, Any] = SUITE,
        explainers: dict[str, float] = EXPLAINERS,
        shift: float = 0.0,
        machine: str = "here",
        dataset: str | None = None,
        **more: Any,
    ) -> Path:
        computed = _Computed(**more)
        folder = tmp_path / name
        drawn = resamples(PATIENTS, 400, seed)
        patients = np.random.default_rng(1).normal(size=60)  # the same patients whatever the seed
        rows, series = [], {}
        for metric in METRICS:
            for explainer, mean in explainers.items():
                draw = np.random.default_rng([seed, *explainer.encode(), *metric.encode()])
                values = mean + shift + 0.1 * patients + 0.05 * draw.normal(size=60) + 0.002 * draw.normal()
                replicates = np.array([values[where].mean() for where in drawn])
                rows.append(_row(seed, metric, explainer, "original", values, replicates, computed))
                series[rows[-1].fingerprint] = replicates
        rows = _ranked(rows, series)
        nothing: dict[str, Any] = {
            "rank": 0,
            "rank_high": 0,
            "rank_set": (),
            "value": float("nan"),
            "ci_low": float("nan"),
        }
        nothing |= {"ci_high": float("nan"), "n": 0, "groups": 0, "status": "failed", "reason": "it broke"}
        nothing |= {"explainer": "broken", "resolved": "broken", "fingerprint": digest([seed, "broken"])}
        rows.append(replace(rows[0], **nothing))
        if dataset:
            rows = [replace(row, dataset_fingerprint=dataset) for row in rows]
        header = RunHeader(
            created="2026-01-02T03:04:05+00:00",
            command=["xbench", "run", "--suite", "quick", "--seed", str(seed), "--out", f"/home/ada/{name}"],
            config={"seed": seed, "explainer": sorted(explainers), "out": f"/home/ada/{name}", "cache": None},
            environment={"processor": machine, "device": computed.device},
            models=[
                {
                    "name": "net",
                    "dataset": "phantom",
                    "fingerprint": computed.digest("net", seed),
                    "metrics": {"auc": [0.9, 0.8, 0.95], "mcc": [None, None, None]},
                }
            ],
            explainers=[{"name": name, "control": name == "random"} for name in explainers],
            cards={digest(card(metric, "original"))[:16]: card(metric, "original") for metric in METRICS},
            datasets=[
                {
                    "name": "phantom",
                    "fingerprint": dataset or digest("phantom"),
                    "class_counts": {"test": {"no": 30, "yes": 30}},
                }
            ],
            suite=suite,
        )
        write_scores(rows, folder / "scores.csv")
        write_header(header, folder / "run.json")
        kept = {name: Replicates(values, sampling(PATIENTS, PATIENTS, seed)) for name, values in series.items()}
        write_replicates(kept, folder / REPLICATES)
        return folder

    return build


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Where the leaderboard of a test is."""
    return tmp_path / "board"


@pytest.fixture
def handed_in(run: Callable[..., Path], board: Path) -> Path:
    """The file of a submission in order."""
    return add_run(run("a"), board, "Ada")


@pytest.fixture
def resealed() -> Callable[..., Path]:
    """Write changed records under the name and with the digest that fit them, as a forger would."""

    def write(folder: Path, records: list[dict[str, Any]]) -> Path:
        header, *rows = records
        header = header | {"rows": len(rows), "digest": content_digest(header["run"], rows)}
        suite, seed = header["run"]["suite"], rows[0]["seed"] if rows else 0
        path = folder / f"{suite['name']}-v{suite['version']}-s{seed}-{header['digest'][:12]}.jsonl"
        path.write_text("".join(f"{line(record)}\n" for record in [header, *rows]))
        return path

    return write


@pytest.fixture
def records() -> Callable[[Path], list[dict[str, Any]]]:
    """The records of a file."""
    return lambda path: [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture
def findings() -> Callable[..., list[str]]:
    """What `check` finds in a file, as text."""

    def found(path: Path, known: dict[tuple[str, str], str] | None = None, others: Sequence[Any] = ()) -> list[str]:
        return [str(finding) for finding in check_files([path], known or {}, others).findings]

    return found


# --- submissions without a run, for pages ----------------------------------------------------------------------------

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
MADE_UP = {"vinet": 0.8, "gradient": 0.5, "gradient:smooth=10": 0.5, "occlusion": 0.3, EVIL: 0.2, "random": 0.0}
_KINDS = {str: "", int: 0, float: 0.0, bool: False}
_HINTS = get_type_hints(ScoreRow)
_REQUIRED: dict[str, Any] = {
    field.name: _KINDS.get(_HINTS[field.name], ())
    for field in dataclasses.fields(ScoreRow)
    if field.default is dataclasses.MISSING
}


def _submission(
    seed: int = 0,
    explainers: dict[str, float] = MADE_UP,
    models: tuple[str, ...] = ("net",),
    metrics: tuple[str, ...] = ("fidelity", "spread"),
    **more: Any,
) -> Submission:
    """A submission made by hand; `more`: signs, version, submitter, note, dataset, changes (explainer -> fields)."""
    rng, entries, cards = np.random.default_rng(seed), [], {}
    for model in models:
        for metric in metrics:
            for sign in more.get("signs", ("original",)):
                card = {"metric": metric, "sign": sign, "options": {"step": 0.1, "words": more.get("note", "")}}
                cards[digest(card)[:16]] = card
                shared = rng.normal(size=256)
                for explainer, mean in explainers.items():
                    replicates = mean + 0.01 * seed + 0.03 * shared + 0.002 * rng.normal(size=256)
                    low, high = np.quantile(replicates, [0.025, 0.975])
                    own: dict[str, Any] = {
                        "dataset": more.get("dataset", "phantom"),
                        "split": "test",
                        "n": 60,
                        "groups": 50,
                    }
                    own |= {"model": model, "explainer": explainer, "subject": "shared", "target": "predicted"}
                    own |= {"control": explainer == "random", "sign": sign, "metric": metric, "seed": seed}
                    own |= {"value": float(replicates.mean()), "ci_low": float(low), "ci_high": float(high)}
                    own |= {"higher_is_better": metric != "spread", "card": digest(card)[:16]}
                    own |= {"fingerprint": digest([seed, model, metric, explainer, sign]), "seconds_maps": 1.5}
                    own |= {"model_fingerprint": digest([model, seed]), "dataset_fingerprint": digest("phantom")}
                    own |= {"device": "cpu", "precision": "32", "resolved": explainer}
                    own |= more.get("changes", {}).get(explainer, {})
                    entries.append(Entry(ScoreRow(**_REQUIRED | own), thinned(replicates), digest(["resamples", seed])))
    version = more.get("version", 1)
    run = RunHeader(
        created="2026-01-02T03:04:05+00:00",
        command=["xbench", "run", "--suite", "quick", "--seed", str(seed), "--title", "two words"],
        environment={"processor": "a processor", "device": "cpu"},
        cards=cards,
        datasets=[{"name": more.get("dataset", "phantom"), "synthetic": True}],
        suite={"name": "quick", "version": version, "fingerprint": digest(["quick", version])},
    )
    who = digest([seed, version, more.get("submitter")])
    when = f"2026-02-0{seed + 1}T00:00:00+00:00"
    return Submission(who, more.get("submitter", "Ada"), when, more.get("note", ""), run, tuple(entries))


@pytest.fixture(scope="session")
def made_up() -> SimpleNamespace:
    """made_up.submission(seed=0, ...), of `made_up.explainers`, one of which is called `made_up.evil`."""
    return SimpleNamespace(submission=_submission, explainers=MADE_UP, evil=EVIL)
