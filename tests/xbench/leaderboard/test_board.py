"""Handing in, pooling over seeds and submitters, deriving the tables."""

import csv
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xbench.cli.leaderboard_command import installed_suites
from xbench.errors import UserError
from xbench.leaderboard import (
    add_run,
    build,
    check_files,
    ranked_groups,
    read_board,
    read_submission,
    stale,
    submission_files,
)
from xbench.leaderboard.checks import is_measured
from xbench.leaderboard.pooling import pooled
from xbench.provenance import digest
from xbench.results.rows import read_header, read_scores, write_header, write_scores


def table(board: Path, name: str = "quick-v1.csv") -> list[dict[str, str]]:
    with (board / name).open(newline="") as file:
        return list(csv.DictReader(file))


def files(board: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in board.glob("*.csv")}


def test_what_is_handed_in_is_the_run_without_the_folders_of_its_machine(run: Callable[..., Path], board: Path) -> None:
    folder = run("a")
    path = add_run(folder, board, "Ada Lovelace", "first")
    assert "/home/ada" not in path.read_text()
    submission = read_submission(path)
    assert (submission.submitter, submission.note, submission.seed) == ("Ada Lovelace", "first", 0)
    assert submission.run.command == ["xbench", "run", "--suite", "quick", "--seed", "0"]
    rows = [entry.row for entry in submission.entries]
    for mine, theirs in zip(rows, read_scores(folder / "scores.csv"), strict=True):
        assert repr(mine) == repr(theirs)
    assert all(line == json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
               for line in path.read_text().splitlines())  # fmt: skip


def test_the_same_run_is_handed_in_once(run: Callable[..., Path], board: Path) -> None:
    path = add_run(run("a"), board, "Ada")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"was handed in before: .*quick-v1-s0"):
        add_run(run("a"), board, "Bob")
    assert path.read_bytes() == before
    assert [each.name for each in (board / "runs").iterdir()] == [path.name]


def test_a_run_that_is_not_in_order_leaves_nothing(run: Callable[..., Path], board: Path) -> None:
    folder = run("a")
    rows = read_scores(folder / "scores.csv")
    write_scores([replace(rows[0], value=5.0), *rows[1:]], folder / "scores.csv")
    with pytest.raises(UserError, match=r"quick-v1-s0-\w+.jsonl, line 2, value: 5.0 lies outside"):
        add_run(folder, board, "Ada")
    assert not list((board / "runs").iterdir())
    (folder / "replicates.npz").unlink()
    with pytest.raises(UserError, match="no bootstrap replicates of fidelity of gradient"):
        add_run(folder, board, "Ada")
    with pytest.raises(UserError, match="is not a run folder"):
        add_run(board, board, "Ada")
    with pytest.raises(UserError, match="is not a leaderboard"):
        build(folder)


def _add(folder: Path, board: Path) -> None:
    add_run(folder, board, f"process {folder.name}")


def test_two_processes_add_at_once_and_lose_nothing(run: Callable[..., Path], board: Path) -> None:
    folders = [run(f"r{seed}", seed=seed) for seed in range(6)]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(folder, board)) for folder in folders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert sorted(each.seed for each in read_board(board)) == list(range(6))
    assert not [path for path in (board / "runs").iterdir() if path.name.startswith(".")]


def test_the_tables_are_derived_byte_for_byte(run: Callable[..., Path], board: Path) -> None:
    for seed in range(3):
        add_run(run(f"r{seed}", seed=seed), board, "Ada")
    assert [path.name for path in build(board)] == ["index.csv", "quick-v1.csv"]
    first = files(board)
    for path in board.glob("*.csv"):
        path.unlink()
    build(board)
    assert files(board) == first
    assert stale(board, read_board(board)) == []
    (board / "quick-v1.csv").write_bytes(first["quick-v1.csv"].replace(b"Ada", b"Bob"))
    assert stale(board, read_board(board)) == ["quick-v1.csv"]
    for path in (board / "runs").iterdir():
        path.unlink()
    add_run(run("other", suite={"name": "slow", "version": 2, "fingerprint": digest("slow")}), board, "Ada")
    assert {path.name for path in build(board)} == set(files(board)) == {"index.csv", "slow-v2.csv"}


