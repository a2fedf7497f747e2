"""The leaderboard's pages: what they hold."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from xbench.cli import xbench
from xbench.errors import UserError
from xbench.leaderboard import add_run, derived, ranked_groups, read_board
from xbench.leaderboard.site import write_site


def site(*words: object) -> str:
    """`xbench leaderboard site` in this process; the error it raised, if any, is raised here."""
    done = CliRunner().invoke(xbench, ["leaderboard", "site", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def data_of(path: Path) -> tuple[Any, Any]:
    """What a data script hands to the page: its name and the object."""
    found = re.fullmatch(r'xbenchData\(("[^"]+"), (.*)\);\n', path.read_text(), re.S)
    return json.loads(found[1]), json.loads(found[2])


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_pages_say_what_the_tables_say(run: Callable[..., Path], board: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("Ada", "Bob")):
        add_run(run(f"r{seed}", seed=seed), board, name)
    out = tmp_path / "public"
    assert site("--board", board, "--out", out) == f"site: {out / 'index.html'}\n"
    for name, text in derived(read_board(board)).items():
        assert (out / name).read_bytes() == text.encode()
    with (out / "quick-v1.csv").open(newline="") as file:
        rows = {(row["metric"], row["explainer"]): row for row in csv.DictReader(file)}
    name, rankings = data_of(out / "data" / "quick-v1" / "place-0-rankings.js")
    _, suite = data_of(out / "data" / "quick-v1" / "suite.js")
    assert (name, suite["places"]) == (
        "place-0-rankings",
        [{"dataset": "phantom", "model": "net", "path": "data/quick-v1/place-0"}],
    )
    shown = {(one["metric"], row["e"]): (one, row) for one in rankings for row in one["rows"]}
    assert shown.keys() == rows.keys()
    for key, (ranking, row) in shown.items():
        wanted = rows[key]
        numbers = [float(wanted[column]) for column in ("value", "ci_low", "ci_high", "seed_sd")]
        assert [row["v"], row["lo"], row["hi"], row["sd"]] == pytest.approx(numbers, rel=1e-5)
        assert row["r"] == [int(wanted["rank"]), int(wanted["rank_high"])]
        tied = wanted["rank_set"].split("|") if wanted["rank_set"] else []
        assert {ranking["rows"][index]["e"] for index in row["s"]} == set(tied)
        assert [row["n"], row["g"]] == [int(wanted["n"]), int(wanted["groups"])]
        assert row["f"] == wanted["fingerprints"].split("|")
        assert row.get("c", False) == (wanted["control"] == "true")
        origin = suite["origins"][row["o"]]
        assert origin["command"] == wanted["reproduce"]
        assert [suite["runs"][at]["submitter"] for at in origin["runs"]] == ["Ada", "Bob"]
    page = (out / "quick-v1.html").read_text()
    assert "3 explainers, 1 control and 2 metrics" in page
    assert '<td class="numeric">9</td><td class="numeric">1</td>' in page  # rows, and how many of them failed
    failed = page.partition('id="failed"')[2].partition("</details>")[0]
    why = '<td class="words">it broke</td>'
    assert (failed.count('<tr><th scope="row">broken</th>'), failed.count(why)) == (2, 2)  # once a seed


def test_a_page_tells_devices_and_presets_apart(run: Callable[..., Path], board: Path, tmp_path: Path) -> None:
    for seed, (device, preset) in enumerate((("cpu", "tiny"), ("cuda", "paper"))):
        add_run(run(device, seed=seed, device=device, resolved={"vinet": f"vinet:preset={preset}"}), board, "Ada")
    out = tmp_path / "public"
    site("--board", board, "--out", out)
    _, rankings = data_of(out / "data" / "quick-v1" / "place-0-rankings.js")
    _, suite = data_of(out / "data" / "quick-v1" / "suite.js")
    assert [each["computed"] for each in suite["runs"]] == ["cpu at precision 32", "cuda at precision 32"]
    common = {f"{name} ({device}, 32)" for name in ("gradient", "occlusion", "random") for device in ("cpu", "cuda")}
    for one in rankings:
        rows = {row["e"]: row for row in one["rows"]}
        assert rows.keys() == common | {"vinet:preset=tiny", "vinet:preset=paper"}
        for name, row in rows.items():
            (origin,) = suite["origins"][row["o"]]["runs"]  # of one seed each: nothing was averaged
            assert suite["runs"][origin]["computed"].startswith("cuda") == ("cuda" in name or "paper" in name)
    assert "4 explainers, 1 control and 2 metrics" in (out / "quick-v1.html").read_text()


def test_every_pair_is_there_with_its_difference(tmp_path: Path, made_up: SimpleNamespace) -> None:
    twin = {"gradient:smooth=10": {"same_as": "gradient"}, "occlusion": {"value": float("nan")}}
    members = [made_up.submission(0, metrics=("fidelity", "spread"), changes=twin)]
    write_site(members, tmp_path / "out")
    _, found = data_of(tmp_path / "out" / "data" / "quick-v1" / "place-0-differences.js")
    for group, data in zip(ranked_groups(members), found, strict=True):
        names = [group.standings[at].explainer for at in data["who"]]
        assert set(names) == made_up.explainers.keys() - twin.keys()
        pairs = [(names[i], names[j]) for i in range(4) for j in range(i + 1, 4)]
        assert [(each.first, each.second) for each in group.differences] == pairs
        for column, wanted in (("value", "value"), ("p", "p_holm")):
            exact = [getattr(each, wanted) for each in group.differences]
            assert data[column] == pytest.approx(exact, rel=1e-5)
        assert data["half"] == pytest.approx([each.high - each.value for each in group.differences], rel=1e-5)
        assert data["paired"] is True
        ranks = {each.explainer: each.ranks for each in group.standings}
        assert [name for name, rank in ranks.items() if not rank] == ["occlusion"]  # no value, no rank


def test_a_page_opens_where_most_explainers_are_ranked(tmp_path: Path, made_up: SimpleNamespace) -> None:
    few = made_up.submission(0, {"alone": 0.1, "random": 0.0}, models=("a-net",))
    members = [few, made_up.submission(1, models=("b-net",)), made_up.submission(2, models=("c-net",))]
    write_site(members, tmp_path / "out")
    _, suite = data_of(tmp_path / "out" / "data" / "quick-v1" / "suite.js")
    assert [place["model"] for place in suite["places"]] == ["b-net", "c-net", "a-net"]


def test_versions_have_pages_of_their_own(tmp_path: Path, made_up: SimpleNamespace) -> None:
    old = made_up.submission(0, {"gradient": 0.5, "old-one": 0.4}, version=9)
    members = [old, made_up.submission(1, version=10), made_up.submission(2, {"alone": 0.1, "b": 0.2}, version=2)]
    write_site(members, tmp_path / "out")
    assert {path.name for path in tmp_path.glob("out/*.html")} == {f"{name}.html" for name in ("index", *STEMS)}
    texts = {stem: (tmp_path / "out" / f"{stem}.html").read_text() for stem in STEMS}
    assert ["An older version" in texts[stem] for stem in STEMS] == [True, True, False]
    assert 'href="quick-v10.html"' in texts["quick-v9"]
    assert {stem: explainers_of(tmp_path / "out" / "data" / stem) for stem in STEMS} == {
        "quick-v2": {"alone", "b"},
        "quick-v9": {"gradient", "old-one"},
        "quick-v10": set(made_up.explainers),
    }
    index = (tmp_path / "out" / "index.html").read_text()
    assert '<a href="quick-v10.html">quick</a>' in index
    assert index.index("Older versions") < index.index('href="quick-v9.html"') < index.index('href="quick-v2.html"')


STEMS = ("quick-v2", "quick-v9", "quick-v10")


def explainers_of(folder: Path) -> set[str]:
    return {row["e"] for one in data_of(folder / "place-0-rankings.js")[1] for row in one["rows"]}


def test_what_may_not_be_ranked_together_is_told_apart(tmp_path: Path, made_up: SimpleNamespace) -> None:
    one = made_up.submission(0)
    other = made_up.submission(1, changes={name: {"subject": "self", "target": "1"} for name in made_up.explainers})
    write_site([one, other], tmp_path / "out")
    _, rankings = data_of(tmp_path / "out" / "data" / "quick-v1" / "place-0-rankings.js")
    words = sorted((each["metric"], each["apart"]) for each in rankings)
    assert words == [
        ("fidelity", "own model, target 1"),
        ("fidelity", "target predicted"),
        ("spread", "own model, target 1"),
        ("spread", "target predicted"),
    ]


def test_names_are_text_whatever_they_hold(tmp_path: Path, made_up: SimpleNamespace) -> None:
    evil = made_up.submission(
        0,
        models=(made_up.evil,),
        metrics=(made_up.evil, "b"),
        dataset=made_up.evil,
        submitter=made_up.evil,
        note=made_up.evil,
    )
    write_site([evil], tmp_path / "out")
    for path in tmp_path.glob("out/*.html"):
        text = path.read_text()
        assert "<script>window" not in text
        assert "<img" not in text
        assert text.count("<script") == (0 if path.stem == "index" else 6)
    assert "&lt;/script&gt;" in (tmp_path / "out" / "quick-v1.html").read_text()
    scripts = list(tmp_path.glob("out/data/quick-v1/*.js"))
    assert len(scripts) == 3
    assert not any("<" in path.read_text() for path in scripts)


def test_reports_of_the_leaderboard_are_copied_and_linked(
    run: Callable[..., Path], board: Path, tmp_path: Path
) -> None:
    path = add_run(run("a"), board, "Ada")
    add_run(run("b", seed=1), board, "Bob")
    report = board / "reports" / path.stem
    (report / "data").mkdir(parents=True)
    (report / "index.html").write_text("a report")
    (report / "data" / "gallery-0.js").write_text("")
    (tmp_path / "secret").write_text("of this machine")
    (report / "data" / "gallery-1.js").symlink_to(tmp_path / "secret")
    (board / "reports" / "stray").mkdir()
    (board / "reports" / "stray" / "index.html").write_text("of no submission")
    site("--board", board, "--out", tmp_path / "out")
    kept = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.glob("out/reports/**/*.*"))
    assert kept == [f"reports/{path.stem}/data/gallery-0.js", f"reports/{path.stem}/index.html"]
    _, suite = data_of(tmp_path / "out" / "data" / "quick-v1" / "suite.js")
    address = f"reports/{path.stem}/index.html"
    assert [(one["report"], one["gallery"]) for one in suite["runs"]] == [(address, f"{address}#gallery"), ("", "")]
    assert f'<a href="{address}">report</a>' in (tmp_path / "out" / "quick-v1.html").read_text()


def test_a_site_is_replaced_and_nothing_else_is(handed_in: Path, board: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    site("--board", board, "--out", out)
    (out / "old.html").write_text("of a suite that is gone")
    site("--board", board, "--out", out)
    assert not (out / "old.html").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a leaderboard's site") as caught:
        site("--board", board, "--out", mine)
    assert "--out" in caught.value.hint
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]
    handed_in.write_text("{}\n")
    with pytest.raises(UserError, match=handed_in.name):
        site("--board", board, "--out", out)
    assert (out / "index.html").is_file()
    assert not list(tmp_path.glob(".*partial"))


def test_a_leaderboard_without_a_submission_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "board" / "runs").mkdir(parents=True)
    site("--board", tmp_path / "board", "--out", tmp_path / "out")
    assert "There is no submission yet" in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(UserError, match="is not a leaderboard"):
        site("--board", tmp_path, "--out", tmp_path / "other")


def test_the_site_needs_neither_torch_nor_plugins(handed_in: Path, board: Path, tmp_path: Path) -> None:
    words = ["leaderboard", "site", "--board", str(board), "--out", str(tmp_path / "out")]
    code = (
        f"import sys; from xbench.cli import xbench; xbench({words!r}, standalone_mode=False)\n"
        "wrong = [name for name in sys.modules if name in ('torch', 'pandas') or name.startswith('xbench_')]\n"
        "assert not wrong, wrong"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
