"""Malformed and dishonest submissions: each is refused, by file, line and field, or made harmless."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbench.errors import UserError
from xbench.leaderboard import add_run, build, check_files, read_submission
from xbench.leaderboard.records import content_digest
from xbench.leaderboard.thinning import as_record, thinned
from xbench.provenance import digest
from xbench.results.rows import SCHEMA


def test_an_honest_submission_is_in_order(handed_in: Path, findings: Callable[..., list[str]]) -> None:
    assert findings(handed_in) == []
    known = {("quick", "1"): digest("quick 1")}
    checked = check_files([handed_in], known)
    assert not checked.notes
    assert "suite quick version 1 is not installed here" in check_files([handed_in], {}).notes[0]


# --- meaning: sealed again by a forger -------------------------------------------------------------------------------


def _header(**values: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda records: records[0].update(values)


def _run(**values: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda records: records[0]["run"].update(values)


def _row(index: int = 1, **values: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda records: records[index].update(values)


def _removed(field: str) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda records: records[1].pop(field)


def _renamed(old: str, new: str) -> Callable[[list[dict[str, Any]]], Any]:
    """An explainer under another name everywhere."""

    def change(records: list[dict[str, Any]]) -> None:
        for row in records[1:]:
            for field in ("explainer", "resolved"):
                row[field] = new if row[field] == old else row[field]
            row["rank_set"] = [new if name == old else name for name in row["rank_set"]]

    return change


def _swapped(field: str) -> Callable[[list[dict[str, Any]]], Any]:
    def change(records: list[dict[str, Any]]) -> None:
        records[1][field], records[2][field] = records[2][field], records[1][field]

    return change


def _raised(records: list[dict[str, Any]]) -> None:
    """A better value with an interval around it, the ranks left as they were."""
    for name in ("value", "ci_low", "ci_high"):
        records[1][name] += 1.0


def _raised_with_replicates(records: list[dict[str, Any]]) -> None:
    _raised(records)
    for name in ("low", "high"):
        records[1]["replicates"][name] += 1.0


def _narrowed(records: list[dict[str, Any]]) -> None:
    row = records[1]
    for name in ("ci_low", "ci_high"):
        row[name] = row["value"] + (row[name] - row["value"]) / 100


def _widened(records: list[dict[str, Any]]) -> None:
    row = records[1]
    for name in ("ci_low", "ci_high"):
        row[name] = row["value"] + (row[name] - row["value"]) * 100


def _first_alone(records: list[dict[str, Any]]) -> None:
    """The best explainer claims to be told apart from all others."""
    for row in records[1:5]:
        row["rank_set"] = [name for name in row["rank_set"] if name != "gradient"]
    records[1]["rank_set"], records[1]["rank"], records[1]["rank_high"] = [], 1, 1


def _one_sided(records: list[dict[str, Any]]) -> None:
    """gradient and occlusion can't be told apart; one of them denies it."""
    assert records[3]["rank_set"] == ["gradient"]
    records[1]["rank_set"] = []


def _twice(records: list[dict[str, Any]]) -> None:
    records.append(copy.deepcopy(records[1]))


def _other_card(records: list[dict[str, Any]]) -> None:
    cards = records[0]["run"]["cards"]
    next(iter(cards.values()))["options"]["step"] = 0.2


def _figures(records: list[dict[str, Any]]) -> None:
    records[0]["run"]["models"][0]["metrics"]["auc"] = [1.9, 0.8, 0.95]


def _model_print(records: list[dict[str, Any]]) -> None:
    records[0]["run"]["models"][0]["fingerprint"] = "a" * 64


def _undefined(records: list[dict[str, Any]]) -> None:
    records[1]["replicates"] = as_record(thinned(np.full(256, np.nan)))