def test_several_seeds_are_one_row(run: Callable[..., Path], board: Path) -> None:
    folders = [run(f"r{seed}", seed=seed) for seed in (2, 0, 1)]
    for folder, name in zip(folders, ("Ada", "Ada", "Bob"), strict=True):
        add_run(folder, board, name)
    build(board)
    rows = {(row["metric"], row["explainer"]): row for row in table(board)}
    assert len(rows) == 8  # four explainers, two metrics; the cell that failed is not there
    row = rows["fidelity", "vinet"]
    values = [
        each.value
        for folder in folders
        for each in read_scores(folder / "scores.csv")
        if (each.metric, each.explainer) == ("fidelity", "vinet")
    ]
    assert float(row["value"]) == pytest.approx(np.mean(values))
    assert float(row["seed_sd"]) == pytest.approx(np.std(values, ddof=1))
    assert (row["seeds"], row["submitters"], row["rank"]) == ("0|1|2", "Ada|Bob", "1")
    assert len(row["model_fingerprints"].split("|")) == len(row["submissions"].split("|")) == 3
    assert row["reproduce"].count("xbench run --suite quick --seed") == 3
    assert rows["fidelity", "random"]["control"] == "true"
    assert rows["spread", "random"]["rank"] == "1"  # lower is better there
    assert rows["fidelity", "gradient"]["rank_set"] == "occlusion"
    (index,) = table(board, "index.csv")
    assert (index["seeds"], index["submissions"], index["rows"], index["failed"]) == ("0|1|2", "3", "8", "3")


def test_ranks_and_differences_of_one_seed_are_those_of_the_run(run: Callable[..., Path], board: Path) -> None:
    folder = run("a")
    add_run(folder, board, "Ada")
    rows = {(row.metric, row.explainer): row for row in read_scores(folder / "scores.csv")}
    for group in ranked_groups(read_board(board)):
        for each in group.standings:
            row = rows[group.setting.metric, each.explainer]
            assert (each.rank, each.rank_high, set(each.rank_set)) == (row.rank, row.rank_high, set(row.rank_set))
            assert each.pooled == pooled(each.results)
        assert len(group.differences) == 6
        for difference in group.differences:
            assert difference.paired
            assert difference.low < difference.value < difference.high
            told = difference.p_holm < 0.05
            standing = next(one for one in group.standings if one.explainer == difference.first)
            assert told == (difference.second not in standing.rank_set)


def test_a_strangers_explainer_joins_the_ranking_of_the_suite(run: Callable[..., Path], board: Path) -> None:
    add_run(run("a"), board, "Ada")
    add_run(run("b", explainers={"gradient": 0.40, "mine": 0.9}), board, "Bob")
    found = {group.setting.metric: group for group in ranked_groups(read_board(board))}
    standings = {each.explainer: each for each in found["fidelity"].standings}
    assert next(iter(standings)) == "mine"
    assert (standings["mine"].rank, standings["vinet"].rank) == (1, 2)
    # The same patients were resampled alike, so rows of two submissions are paired.
    assert all(each.paired for each in found["fidelity"].differences)


VINET = {"cpu": {"vinet": "vinet:preset=tiny"}, "cuda": {"vinet": "vinet:preset=paper"}}


def names_and_seeds(board: Path) -> dict[str, list[int]]:
    (fidelity,) = (group for group in ranked_groups(read_board(board)) if group.setting.metric == "fidelity")
    return {each.explainer: [row.seed for row in each.rows] for each in fidelity.standings}


def test_what_a_preset_stood_for_is_never_averaged(run: Callable[..., Path], board: Path) -> None:
    for seed, device in enumerate(VINET):
        add_run(run(device, seed=seed, device=device, resolved=VINET[device]), board, "Ada")
    found = names_and_seeds(board)
    assert (found["vinet:preset=tiny"], found["vinet:preset=paper"]) == ([0], [1])
    assert "vinet" not in found
    assert (found["gradient (cpu, 32)"], found["gradient (cuda, 32)"]) == ([0], [1])
    add_run(run("more", seed=2, device="cuda:1", resolved=VINET["cuda"]), board, "Ada")  # the same type of device
    assert names_and_seeds(board)["vinet:preset=paper"] == names_and_seeds(board)["gradient (cuda, 32)"] == [1, 2]
    build(board)
    rows = {(row["metric"], row["explainer"]): row for row in table(board)}
    assert rows["fidelity", "gradient (cuda, 32)"]["devices"] == "cuda|cuda:1"
    assert rows["fidelity", "vinet:preset=tiny"]["devices"] == "cpu"
    (index,) = table(board, "index.csv")
    assert index["explainers"] == "5"  # of two devices, one explainer all the same


