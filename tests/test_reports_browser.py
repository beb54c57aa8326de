"""The report in Chromium: no request, no console message, light, dark, phone, print, zoom."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from chromium import started
from PIL import Image
from reporting import hostile
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from ragprof.reports import investigation


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser-report")
    return investigation.write(hostile(folder / "a.ragprof"), folder / "out")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def opened(browser, page: Path):
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    return browser


def frame(browser):
    element = browser.find_element(By.CSS_SELECTOR, "iframe[sandbox]")
    browser.execute_script("arguments[0].scrollIntoView()", element)
    browser.switch_to.frame(element)
    WebDriverWait(browser, 10).until(
        lambda driver: driver.find_element(By.TAG_NAME, "body").get_attribute("data-ready")
    )
    return browser.find_element(By.ID, "graph")


def picture(browser) -> Image.Image:
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("L")


def mean(image: Image.Image) -> float:
    histogram = image.histogram()
    return sum(value * count for value, count in enumerate(histogram)) / sum(histogram)


def test_asks_for_nothing_and_complains_of_nothing(opened, page):
    frame(opened)
    opened.switch_to.default_content()
    messages = [json.loads(one["message"])["message"] for one in opened.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith("data:")] == []
    assert opened.get_log("browser") == []


def test_hostile_texts_stay_texts(opened):
    assert opened.execute_script("return window.broken") is None
    assert opened.find_elements(By.CSS_SELECTOR, "script, img[src=x]") == []
    assert "longer" in opened.find_element(By.TAG_NAME, "h1").text
    assert "Investigate slow traces" in opened.title
    frame(opened)
    assert opened.execute_script("return window.broken") is None
    opened.switch_to.default_content()


def test_flame_graph_zooms_by_keyboard(opened):
    graph = frame(opened)
    body = opened.find_element(By.TAG_NAME, "body")
    before = body.get_attribute("data-focus")
    graph.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    WebDriverWait(opened, 5).until(lambda _: body.get_attribute("data-focus") != before)
    graph.send_keys(Keys.ESCAPE)
    WebDriverWait(opened, 5).until(lambda _: body.get_attribute("data-focus") == before)
    opened.switch_to.default_content()


def test_code_is_behind_a_toggle(opened):
    code = opened.find_element(By.CLASS_NAME, "code")
    assert not code.is_displayed()
    opened.find_element(By.ID, "show-code").click()
    assert code.is_displayed()


def test_sections_can_be_linked(opened):
    links = opened.find_elements(By.CSS_SELECTOR, "nav a")
    assert len(links) >= 10
    for link in links:
        target = link.get_attribute("href").partition("#")[2]
        assert opened.find_element(By.ID, target).tag_name == "h2"


@pytest.mark.parametrize("width", [1000, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_dark_phone(opened, scheme, width):
    sized = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sized)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        opened.refresh()
        image = picture(opened)
        assert image.getextrema()[1] - image.getextrema()[0] > 150
        assert (mean(image) > 200) if scheme == "light" else (mean(image) < 90)
        wide = opened.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_prints(opened):
    drawn = opened.find_element(By.CSS_SELECTOR, "img.paper")  # on paper, in place of the frame
    assert not drawn.is_displayed()
    assert opened.execute_script("return arguments[0].naturalWidth", drawn) > 100
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    data = base64.b64decode(printed["data"])
    assert data.startswith(b"%PDF")
    assert len(data) > 30_000
