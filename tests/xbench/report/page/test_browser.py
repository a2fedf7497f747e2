"""The page as a reader meets it: a real browser, from file://."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from xbench.report.overlays import blended

if TYPE_CHECKING:
    from tests.xbench.conftest import Browser
    from tests.xbench.report.conftest import RunFolder


EVIL = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
EXPLAINERS = {"vinet": 0.6, "smoothgrad": 0.6, "gradient": 0.3, "integrated-gradients": 0.2, EVIL: 0.1, "random": 0.0}
NAMES = "#ranking-body tbody th .pick"


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, run_folder: type[RunFolder], report: Callable[..., str]
) -> tuple[RunFolder, Path]:
    """A run folder with everything, and its report's page."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    models, metrics = ("net", "other"), ("fidelity", "roc_auc", "dice")
    run = run_folder(folder, EXPLAINERS, models, metrics, signs=("original", "absolute"))
    run.scores(smoothgrad={"warning": "its training failed"}).header().curves().gallery().counterfactuals()
    report(folder, "--no-figures")
    return run, folder / "report" / "index.html"


@pytest.fixture
def page(browser: Browser, made: tuple[RunFolder, Path]) -> Browser:
    """The page, opened anew."""
    return browser.open(made[1])


def see(page: Browser, selector: str) -> None:
    page("document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant'})", selector)


def test_it_is_quiet_asks_nothing_of_the_network_and_paints_at_once(page: Browser) -> None:
    for part in ("#gallery", "#counterfactuals", "#reproduce"):
        see(page, part)
    page.until("document.querySelector('.gallery .tile') && document.querySelector('.strips .tile')")
    assert page.complaints() == []
    addresses = page.requests()
    assert len(addresses) > 5
    assert all(re.match("file:|data:|about:", one) for one in addresses), addresses
    assert page("window.pwned") is None
    assert page.first_paint() < 1000


def test_names_are_shown_as_they_are(page: Browser) -> None:
    assert EVIL in page.text(NAMES)
    assert page("document.querySelectorAll('main script, main img[src=x]').length") == 0


def test_a_click_on_a_head_sorts_and_says_so(page: Browser) -> None:
    best_first = page.text(NAMES)
    assert best_first[-1] == "random"
    page.click("#ranking-body thead th:nth-child(3) button")
    assert page.text(NAMES) == best_first  # descending: higher is better
    assert page("document.querySelector('#ranking-body thead th:nth-child(3)').ariaSort") == "descending"
    page.click("#ranking-body thead th:nth-child(3) button")
    assert page.text(NAMES) == best_first[::-1]
    assert page("document.querySelector('#ranking-body thead th:nth-child(3)').ariaSort") == "ascending"
    assert len(page.text("#ranking-body th[aria-sort]:not([aria-sort=none])")) == 1