def test_precisions_are_never_averaged(run: Callable[..., Path], board: Path) -> None:
    for seed, precision in enumerate(("32", "tf32")):
        add_run(run(precision, seed=seed, device="cuda", precision=precision), board, "Ada")
    assert names_and_seeds(board) == {
        f"{name} (cuda, {precision})": [seed]
        for seed, precision in enumerate(("32", "tf32"))
        for name in ("vinet", "gradient", "occlusion", "random")
    }


def test_rows_of_another_device_are_ranked_with_those_of_this_one(run: Callable[..., Path], board: Path) -> None:
    add_run(run("baselines"), board, "Ada")
    add_run(run("theirs", device="cuda", explainers={"mine": 0.9, "gradient": 0.4}), board, "Bob")
    group = next(group for group in ranked_groups(read_board(board)) if group.setting.metric == "fidelity")
    names = [each.explainer for each in group.standings]
    assert names[:2] == ["mine", "vinet"]
    assert {"gradient (cpu, 32)", "gradient (cuda, 32)"} < set(names)
    assert (group.standings[0].rank, group.standings[1].rank) == (1, 2)
    cpu = next(each for each in group.standings if each.explainer == "gradient (cpu, 32)")
    assert {"gradient (cuda, 32)", "occlusion"} <= set(cpu.rank_set) < set(names)
    assert all({each.first, each.second} < set(names) for each in group.differences)
    paired = {frozenset((each.first, each.second)): each.paired for each in group.differences}
    assert not paired[frozenset(("gradient (cpu, 32)", "gradient (cuda, 32)"))]  # classifiers of their own
    assert paired[frozenset(("gradient (cpu, 32)", "vinet"))]
    assert len(paired) == len(names) * (len(names) - 1) // 2


def test_a_name_says_the_device_in_all_fields_of_a_suite_or_in_none(run: Callable[..., Path], board: Path) -> None:
    add_run(run("baselines"), board, "Ada")
    folder = run("theirs", seed=1, device="cuda", explainers={"gradient": 0.4, "mine": 0.9})
    rows = [row for row in read_scores(folder / "scores.csv") if row.metric == "spread"]
    write_scores(rows, folder / "scores.csv")
    add_run(folder, board, "Bob")
    for group in ranked_groups(read_board(board)):
        names = {each.explainer for each in group.standings}
        assert "gradient (cpu, 32)" in names
        assert "gradient" not in names
        assert {"vinet", "occlusion", "random"} < names


def test_a_twin_is_that_of_its_own_device(made_up: SimpleNamespace) -> None:
    """A run names the original as its user did; the leaderboard as it was resolved, on the twin's own device."""
    means = {"vinet": 0.8, "copy": 0.8, "gradient": 0.5}
    handed_in = []
    for seed, device in enumerate(("cpu", "cuda")):
        own = {"device": device}
        changes = dict.fromkeys(means, own) | {"copy": own | {"same_as": "vinet"}}
        changes["vinet"] = own | {"resolved": VINET[device]["vinet"]}
        handed_in.append(made_up.submission(seed, explainers=means, metrics=("fidelity",), changes=changes))
    (group,) = ranked_groups(handed_in)
    found = {each.explainer: each for each in group.standings}
    for device, preset in (("cpu", "tiny"), ("cuda", "paper")):
        copy, original = found[f"copy ({device}, 32)"], found[f"vinet:preset={preset}"]
        assert copy.same_as == original.explainer
        assert (copy.ranks, copy.rank_set) == (original.ranks, original.rank_set)
    assert not {"copy (cpu, 32)", "copy (cuda, 32)"} & {name for each in group.standings for name in each.rank_set}


