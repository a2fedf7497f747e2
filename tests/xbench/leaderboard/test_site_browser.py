"""The leaderboard's pages in a real browser, from file://: search, filter, sort, compare, keyboard, width."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from xbench.leaderboard import ranked_groups
from xbench.leaderboard.records import Submission
from xbench.leaderboard.site import write_site

if TYPE_CHECKING:
    from tests.xbench.conftest import Browser


NAMES = "#ranking-body tbody th .pick"


@pytest.fixture(scope="module")
def members(made_up: SimpleNamespace) -> list[Submission]:
    """Two seeds of one suite, on two classifiers."""
    changes = {"occlusion": {"warning": "its training failed"}, "gradient:smooth=10": {"same_as": "gradient"}}
    both = {"models": ("net", "other"), "signs": ("original", "absolute"), "note": made_up.evil}
    return [
        made_up.submission(seed, submitter=name, changes=changes, **both) for seed, name in enumerate(("Ada", "Bea"))
    ]


@pytest.fixture(scope="module")
def made(members: list[Submission], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of their suite."""
    folder = tmp_path_factory.mktemp("site") / "out"
    write_site(members, folder)
    return folder / "quick-v1.html"


@pytest.fixture
def page(browser: Browser, made: Path) -> Browser:
    """The page, opened anew."""
    return browser.open(made)


def near_the_comparison(page: Browser) -> None:
    page("document.querySelector('#compare').scrollIntoView({behavior: 'instant'})")
    page.until("document.querySelector('#compare-body table') !== null")


def overview(page: Browser) -> list[str]:
    return page.text("#overview-body tbody th > span")


def test_it_is_quiet_asks_nothing_of_the_network_and_paints_at_once(page: Browser, made_up: SimpleNamespace) -> None:
    near_the_comparison(page)
    assert page.first_paint() < 1000
    assert page.complaints() == []
    addresses = page.requests()
    assert len(addresses) > 8
    assert all(re.match("file:|data:|about:", one) for one in addresses), addresses
    assert made_up.evil in page.text(NAMES)
    assert page("window.pwned") is None
    assert page("document.querySelectorAll('main script, main img').length") == 0


def test_all_metrics_side_by_side_sort_by_any(page: Browser) -> None:
    assert page.text("#overview-body thead th span:first-child") == ["explainer", "fidelity ▲", "spread ▼"]
    assert overview(page)[0] == "vinet"
    assert page.text("#overview-body tbody tr:first-child strong") == [page.text("#overview-body strong")[0]]
    page.click("#overview-body thead th:nth-child(3) button")  # lower is better there: ascending
    assert page("document.querySelector('#overview-body thead th:nth-child(3)').ariaSort") == "ascending"
    assert overview(page)[0].startswith("random")
    assert "sort=" in page("location.hash")
    assert any("warning" in name for name in overview(page))


def test_the_keyboard_sorts_and_opens_a_row(page: Browser, made_up: SimpleNamespace) -> None:
    from selenium.webdriver.common.keys import Keys

    head = page.find("#ranking-body thead th:nth-child(2) button")
    head.send_keys(Keys.ENTER)
    assert page.text(NAMES) == sorted(made_up.explainers, key=lambda name: (name != made_up.evil, name))
    assert page("getComputedStyle(arguments[0]).outlineStyle", head) == "solid"
    page.find('[aria-label="reproduce vinet"]').send_keys(Keys.ENTER)
    assert page("document.querySelector('dialog').open && document.querySelector('dialog').contains(arguments[0])",
                page.driver.switch_to.active_element)  # fmt: skip
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until("!document.querySelector('dialog').open")
    assert page("document.activeElement.getAttribute('aria-label')") == "reproduce vinet"


def test_filters_and_what_is_remembered(page: Browser, browser: Browser, made: Path, made_up: SimpleNamespace) -> None:
    page.choose("#family", "gradient")
    assert page.text(NAMES) == ["gradient", "gradient:smooth=10"]
    page.choose("#family", "")
    page.find("#query").send_keys("O")
    assert set(page.text(NAMES)) == {"gradient:smooth=10", "occlusion", "random", made_up.evil}
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


def test_two_explainers_and_their_paired_difference(page: Browser, members: list[Submission]) -> None:
    page.choose("#first", "gradient")
    page.choose("#second", "occlusion")
    near_the_comparison(page)
    wanted = {}
    for group in ranked_groups(members):
        if (group.setting.model, group.setting.sign) == ("net", "original"):
            (found,) = (each for each in group.differences if {each.first, each.second} == {"gradient", "occlusion"})
            turn = 1 if found.first == "gradient" else -1
            wanted[group.setting.metric] = (turn * found.value, *sorted((turn * found.low, turn * found.high)))
    assert len(wanted) == 2
    for row, (metric, (value, low, high)) in enumerate(sorted(wanted.items()), 1):
        cells = page.text(f"#compare-body tbody tr:nth-child({row}) > *")
        assert cells[0].startswith(metric)
        assert cells[2] == f"{value:.3f}".replace("-", "−")
        assert cells[4] == f"[{low:.3f}, {high:.3f}]".replace("-", "−")
        assert cells[1] == ("A is better" if metric == "fidelity" else "B is better")
        assert cells[8] == "yes"
    assert page.text("#compare-body .said") == ["Of 2 metrics A is better in 1, B in 1; they can’t be told apart in 0."]
    value = page.text("#compare-body tbody td:nth-child(3)")[0]  # type: ignore[assignment]
    page.click("#swap")
    page.until(f"document.querySelector('#compare-body tbody td:nth-child(3)').textContent === '−{value}'")
    page.choose("#second", "gradient:smooth=10")  # a twin of gradient is judged as gradient
    page.until("document.querySelector('#compare-body .caption').textContent.includes('smooth')")
    assert page.text("#compare-body tbody td:nth-child(3)")[0] == f"−{value}"
    page.choose("#first", "gradient")
    page.until("document.querySelector('#compare-body tbody td:nth-child(2)').textContent === 'the same maps'")


def test_a_row_has_an_address_and_a_command_to_copy(
    page: Browser, browser: Browser, made: Path, members: list[Submission]
) -> None:
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


def test_a_fragment_that_makes_no_sense_is_no_trouble(browser: Browser, made: Path) -> None:
    page = browser.open(f"{made}#model=%3Cb%3E&sign=x&sort=nothing&by=-&a=nobody&b=&row=nobody&metric=<img>")
    assert page.text(NAMES)[0] == "vinet"
    assert page.complaints() == []
    assert not re.search("nobody|img|model|sign=x", page("location.hash"))


@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_is_as_wide_as_its_window(browser: Browser, made: Path, width: int) -> None:
    for name in ("index.html", "quick-v1.html", "quick-v1.html#row=vinet"):
        page = browser.open(made.parent / name, width=width, height=800)
        if name == "quick-v1.html":
            near_the_comparison(page)
        assert page("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_everything_has_a_name(browser: Browser, made: Path, scheme: str) -> None:
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


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_fifty_explainers_by_twenty_metrics_by_three_models(
    browser: Browser, tmp_path: Path, made_up: SimpleNamespace
) -> None:
    explainers = {f"integrated-gradients:steps={index}": index / 50 for index in range(49)} | {"random": 0.0}
    metrics = tuple(f"metric-{index}" for index in range(20))
    write_site([made_up.submission(0, explainers, ("net", "resnet", "densenet"), metrics)], tmp_path / "out")
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
