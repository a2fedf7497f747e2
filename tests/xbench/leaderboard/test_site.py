"""The leaderboard's pages: what they hold, and how they behave in a real browser, from file://."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest
from click.testing import CliRunner

from xbench.cli import xbench
from xbench.errors import UserError
from xbench.leaderboard import Entry, Submission, add_run, derived, fields, read_board
from xbench.leaderboard.site import write_site
from xbench.leaderboard.thinning import thinned
from xbench.provenance import digest
from xbench.results import RunHeader, ScoreRow

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
EXPLAINERS = {"vinet": 0.8, "gradient": 0.5, "gradient:smooth=10": 0.5, "occlusion": 0.3, EVIL: 0.2, "random": 0.0}
BLANK = {str: "", int: 0, float: 0.0, bool: False}
HINTS = get_type_hints(ScoreRow)
REQUIRED = {
    field.name: BLANK.get(HINTS[field.name], ())
    for field in dataclasses.fields(ScoreRow)
    if field.default is dataclasses.MISSING
}
NAMES = "#ranking-body tbody th .pick"


def submission(seed=0, explainers=EXPLAINERS, models=("net",), metrics=("fidelity", "spread"), **more):
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
                    own = {"dataset": more.get("dataset", "phantom"), "split": "test", "n": 60, "groups": 50}
                    own |= {"model": model, "explainer": explainer, "subject": "shared", "target": "predicted"}
                    own |= {"control": explainer == "random", "sign": sign, "metric": metric, "seed": seed}
                    own |= {"value": float(replicates.mean()), "ci_low": float(low), "ci_high": float(high)}
                    own |= {"higher_is_better": metric != "spread", "card": digest(card)[:16]}
                    own |= {"fingerprint": digest([seed, model, metric, explainer, sign]), "seconds_maps": 1.5}
                    own |= {"model_fingerprint": digest([model, seed]), "dataset_fingerprint": digest("phantom")}
                    own |= more.get("changes", {}).get(explainer, {})
                    entries.append(Entry(ScoreRow(**REQUIRED | own), thinned(replicates), digest(["resamples", seed])))
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


def site(*words):
    """`xbench leaderboard site` in this process; the error it raised, if any, is raised here."""
    done = CliRunner().invoke(xbench, ["leaderboard", "site", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def data_of(path):
    """What a data script hands to the page: its name and the object."""
    found = re.fullmatch(r'xbenchData\(("[^"]+"), (.*)\);\n', path.read_text(), re.S)
    return json.loads(found[1]), json.loads(found[2])


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_pages_say_what_the_tables_say(run, board, tmp_path):
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


def test_every_pair_is_there_with_its_difference(tmp_path):
    twin = {"gradient:smooth=10": {"same_as": "gradient"}, "occlusion": {"value": float("nan")}}
    members = [submission(0, metrics=("fidelity", "spread"), changes=twin)]
    write_site(members, tmp_path / "out")
    _, found = data_of(tmp_path / "out" / "data" / "quick-v1" / "place-0-differences.js")
    for field, data in zip(fields(members), found, strict=True):
        names = [field.standings[at].explainer for at in data["who"]]
        assert set(names) == EXPLAINERS.keys() - twin.keys()
        pairs = [(names[i], names[j]) for i in range(4) for j in range(i + 1, 4)]
        assert [(each.first, each.second) for each in field.differences] == pairs
        for column, wanted in (("value", "value"), ("p", "p_holm")):
            exact = [getattr(each, wanted) for each in field.differences]
            assert data[column] == pytest.approx(exact, rel=1e-5)
        assert data["half"] == pytest.approx([each.high - each.value for each in field.differences], rel=1e-5)
        assert data["paired"] is True


def test_versions_have_pages_of_their_own(tmp_path):
    old = submission(0, {"gradient": 0.5, "old-one": 0.4}, version=9)
    members = [old, submission(1, version=10), submission(2, {"alone": 0.1, "b": 0.2}, version=2)]
    write_site(members, tmp_path / "out")
    assert {path.name for path in tmp_path.glob("out/*.html")} == {f"{name}.html" for name in ("index", *STEMS)}
    texts = {stem: (tmp_path / "out" / f"{stem}.html").read_text() for stem in STEMS}
    assert ["An older version" in texts[stem] for stem in STEMS] == [True, True, False]
    assert 'href="quick-v10.html"' in texts["quick-v9"]
    assert {stem: explainers_of(tmp_path / "out" / "data" / stem) for stem in STEMS} == {
        "quick-v2": {"alone", "b"},
        "quick-v9": {"gradient", "old-one"},
        "quick-v10": set(EXPLAINERS),
    }
    index = (tmp_path / "out" / "index.html").read_text()
    assert '<a href="quick-v10.html">quick</a>' in index
    assert index.index("Older versions") < index.index('href="quick-v9.html"') < index.index('href="quick-v2.html"')


STEMS = ("quick-v2", "quick-v9", "quick-v10")


def explainers_of(folder):
    return {row["e"] for one in data_of(folder / "place-0-rankings.js")[1] for row in one["rows"]}


def test_what_may_not_be_ranked_together_is_told_apart(tmp_path):
    one = submission(0)
    other = submission(1, changes={name: {"subject": "self", "target": "1"} for name in EXPLAINERS})
    write_site([one, other], tmp_path / "out")
    _, rankings = data_of(tmp_path / "out" / "data" / "quick-v1" / "place-0-rankings.js")
    words = sorted((each["metric"], each["apart"]) for each in rankings)
    assert words == [
        ("fidelity", "own model, target 1"),
        ("fidelity", "target predicted"),
        ("spread", "own model, target 1"),
        ("spread", "target predicted"),
    ]


def test_names_are_text_whatever_they_hold(tmp_path):
    evil = submission(0, models=(EVIL,), metrics=(EVIL, "b"), dataset=EVIL, submitter=EVIL, note=EVIL)
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


def test_reports_of_the_leaderboard_are_copied_and_linked(run, board, tmp_path):
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


def test_a_site_is_replaced_and_nothing_else_is(handed_in, board, tmp_path):
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


def test_a_leaderboard_without_a_submission_has_a_page(tmp_path):
    (tmp_path / "board" / "runs").mkdir(parents=True)
    site("--board", tmp_path / "board", "--out", tmp_path / "out")
    assert "There is no submission yet" in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(UserError, match="is not a leaderboard"):
        site("--board", tmp_path, "--out", tmp_path / "other")


def test_the_site_needs_neither_torch_nor_plugins(handed_in, board, tmp_path):
    words = ["leaderboard", "site", "--board", str(board), "--out", str(tmp_path / "out")]
    code = (
        f"import sys; from xbench.cli import xbench; xbench({words!r}, standalone_mode=False)\n"
        "wrong = [name for name in sys.modules if name in ('torch', 'pandas') or name.startswith('xbench_')]\n"
        "assert not wrong, wrong"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def members():
    """Two seeds of one suite, on two classifiers."""
    changes = {"occlusion": {"warning": "its training failed"}, "gradient:smooth=10": {"same_as": "gradient"}}
    both = {"models": ("net", "other"), "signs": ("original", "absolute"), "note": EVIL}
    return [submission(seed, submitter=name, changes=changes, **both) for seed, name in enumerate(("Ada", "Bea"))]


@pytest.fixture(scope="module")
def made(members, tmp_path_factory):
    """The page of their suite."""
    folder = tmp_path_factory.mktemp("site") / "out"
    write_site(members, folder)
    return folder / "quick-v1.html"


@pytest.fixture
def page(browser, made):
    """The page, opened anew."""
    return browser.open(made)


def near_the_comparison(page):
    page("document.querySelector('#compare').scrollIntoView({behavior: 'instant'})")
    page.until("document.querySelector('#compare-body table') !== null")


def overview(page):
    return page.text("#overview-body tbody th > span")


def test_it_is_quiet_asks_nothing_of_the_network_and_paints_at_once(page):
    near_the_comparison(page)
    assert page.first_paint() < 1000
    assert page.complaints() == []
    addresses = page.requests()
    assert len(addresses) > 8
    assert all(re.match("file:|data:|about:", one) for one in addresses), addresses
    assert EVIL in page.text(NAMES)
    assert page("window.pwned") is None
    assert page("document.querySelectorAll('main script, main img').length") == 0


def test_all_metrics_side_by_side_sort_by_any(page):
    assert page.text("#overview-body thead th span:first-child") == ["explainer", "fidelity ▲", "spread ▼"]
    assert overview(page)[0] == "vinet"
    assert page.text("#overview-body tbody tr:first-child strong") == [page.text("#overview-body strong")[0]]
    page.click("#overview-body thead th:nth-child(3) button")  # lower is better there: ascending
    assert page("document.querySelector('#overview-body thead th:nth-child(3)').ariaSort") == "ascending"
    assert overview(page)[0].startswith("random")
    assert "sort=" in page("location.hash")
    assert any("warning" in name for name in overview(page))


def test_the_keyboard_sorts_and_opens_a_row(page):
    from selenium.webdriver.common.keys import Keys

    head = page.find("#ranking-body thead th:nth-child(2) button")
    head.send_keys(Keys.ENTER)
    assert page.text(NAMES) == sorted(EXPLAINERS, key=lambda name: (name != EVIL, name))
    assert page("getComputedStyle(arguments[0]).outlineStyle", head) == "solid"
    page.find('[aria-label="reproduce vinet"]').send_keys(Keys.ENTER)
    assert page("document.querySelector('dialog').open && document.querySelector('dialog').contains(arguments[0])",
                page.driver.switch_to.active_element)  # fmt: skip
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until("!document.querySelector('dialog').open")
    assert page("document.activeElement.getAttribute('aria-label')") == "reproduce vinet"


def test_filters_and_what_is_remembered(page, browser, made):
    page.choose("#family", "gradient")
    assert page.text(NAMES) == ["gradient", "gradient:smooth=10"]
    page.choose("#family", "")
    page.find("#query").send_keys("O")
    assert set(page.text(NAMES)) == {"gradient:smooth=10", "occlusion", "random", EVIL}
    page.click("#controls")
    assert "random" not in page.text(NAMES)
    assert page.text("#count") == ["3 of 6 rows"]
    page.choose("#model", "other")
    page.until("document.querySelector('[aria-busy=true]') === null")
    page.choose("#metric", "spread")
    page.click("#sign label:nth-child(2)")
    page.click("#ranking-body thead th:nth-child(3) button")
    page.choose("#first", "occlusion")
    near_the_comparison(page)
    parts = ("#ranking-body table", "#overview-body table", "#compare-body")
    shown, fragment = [page.text(part) for part in parts], page("location.hash")
    for word in ("model=other", "metric=spread", "sign=absolute", "controls=no", "q=O", "a=occlusion", "by="):
        assert word in fragment
    again = browser.open(f"{made}{fragment}")
    near_the_comparison(again)
    assert [again.text(part) for part in parts] == shown
    assert again("location.hash") == fragment
    assert "absolute maps" in again.text("#ranking-body .caption")[0]


def test_two_explainers_and_their_paired_difference(page, members):
    page.choose("#first", "gradient")
    page.choose("#second", "occlusion")
    near_the_comparison(page)
    wanted = {}
    for field in fields(members):
        if (field.setting.model, field.setting.sign) == ("net", "original"):
            (found,) = (each for each in field.differences if {each.first, each.second} == {"gradient", "occlusion"})
            turn = 1 if found.first == "gradient" else -1
            wanted[field.setting.metric] = (turn * found.value, *sorted((turn * found.low, turn * found.high)))
    assert len(wanted) == 2
    for row, (metric, (value, low, high)) in enumerate(sorted(wanted.items()), 1):
        cells = page.text(f"#compare-body tbody tr:nth-child({row}) > *")
        assert cells[0].startswith(metric)
        assert cells[2] == f"{value:.3f}".replace("-", "−")
        assert cells[4] == f"[{low:.3f}, {high:.3f}]".replace("-", "−")
        assert cells[1] == ("A is better" if metric == "fidelity" else "B is better")
        assert cells[8] == "yes"
    assert page.text("#compare-body .said") == ["Of 2 metrics A is better in 1, B in 1; they can’t be told apart in 0."]
    value = page.text("#compare-body tbody td:nth-child(3)")[0]
    page.click("#swap")
    page.until(f"document.querySelector('#compare-body tbody td:nth-child(3)').textContent === '−{value}'")
    page.choose("#second", "gradient:smooth=10")  # a twin of gradient is judged as gradient
    page.until("document.querySelector('#compare-body .caption').textContent.includes('smooth')")
    assert page.text("#compare-body tbody td:nth-child(3)")[0] == f"−{value}"
    page.choose("#first", "gradient")
    page.until("document.querySelector('#compare-body tbody td:nth-child(2)').textContent === 'the same maps'")


def test_a_row_has_an_address_and_a_command_to_copy(page, browser, made, members):
    address = page("document.querySelector('[aria-label=\"reproduce occlusion\"]').getAttribute('href')")
    again = browser.open(f"{made}{address}")
    assert again.text("dialog h2")[0].startswith("occlusion")
    commands = [f"xbench run --suite quick --seed {seed} --title 'two words'" for seed in (0, 1)]
    assert again.text("dialog pre") == [" && ".join(commands)]
    assert "its training failed" in again.text("dialog .warning")[0]
    assert all(any(each.name in text for text in again.text("dialog li")) for each in members)
    again.click("#copy")
    again.until("document.querySelector('dialog [role=status]').textContent !== ''")
    again.click("dialog .close")
    again.until("!location.hash.includes('row=')")  # a dialog tells of its closing in its own time


def test_a_fragment_that_makes_no_sense_is_no_trouble(browser, made):
    page = browser.open(f"{made}#model=%3Cb%3E&sign=x&sort=nothing&by=-&a=nobody&b=&row=nobody&metric=<img>")
    assert page.text(NAMES)[0] == "vinet"
    assert page.complaints() == []
    assert not re.search("nobody|img|model|sign=x", page("location.hash"))


@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_is_as_wide_as_its_window(browser, made, width):
    for name in ("index.html", "quick-v1.html", "quick-v1.html#row=vinet"):
        page = browser.open(made.parent / name, width=width, height=800)
        if name == "quick-v1.html":
            near_the_comparison(page)
        assert page("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_everything_has_a_name(browser, made, scheme):
    page = browser.open(f"{made}#row=vinet", prefers_color_scheme=scheme)
    colours = page(
        "['--paper', '--ink', '--soft', '--accent', '--warm', '--good']"
        ".map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    )
    paper, *inks = [luminance(colour) for colour in colours]
    for ink in inks:
        light, dark = max(paper, ink), min(paper, ink)
        assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG 2.1, level AA
    assert page("document.querySelectorAll('main, nav, header, footer, [role=search]').length") == 5
    nameless = (
        "[...document.querySelectorAll('select, input, button, dialog, table')].filter((one) => !one.labels?.length "
        "&& !one.textContent.trim() && !one.getAttribute('aria-labelledby')).length"
    )
    assert page(nameless) == 0
    assert page("[...document.querySelectorAll('h1, h2')].every((one) => one.textContent.trim())")


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_fifty_explainers_by_twenty_metrics_by_three_models(browser, tmp_path):
    explainers = {f"integrated-gradients:steps={index}": index / 50 for index in range(49)} | {"random": 0.0}
    metrics = tuple(f"metric-{index}" for index in range(20))
    write_site([submission(0, explainers, ("net", "resnet", "densenet"), metrics)], tmp_path / "out")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()}
    page = browser.open(tmp_path / "out" / "quick-v1.html")
    assert page.first_paint() < 1000
    assert page("performance.now()") < 5000  # all drawn
    assert len(overview(page)) == 50
    asked = page.requests()
    assert not any("differences" in one for one in asked)  # not before they are looked at
    near_the_comparison(page)
    assert len(page.text("#compare-body tbody tr")) == 20
    asked += page.requests()
    assert any(one.endswith("place-0-differences.js") for one in asked)
    assert sum(sizes[one.rpartition("/")[2]] for one in asked if one.startswith("file:")) < 15e6
    page.find("#query").send_keys("steps=4")
    assert len(overview(page)) == 10
    assert page.complaints() == []