_LIES = {
    "newer schema": (_header(schema=SCHEMA + 1), f"line 1, schema: schema {SCHEMA + 1} is newer"),
    "newer row": (_row(schema=SCHEMA + 1), f"line 2, schema: schema {SCHEMA + 1} is newer"),
    "newer run": (_run(schema=SCHEMA + 1), f"line 1, run.schema: schema {SCHEMA + 1} is newer"),
    "schema of the past": (_row(schema=0), "line 2, schema: schema 0 is unknown"),
    "schema of the far past": (_row(schema=-(10**9)), "line 2, schema: schema -1000000000 is unknown"),
    "schema as text": (_row(schema="3"), "line 2, schema: '3' is not a whole number"),
    "missing field": (_removed("device"), "line 2, device: is missing"),
    "unknown field": (_row(rang=1), "line 2: 'rang' is unknown"),
    "missing replicates": (_removed("replicates"), "line 2, replicates: is missing"),
    "no replicates": (_row(replicates=None), "line 2, replicates: are missing"),
    "false replicates": (_row(replicates={"low": 0, "high": 1, "values": "!!!!"}), "line 2, replicates: values is not"),
    "undefined replicates": (_undefined, "line 2, replicates: none is defined"),
    "number as text": (_row(value="0.4"), "line 2, value: '0.4' is not a number"),
    "truth as number": (_row(value=True), "line 2, value: True is not a number"),
    "number as truth": (_row(control=1), "line 2, control: 1 is not true or false"),
    "half a sample": (_row(n=59.5), "line 2, n: 59.5 is not a whole number"),
    "names as text": (_row(rank_set="gradient"), "line 2, rank_set: 'gradient' is not a list of names"),
    "unknown status": (_row(status="great"), "line 2, status: 'great' is not one of ok, failed, skipped"),
    "models as text": (_run(models=["net"]), "line 1, run.models[0]: 'net' is not an object"),
    "edited value": (_row(value=0.99), "line 2, value: 0.99 lies outside its interval"),
    "edited value and interval": (_raised, "line 2, replicates: 0% of them lie in the interval"),
    "all edited but the ranks": (_raised_with_replicates, "line 2, rank: "),
    "narrowed interval": (_narrowed, "line 2, replicates: "),
    "widened interval": (_widened, "line 2, replicates: the interval"),
    "interval upside down": (_row(ci_low=0.9, ci_high=0.1), "line 2, ci_low: 0.9 is above"),
    "value without interval": (_row(ci_low=None, ci_high=None), "line 2, ci_low: value "),
    "half an interval": (_row(ci_low=None), "line 2, ci_low: an interval has two ends"),
    "claims to be alone": (_first_alone, "line 2, rank: 1 to 1; values and rank sets give"),
    "rank set of one side": (_one_sided, "line 4, rank_set: gradient does not name occlusion in turn"),
    "rank set of strangers": (_row(rank_set=["somebody"]), "line 2, rank_set: 'somebody' is not ranked here"),
    "rank set of itself": (_row(rank_set=["gradient"]), "line 2, rank_set: it names the explainer itself"),
    "ranks upside down": (_row(rank=4, rank_high=1), "line 2, rank_high: worst rank 1 is better"),
    "rank without a value": (
        _row(value=None, ci_low=None, ci_high=None, rank_set=[], rank=4, rank_high=4),
        "line 2, rank: 4 to 4; values and rank sets give 0 to 0",
    ),
    "twin of a stranger": (_row(same_as="somebody"), "line 2, same_as: 'somebody' is not another explainer"),
    "twin of another rank": (_row(same_as="vinet"), "line 2, rank: "),
    "failed cell with a value": (_row(9, value=0.9), "line 10, value: a failed cell has no value"),
    "failed cell without a reason": (_row(9, reason=""), "line 10, reason: a failed cell says why"),
    "more samples than there are": (_row(n=61), "line 2, n: 61 samples of the 60 in split test of phantom"),
    "more patients than samples": (_row(groups=61), "line 2, groups: 61 patients of 60 samples"),
    "no samples": (_row(n=0, groups=0), "line 2, n: a value of 0 samples"),
    "negative seconds": (_row(seconds_maps=-1.0), "line 2, seconds_maps: -1.0 is no duration"),
    "negative seed": (_row(seed=-1), "line 2, seed: -1 is out of range"),
    "another seed": (_row(2, seed=7), "line 3, seed: 7 is not the run's 0"),
    "another device in one run": (_row(2, device="cuda"), "line 3, device: 'cuda' is not the run's 'cpu'"),
    "another precision in one run": (_row(2, precision="tf32"), "line 3, precision: 'tf32' is not the run's '32'"),
    "unknown precision": (_row(precision="8"), "line 2, precision: '8' is not one of 32, tf32, bf16, 16"),
    "resolved to another explainer": (_row(resolved="vinet"), "line 2, resolved: 'vinet' is not 'gradient' with its"),
    "resolved to two things": (_row(resolved="gradient:score=margin"), "line 6, resolved: is not that of line 2"),
    "name of another device's row": (
        _renamed("gradient", "gradient (cuda, 32)"),
        "line 2, resolved: 'gradient (cuda, 32)' ends as names do that tell devices apart",
    ),
    "script as what was resolved": (_row(resolved="gradient:<b>"), "line 2, resolved: 'gradient:<b>' holds markup"),
    "duplicate row": (_twice, "line 11, explainer: 'gradient' has this cell on line 2 already"),
    "fingerprint of no form": (_row(fingerprint="xyz"), "line 2, fingerprint: 'xyz' is not 64 hexadecimal digits"),
    "swapped fingerprints": (_swapped("maps_fingerprint"), "maps_fingerprint: is that of line"),
    "one fingerprint, two values": (
        lambda records: records[2].update(fingerprint=records[1]["fingerprint"]),
        "line 3, fingerprint: is that of line 2, where resolved is 'gradient', not 'vinet'",
    ),
    "dataset of another fingerprint": (_row(dataset_fingerprint="b" * 64), "line 2, dataset_fingerprint: phantom has"),
    "unknown dataset": (_row(dataset="ct"), "line 2, dataset: 'ct' is not among the datasets of the header"),
    "unknown model": (_row(model="other"), "line 2, model: 'other' on phantom is not among the models"),
    "model of another fingerprint": (_model_print, "line 2, model_fingerprint: net has 'aaa"),
    "unknown card": (_row(card="0" * 16), "line 2, card: 0000000000000000 is not among the cards"),
    "edited card": (_other_card, "in the header has the hash"),
    "card of another sign": (_row(sign="absolute"), "line 2, card: its sign is 'original', the row's 'absolute'"),
    "unknown sign": (_row(sign="squared"), "line 2, sign: 'squared' is not one of original, absolute"),
    "impossible AUC": (_figures, "line 1, run.models[0].metrics.auc: [1.9, 0.8, 0.95] is not value, low, high"),
    "script as a name": (
        _renamed("gradient", "x<script>alert(1)</script>"),
        "line 2, explainer: 'x<script>alert(1)</script>' holds markup",
    ),
    "formula as a name": (_renamed("gradient", '=HYPERLINK("http://a.b")'), "line 2, explainer: '=HYPERLINK"),
    "path as a name": (_renamed("gradient", "x/../../etc"), "line 2, explainer: 'x/../../etc' holds a part of a path"),
    "absolute path in a name": (_row(model="net:weights=/home/ada/w.safetensors"), "holds a part of a path"),
    "separator in a name": (_renamed("gradient", "a|b"), "line 2, explainer: 'a|b' holds markup"),
    "terminal escape in a name": (_renamed("gradient", "a\x1b[2J"), "line 2, explainer: 'a\\x1b[2J' holds a character"),
    "name that runs backwards": (_renamed("gradient", "a\u202eb"), "line 2, explainer: 'a\\u202eb' holds a character"),
    "half a character": (_renamed("gradient", "a\ud800"), "line 2, explainer: 'a\\ud800' holds a character"),
    "endless name": (_renamed("gradient", "x" * 301), "line 2, explainer: 301 characters; 1 to 300 are allowed"),
    "terminal escape in a warning": (_row(warning="\x1b]0;x\x07"), "line 2, warning: '\\x1b]0;x\\x07' holds a control"),
    "escape in the header": (_run(warnings=["\x1b[2J"]), "line 1, run.warnings[0]: '\\x1b[2J' holds a control"),
    "script as a submitter": (_header(submitter="<b>Ada</b>"), "line 1, submitter: '<b>Ada</b>' holds markup"),
    "nobody": (_header(submitter=""), "line 1, submitter: 0 characters"),
    "endless note": (_header(note="x" * 501), "line 1, note: 501 characters; 500 are allowed"),
    "no date": (_header(submitted="yesterday"), "line 1, submitted: 'yesterday' is not a date"),
    "date without a zone": (
        _header(submitted="2026-01-02T03:04:05"),
        "line 1, submitted: '2026-01-02T03:04:05' has no",
    ),
    "date to come": (_header(submitted="2999-01-01T00:00:00+00:00"), "has not come yet"),
    "another program": (_run(command=["rm", "-rf"]), "line 1, run.command: ['rm'] is not ['xbench']"),
    "suite in another folder": (
        lambda records: records[0]["run"]["suite"].update(name="../quick"),
        "line 1, run.suite.name: '../quick' is not a suite's name",
    ),
    "version with a path": (
        lambda records: records[0]["run"]["suite"].update(version="1/../2"),
        "line 1, run.suite.version: '1/../2' is not a version",
    ),
    "suite of another fingerprint": (
        lambda records: records[0]["run"]["suite"].update(fingerprint="c" * 64),
        "is not that of the installed suite quick-v1",
    ),
    "a few samples of a suite": (
        lambda records: records[0]["run"]["suite"].update(changed={"limit": 20}),
        "line 1, run.suite.changed.limit: only 20 samples were scored",
    ),
    "suite of no fingerprint": (
        lambda records: records[0]["run"]["suite"].update(fingerprint="none"),
        "line 1, run.suite.fingerprint: 'none' is not 64 hexadecimal digits",
    ),
    "configuration of another custom suite": (
        lambda records: records[0]["run"].update(
            suite={"name": "custom-0123456789ab", "version": "1", "fingerprint": "d" * 64}
        ),
        "a run of this configuration without a suite is custom-",
    ),
}


