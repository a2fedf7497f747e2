"""What the tests of every kind of check share, a stranger's plugin for whole runs, and a real browser for pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any, Self

import pytest

from xbench.testing.checks import Check

if TYPE_CHECKING:
    from tests.conftest import Shelf


TINY = ("--dataset", "fake", "--model", "tiny:epochs=3", "--resamples", "200", "--batch-size", "16")

HERE = Path(__file__).parent


@pytest.fixture
def stranger() -> str:
    """Source of the stranger's plugin."""
    return (HERE / "stranger.py").read_text()


@pytest.fixture
def tiny(
    shelf: Shelf, command: Callable[..., subprocess.CompletedProcess[str]], stranger: str
) -> Callable[..., CompletedProcess[str]]:
    """`xbench run` on tiny data and a tiny network, with the stranger's plugin installed.

    Its pictures, a third of its time, are empty files unless `pictures`.
    """
    shelf.install("stranger", stranger)

    def run(*words: str, pictures: bool = False, **more: Any) -> CompletedProcess[str]:
        return command("run", *TINY, *words, XBENCH_TESTS_PICTURES="all" if pictures else "none", **more)

    return run


@pytest.fixture
def failures() -> Callable[..., dict[str, str]]:
    """Name of each failing check -> its message; anything but an AssertionError is a fault of the checks."""

    def run(checks: Iterable[tuple[str, Check]], factory: Callable[[], Any]) -> dict[str, str]:
        failed = {}
        for name, one in checks:
            try:
                one(factory)
            except AssertionError as error:
                failed[name] = str(error)
        return failed

    return run


def _programs() -> tuple[str | None, str | None]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return browser, shutil.which("chromedriver")


class Browser:
    """A headless Chromium that reads pages from file://."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path | str, width: int = 1280, height: int = 900, **media: str) -> Self:
        """Load a page anew, as wide as that; `media`: features such as prefers_color_scheme="dark"."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        path, _, fragment = str(page).partition("#")
        self.driver.get(Path(path).resolve().as_uri() + (f"#{fragment}" if fragment else ""))
        self.until("document.readyState === 'complete' && document.querySelector('[aria-busy=true]') === null")
        return self

    def __call__(self, script: str, *arguments: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def first_paint(self) -> float:
        """Milliseconds to the first contentful paint of the page that is open, the best of three visits.

        A limit of the page, not of the machine: one busy moment proves nothing.
        """
        address = self("location.href")
        found = []
        for _ in range(3):
            self.driver.get(address)
            self.until("performance.getEntriesByName('first-contentful-paint').length")
            found.append(self("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        self.until("document.readyState === 'complete' && document.querySelector('[aria-busy=true]') === null")
        return min(found)

    def until(self, condition: str, seconds: float = 15) -> None:
        """Wait for a condition, written in JavaScript."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: self(condition), condition)

    def click(self, selector: str) -> None:
        """Click what a CSS selector finds first."""
        self("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", self.find(selector))
        self.find(selector).click()

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> list[str]:
        """The texts of all elements of a CSS selector."""
        return self("[...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a <select>, as a hand would."""
        from selenium.webdriver.support.ui import Select

        Select(self.find(selector)).select_by_value(value)

    def requests(self) -> list[str]:
        """The addresses asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What stands in the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; skips where none is installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = _programs()
    if program is None or driver is None:
        pytest.skip("no Chromium with its driver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    flags = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    flags += "disable-component-update disable-sync hide-scrollbars"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver, env=os.environ | {"HOME": str(tmp_path_factory.mktemp("home"))})
    started = webdriver.Chrome(options=options, service=service)
    yield Browser(started)
    started.quit()


@pytest.fixture
def suite_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a suite with two tables and a paper's numbers, some of its text changed: (old, new), ..."""

    def make(*changes: tuple[str, str], table: str | None = None, name: str = "mine.toml") -> Path:
        text = (HERE / "suite.toml").read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        (tmp_path / "table2.csv").write_text(table or (HERE / "table2.csv").read_text())
        path = tmp_path / name
        path.write_text(text)
        return path

    return make