def test_one_explainer_under_two_names_of_a_run_counts_once(made_up: SimpleNamespace) -> None:
    tiny = {"resolved": "vinet:preset=tiny"}
    means = {"vinet": 0.8, "vinet:preset=tiny": 0.8, "gradient": 0.5}
    changes = {"vinet": tiny, "vinet:preset=tiny": tiny | {"same_as": "vinet"}}
    (group,) = ranked_groups([made_up.submission(explainers=means, metrics=("fidelity",), changes=changes)])
    assert [(each.explainer, each.same_as) for each in group.standings] == [("vinet:preset=tiny", ""), ("gradient", "")]
    assert group.standings[0].rows[0].explainer == "vinet"


def test_of_one_seed_handed_in_twice_the_later_stands(
    run: Callable[..., Path],
    board: Path,
    records: Callable[[Path], list[dict[str, Any]]],
    resealed: Callable[..., Path],
) -> None:
    first = add_run(run("a"), board, "Ada")
    changed = records(first)
    changed[0] |= {"submitter": "Bob", "submitted": "2026-01-01T00:00:00+00:00"}
    for row in changed[1:]:
        row["xbench_version"] = "0.0.9"
    resealed(first.parent, changed)
    build(board)
    assert {row["submitters"] for row in table(board)} == {"Ada"}
    assert {row["xbench_versions"] for row in table(board)} != {"0.0.9"}


def test_other_versions_suites_and_datasets_are_never_mixed(run: Callable[..., Path], board: Path) -> None:
    add_run(run("a"), board, "Ada")
    add_run(run("b", seed=1, suite={"name": "quick", "version": 2, "fingerprint": digest("quick 2")}), board, "Ada")
    add_run(run("c", seed=2, dataset="e" * 64), board, "Ada")
    add_run(run("d", seed=3, suite={}), board, "Ada")
    add_run(run("e", seed=4, suite={}), board, "Ada")
    found = ranked_groups(read_board(board))
    assert len({group.setting for group in found}) == len(found) == 8
    assert {each.results[0].row.seed for group in found for each in group.standings} == {0, 1, 2, 3}
    custom = next(group for group in found if group.setting.suite.name.startswith("custom-"))
    assert [row.seed for row in custom.standings[0].rows] == [3, 4]
    names = {path.name for path in build(board)}
    assert {"index.csv", "quick-v1.csv", "quick-v2.csv"} < names
    assert len(names) == 4


def test_a_row_that_measures_the_machine_is_held_against_nothing(run: Callable[..., Path], board: Path) -> None:
    folder = run("a")
    header = read_header(folder / "run.json")
    measured = {"metric": "fidelity", "sign": "original", "split": "test", "measured": True}
    assert is_measured(measured)
    old = next(name for name, card in header.cards.items() if card["metric"] == "fidelity")
    cards = {name: card for name, card in header.cards.items() if name != old} | {digest(measured)[:16]: measured}
    for name, shift in (("a", 0.0), ("b", 0.1)):
        folder = run(name, shift=shift)
        rows = read_scores(folder / "scores.csv")
        rows = [replace(row, card=digest(measured)[:16]) if row.card == old else row for row in rows]
        rows = [row for row in rows if row.metric == "fidelity"]
        write_scores(rows, folder / "scores.csv")
        write_header(replace(header, cards=cards), folder / "run.json")
        add_run(folder, board, "Ada")
    assert not check_files(sorted((board / "runs").iterdir()), {}).findings


def test_the_leaderboard_needs_neither_torch_nor_plugins_nor_pandas(run: Callable[..., Path], board: Path) -> None:
    add_run(run("a"), board, "Ada")
    code = (
        f"import sys; from pathlib import Path; from xbench.leaderboard import build; build(Path({str(board)!r}))\n"
        "wrong = [name for name in sys.modules if name in ('torch', 'pandas') or name.startswith('xbench_')]\n"
        "assert not wrong, wrong"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_projects_own_leaderboard_is_in_order_and_its_tables_are_derived() -> None:
    own = Path(__file__).parents[3] / "leaderboard"
    checked = check_files(submission_files(own), installed_suites())
    assert not checked.findings
    assert stale(own, checked.submissions) == []