@pytest.mark.parametrize("name", _LIES)
def test_lies_are_refused_by_line_and_field(
    handed_in: Path,
    records: Callable[[Path], list[dict[str, Any]]],
    resealed: Callable[..., Path],
    tmp_path: Path,
    name: str,
    findings: Callable[..., list[str]],
) -> None:
    change, expected = _LIES[name]
    forged = records(handed_in)
    change(forged)
    (tmp_path / "forged").mkdir()
    try:
        path = resealed(tmp_path / "forged", forged)
    except (OSError, UnicodeEncodeError):  # a name that can't be a file's, or text that can't be UTF-8
        path = tmp_path / "forged" / "quick-v1-s0-000000000000.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in forged))
        header = _resealed_header(path)
        path.write_text(json.dumps(header) + "\n" + "".join(json.dumps(record) + "\n" for record in forged[1:]))
    found = findings(path, {("quick", "1"): digest("quick 1")})
    assert any(expected in text for text in found), found
    assert all(text.startswith(f"{path}, line ") or "is called" in text for text in found)
    assert all(text.isprintable() for text in found)


def _resealed_header(path: Path) -> dict[str, Any]:
    header, *rows = [json.loads(text) for text in path.read_text().splitlines()]
    return header | {"digest": content_digest(header["run"], rows)}