def test_the_keyboard_sorts_too(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    head = page.find("#ranking-body thead th:nth-child(2) button")
    head.send_keys(Keys.ENTER)
    names = page.text(NAMES)
    assert names == sorted(names, key=str.lower)
    assert page("getComputedStyle(arguments[0]).outlineStyle", head) == "solid"  # one sees where one is


def test_filters_and_what_is_remembered(page: Browser, browser: Browser, made: tuple[RunFolder, Path]) -> None:
    page.find("#query").send_keys("GRAD")
    assert set(page.text(NAMES)) == {"smoothgrad", "gradient", "integrated-gradients"}
    page.find("#query").send_keys(" smooth")
    assert page.text(NAMES) == ["smoothgrad"]
    assert page.text("#curves-body .panel figcaption") == ["smoothgrad"]
    assert page.text("[role=status]") == ["fidelity, original maps: 1 of 6 explainers"]
    page.find("#query").clear()
    page.find("#query").send_keys("r")
    page.click("#controls")
    assert "random" not in page.text(NAMES)
    page.choose("#metric", "dice")
    page.click("#sign label:nth-child(2)")
    page.click("#ranking-body thead th:nth-child(2) button")
    names, fragment = page.text(NAMES), page("location.hash")
    assert "metric=dice" in fragment
    assert "sign=absolute" in fragment
    again = browser.open(f"{made[1]}{fragment}")
    assert again.text(NAMES) == names
    assert "dice" in again.text("#ranking-body .caption")[0]
    assert not again("document.querySelector('#controls').checked")
    assert again("location.hash") == fragment


def test_another_model_is_loaded_when_it_is_asked_for(page: Browser) -> None:
    assert page("document.querySelectorAll('head script[src=\"data/place-1.js\"]').length") == 0
    before = page.text("#ranking-body td:nth-child(3)")
    page.choose("#model", "other")
    page.until("document.querySelectorAll('head script[src=\"data/place-1.js\"]').length === 1")
    page.until("document.querySelector('#ranking-body').getAttribute('aria-busy') === 'false'")
    assert page.text("#ranking-body td:nth-child(3)") != before
    see(page, "#counterfactuals")
    assert "left none" in page.text("#counterfactuals .note")[0]


def test_all_metrics_side_by_side(page: Browser) -> None:
    page.choose("#metric", "all metrics")
    assert page.text("#ranking-body thead th span:first-child") == ["explainer", "fidelity", "roc_auc", "dice"]
    bold = page.text("#ranking-body tbody td:nth-child(2) strong")
    assert len(bold) == 2  # vinet, and smoothgrad that can't be told apart from it


def test_what_an_explainer_cannot_be_told_from(page: Browser) -> None:
    pick = "#ranking-body tbody tr:first-child .pick"
    first, second = page.text(NAMES)[:2]
    page.click(pick)
    assert page.text("#ranking-body .said") == [f"{first} can’t be told apart from: {second}"]
    assert len(page.text("#ranking-body tr.related")) == 2
    assert page(f"document.querySelector('{pick}').getAttribute('aria-pressed')") == "true"
    assert any("its training failed" in text for text in page.text("#ranking-body .warning"))


def open_gallery(page: Browser) -> None:
    see(page, "#gallery")
    page.until("document.querySelectorAll('.gallery .tile').length > 5")


def pixels(page: Browser, selector: str) -> np.ndarray:
    uri = page("document.querySelector(arguments[0]).toDataURL()", selector)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(float)


def test_the_gallery_turns_by_arrows_hardest_first(page: Browser, made: tuple[RunFolder, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    open_gallery(page)
    arrays = made[0].gallery_arrays("net", 6, (24, 20))
    sure = arrays.probabilities[np.arange(6), arrays.labels]
    hardest = [arrays.ids[index] for index in np.argsort(sure)]
    box = page.find(".gallery")
    seen = []
    for _ in hardest:
        seen.append(page.text(".case .soft")[0].split(" · ")[1])
        box.send_keys(Keys.ARROW_RIGHT)
    assert seen == hardest
    box.send_keys(Keys.HOME)
    assert hardest[0] in page.text(".case .soft")[0]
    box.send_keys(Keys.ARROW_RIGHT)
    assert f"case={hardest[1]}" in page("location.hash")
    page.choose(".gallery select", "surest")
    assert hardest[-1] in page.text(".case .soft")[0]
    page.click(".film button:nth-child(3)")
    assert hardest[-3] in page.text(".case .soft")[0]


def test_maps_look_as_in_the_drawn_gallery_at_any_opacity(page: Browser, made: tuple[RunFolder, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    open_gallery(page)
    arrays = made[0].gallery_arrays("net", 6, (24, 20))
    at = arrays.ids.index(page.text(".case .soft")[0].split(" · ")[1])
    grey = np.repeat(arrays.images[at, 0][..., None] / 255, 3, axis=-1)
    np.testing.assert_array_equal(pixels(page, ".tiles .tile:nth-child(1) canvas"), np.rint(255 * grey))
    for index in range(2):  # a signed and an unsigned one
        values = arrays.maps[index, at].astype(float)
        wanted = 255 * blended(grey, values if arrays.signed[index] else np.abs(values), bool(arrays.signed[index]))
        shown = pixels(page, f".tiles .tile:nth-child({index + 3}) canvas")
        assert np.abs(shown - wanted).max() < 4
    page.find(".gallery input[type=range]").send_keys(Keys.HOME)
    page.until("document.querySelector('.amount').textContent === '0 %'")
    page.until("location.hash.includes('opacity=0')")
    np.testing.assert_allclose(pixels(page, ".tiles .tile:nth-child(3) canvas"), np.rint(255 * grey), atol=1)


def test_the_slider_obeys_the_keyboard_and_absolute_values_lose_their_sign(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    open_gallery(page)
    before = pixels(page, ".tiles .tile:nth-child(3) canvas")
    page.find(".gallery input[type=range]").send_keys(Keys.ARROW_LEFT * 3)
    assert page.text(".amount") == ["97 %"]
    assert "case 1 of 6" in page.text(".case .soft")[0]  # the arrows moved the slider, not the case
    page.click(".gallery label.check input")
    page.until("location.hash.includes('absolute=yes')")
    page.until("document.querySelector('.tiles .tile:nth-child(3) canvas').ariaLabel.startsWith('map of')")
    assert np.abs(pixels(page, ".tiles .tile:nth-child(3) canvas") - before).max() > 20


def test_the_way_to_the_counterfactual_with_its_probability(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    see(page, "#counterfactuals")
    page.until("document.querySelector('.strips dd') !== null")
    assert page.text(".strips dd") == ["0.50", "0.50"]
    slider = page.find(".strips input[type=range]")
    slider.send_keys(Keys.ARROW_RIGHT)
    page.until("document.querySelector('.strips dd').textContent === '0.30'")
    slider.send_keys(Keys.END)
    page.until("document.querySelector('.strips dd').textContent === '0.10'")
    assert "malignant 0.90" in slider.get_attribute("aria-valuetext")
    np.testing.assert_allclose(pixels(page, ".strips .tile:nth-child(2) canvas"), 204, atol=1)


@pytest.mark.parametrize("width", [390, 768])
def test_nothing_sticks_out_on_a_phone(browser: Browser, made: tuple[RunFolder, Path], width: int) -> None:
    page = browser.open(made[1], width=width, height=844)
    for part in ("#curves", "#gallery", "#counterfactuals", "#agreement", "#models", "#reproduce"):
        see(page, part)
    page.until("document.querySelector('.gallery .tile') && document.querySelector('.strips .tile')")
    page("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page("document.documentElement.scrollWidth") <= width
    assert page("document.body.scrollWidth") <= width
    page.choose("#metric", "all metrics")
    assert page("document.documentElement.scrollWidth") <= width


def brightness(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(browser: Browser, made: tuple[RunFolder, Path], scheme: str) -> None:
    page = browser.open(made[1], prefers_color_scheme=scheme)
    paper = brightness(page("getComputedStyle(document.body).backgroundColor"))
    assert (paper > 0.8) == (scheme == "light")
    parts = ("h1", ".lead", ".note", "#ranking-body tbody td", "tr.control th", ".sections a", ".warning", ".badge")
    for selector in parts:
        ink = brightness(page("getComputedStyle(document.querySelector(arguments[0])).color", selector))
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, (selector, contrast)  # WCAG 2.2, AA


def test_landmarks_headings_and_names_for_those_who_listen(page: Browser) -> None:
    open_gallery(page)
    see(page, "#counterfactuals")
    page.until("document.querySelector('.strips .tile')")
    for landmark in ("header", "nav", "main", "footer"):
        assert page("document.querySelectorAll(arguments[0]).length", f"body > {landmark}") == 1
    assert page("document.querySelectorAll('h1').length") == 1
    levels = page("[...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))")
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    nameless = page(
        "[...document.querySelectorAll('main svg, main canvas, main img')].filter((one) => "
        "!one.closest('[aria-hidden=true]') && !one.getAttribute('aria-label') && !one.getAttribute('alt')).length"
    )
    assert nameless == 0
    unlabelled = page(
        "[...document.querySelectorAll('input, select, button')].filter((one) => "
        "!one.closest('label') && !one.ariaLabel && !one.textContent.trim()).length"
    )
    assert unlabelled == 0


def test_a_link_to_a_section_keeps_what_was_chosen(page: Browser) -> None:
    page.choose("#metric", "dice")
    page.click('.sections a[href="#cost"]')
    page.until("document.activeElement.id === 'cost'")
    assert "metric=dice" in page("location.hash")


@pytest.mark.slow
def test_fifty_explainers_by_twenty_metrics_by_three_models(
    browser: Browser,
    run_folder: type[RunFolder],
    report: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "xbench.statistics.agreement._PERMUTATIONS", 99
    )  # the numbers are not at stake, their amount is
    explainers = {f"integrated-gradients:steps={index}": index / 50 for index in range(49)} | {"random": 0.0}
    metrics = tuple(f"metric-{index}" for index in range(20))
    run = run_folder(tmp_path / "run", explainers, ("net", "resnet", "densenet"), metrics, ("original", "absolute"))
    run.scores(replicates=False).header().curves().gallery(samples=24, size=(64, 64))
    report(run.path, "--no-figures")
    folder = run.path / "report"
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 15e6
    page = browser.open(folder / "index.html")
    assert page.first_paint() < 1000
    loaded = [one.rpartition("/")[2] for one in page.requests() if one.startswith("file:")]
    assert sum(sizes.get(name, 0) for name in loaded) < 15e6
    assert len(page.text(NAMES)) == 50
    assert not any(name.startswith("gallery-") for name in loaded)
    open_gallery(page)
    assert len(page.text(".gallery .tile")) == 52
    assert page.complaints() == []
