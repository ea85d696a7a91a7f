"""The page for two models, used in a real browser: ask both, move the slider, stop, clear."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="pip install 'tilth[serve]'")
webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs a browser and its driver (chromium, chromium-driver)",
    ),
]

EFT = "eft:base=seedling:large,expert=seedling:teacher,anti=seedling:large,weight=0.5"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    import uvicorn

    from tilth.decode.serve.app import application
    from tilth.decode.serve.shelf import Shelf

    config = uvicorn.Config(application(Shelf([EFT, "seedling:teacher"])), log_level="error")
    server, listening = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def browser(address: str, tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--window-size=1200,800",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(word)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    driver.get(address)
    yield driver
    driver.quit()


def until(test: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def texts(browser: Any, side: str, kind: str) -> list[str]:
    return [p.text for p in browser.find_elements("css selector", f"#talk-{side} .{kind}")]


def ask(browser: Any, question: str) -> None:
    browser.find_element("id", "question").send_keys(question + "\n")


def slide(browser: Any, value: float) -> None:
    browser.execute_script(
        "const w = document.getElementById('weight-a'); w.value = arguments[0];"
        "w.dispatchEvent(new Event('input')); w.dispatchEvent(new Event('change'));",
        value,
    )


def test_both_answer_and_the_slider_asks_again(browser: Any) -> None:
    until(lambda: len(browser.find_elements("css selector", "#model-b option")) == 2)
    chosen = [browser.find_element("id", f"model-{s}").get_property("value") for s in "ab"]
    assert chosen == [EFT, "seedling:teacher"]
    assert browser.find_element("id", "slide-a").is_displayed()
    assert not browser.find_element("id", "slide-b").is_displayed()
    ask(browser, "Ada has 3 sacks. Ada buys 4 more. How many sacks are there now?")
    until(lambda: all("tokens in" in "".join(texts(browser, s, "said")) for s in "ab"))
    assert texts(browser, "a", "asked") == texts(browser, "b", "asked")
    assert "at weight 0.50" in texts(browser, "a", "said")[0]
    slide(browser, 1.0)
    until(lambda: "at weight 1.00" in "".join(texts(browser, "a", "said")))
    assert len(texts(browser, "b", "said")) == 1
    # Base and anti-expert are one model: at weight 1 the expert itself answers.
    assert _words(texts(browser, "a", "said")[-1]) == _words(texts(browser, "b", "said")[0])
    browser.find_element("id", "clear").click()
    assert texts(browser, "a", "said") == []
    log = [entry["message"] for entry in browser.get_log("browser")]
    assert [line for line in log if "favicon" not in line] == []


def test_text_is_text_and_not_the_page(browser: Any) -> None:
    until(lambda: len(browser.find_elements("css selector", "#model-b option")) == 2)
    asked = "<b>bold</b> <img src=x onerror=alert(1)> & Sort: pear, apple."
    ask(browser, asked)
    until(lambda: all("tokens in" in "".join(texts(browser, s, "said")) for s in "ab"))
    assert texts(browser, "a", "asked") == [asked]
    assert browser.find_elements("css selector", ".talk b, .talk img") == []
    assert browser.find_element("id", "model-a").get_attribute("title") == EFT


def test_on_a_phone_it_is_one_column(browser: Any) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.refresh()
    until(lambda: len(browser.find_elements("css selector", "#model-b option")) == 2)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    left, right = browser.find_elements("css selector", "section")
    assert right.location["y"] >= left.location["y"] + left.size["height"]
    assert browser.execute_script("return document.getElementById('slide-b').offsetHeight") == 0


def test_a_fault_is_shown(browser: Any) -> None:
    until(lambda: len(browser.find_elements("css selector", "#model-b option")) == 2)
    tokens = browser.find_element("id", "tokens")
    browser.execute_script("arguments[0].max = 9999; arguments[0].value = 5000", tokens)
    ask(browser, "Sort: pear, apple.")
    until(lambda: bool(texts(browser, "b", "fault")))
    assert "at most 1024 tokens" in texts(browser, "b", "fault")[0]


def _words(said: str) -> str:
    return said.rpartition("\n")[0].strip()