def test_a_file_of_another_name_is_refused(handed_in: Path, findings: Callable[..., list[str]]) -> None:
    other = handed_in.with_name("best-v1-s0-000000000000.jsonl")
    handed_in.rename(other)
    assert findings(other) == [f"{other}: a submission of this content is called {handed_in.name}"]


def test_formulas_in_free_text_are_defused_in_the_tables(
    handed_in: Path, records: Callable[[Path], list[dict[str, Any]]], resealed: Callable[..., Path]
) -> None:
    forged = records(handed_in)
    forged[1]["warning"] = '=cmd|"/c calc"!A1'
    handed_in.unlink()
    resealed(handed_in.parent, forged)
    build(handed_in.parent.parent)
    with (handed_in.parent.parent / "quick-v1.csv").open(newline="") as file:
        warnings = {row["warning"] for row in csv.DictReader(file)}
    assert warnings == {"", """'=cmd|"/c calc"!A1"""}


def test_words_of_a_command_are_quoted_for_the_shell(
    handed_in: Path, records: Callable[[Path], list[dict[str, Any]]], resealed: Callable[..., Path]
) -> None:
    forged = records(handed_in)
    forged[0]["run"]["command"] = ["xbench", "run", "; rm -rf ~", "$(id)"]
    handed_in.unlink()
    resealed(handed_in.parent, forged)
    build(handed_in.parent.parent)
    assert "xbench run '; rm -rf ~' '$(id)'" in (handed_in.parent.parent / "quick-v1.csv").read_text()


# --- against each other ----------------------------------------------------------------------------------------------


def test_two_submissions_of_one_fingerprint_must_agree(
    run: Callable[..., Path], board: Path, handed_in: Path, findings: Callable[..., list[str]]
) -> None:
    with pytest.raises(
        UserError, match=r"line 2, value: value .* which quick-v1-s0-.*, line 2 has of this fingerprint"
    ):
        add_run(run("b", shift=0.05), board, "Bob")
    small = run("c", shift=1e-4)
    with pytest.raises(UserError, match="of this fingerprint"):
        add_run(small, board, "Bob")
    elsewhere = add_run(run("d", shift=1e-4, machine="another"), board, "Bob")  # training drifts with rounding
    assert findings(elsewhere, others=[handed_in]) == []
    assert findings(handed_in, others=[elsewhere]) == []


def test_one_version_of_a_suite_has_one_fingerprint(run: Callable[..., Path], board: Path, handed_in: Path) -> None:
    other = {"name": "quick", "version": 1, "fingerprint": digest("edited")}
    with pytest.raises(UserError, match="suite quick-v1 has another fingerprint in quick-v1-s0"):
        add_run(run("b", seed=1, suite=other), board, "Bob")
    with pytest.raises(UserError, match="is not that of the installed suite"):
        add_run(run("c", seed=1, suite=other), board / "else", "Bob", known={("quick", "1"): digest("quick 1")})


@pytest.mark.parametrize(
    ("schema", "later"), [(1, ("warning", "same_as", "resolved")), (2, ("warning", "resolved")), (3, ("resolved",))]
)
def test_a_submission_of_an_older_schema_is_upgraded(
    handed_in: Path,
    records: Callable[[Path], list[dict[str, Any]]],
    resealed: Callable[..., Path],
    findings: Callable[..., list[str]],
    schema: int,
    later: tuple[str, ...],
) -> None:
    older = records(handed_in)
    older[0] |= {"schema": schema}
    for row in older[1:]:
        row["schema"] = schema
        for name in later:
            del row[name]
    handed_in.unlink()
    path = resealed(handed_in.parent, older)
    assert findings(path) == []
    for entry in read_submission(path).entries:
        read = entry.row
        assert (read.schema, read.same_as, read.warning, read.resolved) == (SCHEMA, "", "", read.explainer)
    build(handed_in.parent.parent)


@pytest.mark.parametrize(("explainer", "words"), [(7, "explainer: 7 is not text"), (None, "explainer: is missing")])
def test_an_older_row_without_an_explainer_is_refused(
    handed_in: Path,
    records: Callable[[Path], list[dict[str, Any]]],
    resealed: Callable[..., Path],
    findings: Callable[..., list[str]],
    explainer: int | None,
    words: str,
) -> None:
    older = records(handed_in)
    older[1] |= {"schema": 3, "explainer": explainer}
    del older[1]["resolved"]
    if explainer is None:
        del older[1]["explainer"]
    assert any(f"line 2, {words}" in text for text in findings(resealed(handed_in.parent, older)))


def test_tf32_is_a_precision(run: Callable[..., Path], board: Path, findings: Callable[..., list[str]]) -> None:
    assert findings(add_run(run("a", device="cuda:1", precision="tf32"), board, "Ada")) == []
