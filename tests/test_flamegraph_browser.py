"""The flame graph page in Chromium: zoom, search, keyboard, inverted, differential, dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import started
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from ragprof.flamegraph import FlameGraph, Speedscope, html
from ragprof.profiles.model import Frame, Profile, ProfileBuilder

ROW = 19
NASTY = "m:</script><script>document.title='broken'</script>"


def make(stacks: list[tuple[list[str], float]]) -> Profile:
    builder = ProfileBuilder(name="browser")
    for path, weight in stacks:
        frames = [builder.frame(Frame(name, "m", "m.py", 3, "app")) for name in path]
        builder.sample(builder.stack(frames), weight)
    return builder.build()


SLOW = make(
    [
        (["m:run", "m:answer", "m:score"], 60e6),
        (["m:run", "m:answer", "m:load"], 20e6),
        (["m:run", NASTY], 20e6),
    ]
)
BASELINE = make([(["m:run", "m:answer", "m:load"], 30e6), (["m:run", "m:gone"], 10e6)])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def open_page(browser: webdriver.Chrome, path: Path, text: str) -> WebElement:
    path.write_text(text, encoding="utf-8")
    browser.get(path.as_uri())
    return ready(browser)


def ready(browser: webdriver.Chrome) -> WebElement:
    WebDriverWait(browser, 10).until(
        lambda driver: driver.find_element(By.TAG_NAME, "body").get_attribute("data-ready")
    )
    return browser.find_element(By.ID, "graph")


def click(browser: webdriver.Chrome, share: float, depth: int) -> None:
    """Click a box at a share of the width in a row."""
    canvas = browser.find_element(By.ID, "canvas")
    width, height = canvas.size["width"], canvas.size["height"]
    ActionChains(browser).move_to_element_with_offset(
        canvas, int(width * share - width / 2), int(4 + (depth + 0.5) * ROW - height / 2)
    ).click().perform()


def focus(browser: webdriver.Chrome) -> str:
    return str(browser.find_element(By.TAG_NAME, "body").get_attribute("data-focus"))


def view(browser: webdriver.Chrome, name: str) -> None:
    Select(browser.find_element(By.ID, "view")).select_by_value(name)


def details(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "details").text


def no_errors(browser: webdriver.Chrome) -> None:
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["source"] != "rendering"] == []
    resources = browser.execute_script("return performance.getEntriesByType('resource').length")
    assert resources == 0


def test_click_zooms_and_reset_returns(browser: webdriver.Chrome, tmp_path: Path) -> None:
    open_page(browser, tmp_path / "flame.html", html(SLOW))
    assert focus(browser) == "all"
    click(browser, 0.9, 2)  # siblings by name: </script> in its name sorts first
    assert focus(browser) == "m:answer"
    assert "80 ms, 80.0 % of the whole" in details(browser)
    click(browser, 0.9, 3)
    assert focus(browser) == "m:score"
    click(browser, 0.5, 1)  # a caller, which fills the width now
    assert focus(browser) == "m:run"
    browser.find_element(By.ID, "reset").click()
    assert focus(browser) == "all"
    assert browser.title == "browser"
    no_errors(browser)


def test_search_takes_regular_expressions_and_states_the_share(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    open_page(browser, tmp_path / "flame.html", html(SLOW))
    share = browser.find_element(By.ID, "share")
    browser.find_element(By.TAG_NAME, "body").send_keys("/")
    search = browser.switch_to.active_element
    assert search.get_attribute("id") == "search"
    search.send_keys("^m:(score|load)$")
    assert share.text == "80.0 % matched"
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys("answer|score")  # score lies inside answer and is not counted twice
    assert share.text == "80.0 % matched"
    search.send_keys("(")
    assert share.text == "not a regular expression"
    assert search.get_attribute("aria-invalid") == "true"
    search.send_keys(Keys.ESCAPE)
    assert search.get_attribute("value") == ""
    assert share.text == ""
    no_errors(browser)


def test_the_keyboard_reaches_every_box(browser: webdriver.Chrome, tmp_path: Path) -> None:
    graph = open_page(browser, tmp_path / "flame.html", html(SLOW))
    graph.send_keys(Keys.ARROW_DOWN)
    assert details(browser).startswith("m:run")
    graph.send_keys(Keys.ARROW_DOWN)
    assert details(browser).startswith("m:answer")
    graph.send_keys(Keys.ARROW_LEFT)
    assert details(browser).startswith(NASTY)
    graph.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ENTER)
    assert focus(browser) == "m:score"
    graph.send_keys(Keys.ARROW_UP)
    assert details(browser).startswith("m:answer")
    graph.send_keys(Keys.ESCAPE)
    assert focus(browser) == "all"
    assert "flame graph" in str(graph.get_attribute("aria-roledescription"))
    no_errors(browser)


def test_inverted_starts_at_the_innermost_functions(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    graph = open_page(browser, tmp_path / "flame.html", html(SLOW))
    view(browser, "callers")
    graph.send_keys(Keys.ARROW_DOWN)
    assert details(browser).startswith("m:score 60 ms")
    graph.send_keys(Keys.ARROW_DOWN)
    assert details(browser).startswith("m:answer")
    graph.send_keys("i")
    graph.send_keys(Keys.ARROW_DOWN)
    assert details(browser).startswith("m:run")
    no_errors(browser)


def pixel(browser: webdriver.Chrome, share: float, depth: int) -> list[int]:
    """The colour of the canvas inside a box, away from its text."""
    colour: list[int] = browser.execute_async_script(
        "const [share, row, done] = arguments; requestAnimationFrame(() => requestAnimationFrame("
        "() => { const c = document.getElementById('canvas'), r = devicePixelRatio;"
        "done([...c.getContext('2d').getImageData(Math.round(c.width * share),"
        "Math.round(row * r), 1, 1).data]); }))",
        share,
        4 + depth * ROW + 2,
    )
    return colour


def test_the_difference_is_red_and_blue_and_widths_may_be_the_baseline(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    open_page(browser, tmp_path / "flame.html", html(SLOW, BASELINE))
    assert "baseline 40 ms, difference +60 ms" in browser.find_element(By.TAG_NAME, "h1").text
    red, _, blue, _ = pixel(browser, 0.95, 3)  # score: only in the slow requests
    assert red > blue + 60
    red, _, blue, _ = pixel(browser, 0.3, 3)  # load: 20 ms against 30 ms
    assert blue > red + 40
    legend = browser.find_element(By.ID, "legend")
    assert "same" in legend.text
    Select(browser.find_element(By.ID, "width")).select_by_value("before")
    click(browser, 0.99, 2)  # a stack that only the baseline has
    assert focus(browser) == "m:gone"
    assert "baseline 10 ms, difference \N{MINUS SIGN}10 ms" in details(browser)
    Select(browser.find_element(By.ID, "width")).select_by_value("both")
    click(browser, 0.1, 2)  # half as wide where both sides count
    assert "only in the baseline" in details(browser) or "only in this" in details(browser)
    Select(browser.find_element(By.ID, "compare")).select_by_value("normalised")
    click(browser, 0.99, 0)
    assert "baseline 100 ms (scaled), difference 0 ns" in details(browser)
    Select(browser.find_element(By.ID, "colour")).select_by_value("module")
    assert "your code" in legend.text
    no_errors(browser)


def test_a_sandwich_shows_callers_above_and_callees_below(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    graph = open_page(browser, tmp_path / "flame.html", html(SLOW))
    click(browser, 0.9, 2)
    view(browser, "sandwich")
    assert focus(browser) == "m:answer"
    assert "80 ms, 100 % of the whole" in details(browser)
    graph.send_keys(Keys.ARROW_UP)
    assert details(browser).startswith("m:run 80 ms")
    graph.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert details(browser).startswith("m:score 60 ms")
    browser.find_element(By.TAG_NAME, "summary").click()
    browser.find_element(By.XPATH, "//td/button[text()='m:load']").click()
    assert focus(browser) == "m:load"
    graph.send_keys(Keys.ESCAPE)
    no_errors(browser)


def test_recursion_does_not_exceed_the_whole_in_a_sandwich(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    deep = make([(["f", "g", "f", "g"], 30e6), (["f"], 10e6)])
    open_page(browser, tmp_path / "flame.html", html(deep))
    click(browser, 0.5, 1)
    view(browser, "sandwich")
    assert details(browser).startswith("f 40 ms, 100 % of the whole; itself 10 ms")
    no_errors(browser)


def timed() -> Profile:
    """Two threads, a second and a half: ``a`` first, then ``b`` on one, ``c`` on the other."""
    builder = ProfileBuilder(name="timed")
    stacks = {name: builder.stack([builder.frame(Frame(name))]) for name in "abc"}
    start = 1_700_000_000 * 10**9
    for at in range(150):
        time = start + at * 10_000_000
        builder.sample(stacks["a" if at < 100 else "b"], 10e6, time=time, thread=1)
        if at >= 50:
            builder.sample(stacks["c"], 10e6, time=time, thread=2)
    return builder.build()


def test_the_order_of_time_has_a_lane_for_each_thread(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    graph = open_page(browser, tmp_path / "flame.html", html(timed()))
    view(browser, "time")
    assert browser.find_element(By.ID, "order").get_attribute("disabled")
    click(browser, 0.5, 1)
    assert focus(browser) == "[thread 1]"
    graph.send_keys(Keys.ARROW_DOWN)
    assert details(browser).startswith("a 1 s")
    click(browser, 0.99, 2)
    assert focus(browser) == "b"
    no_errors(browser)


def test_cells_of_the_heatmap_select_their_samples(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    open_page(browser, tmp_path / "flame.html", html(timed()))
    browser.find_element(By.ID, "heatmap").click()
    cells = browser.find_element(By.ID, "cells")
    wide, high = cells.size["width"], cells.size["height"]
    second = ActionChains(browser).move_to_element_with_offset(  # early in the second second
        cells, int(wide * 0.75 - wide / 2), int(high / 2 - 5)
    )
    second.click().perform()
    assert "22:13:21.020 to 22:13:21.040: 40 ms" in browser.find_element(By.ID, "moment").text
    assert details(browser).startswith("all 40 ms")
    click(browser, 0.2, 1)
    assert focus(browser) == "b"
    view(browser, "callers")
    assert browser.find_element(By.CSS_SELECTOR, "#view [value=time]").get_attribute("disabled")
    browser.find_element(By.ID, "reset").click()
    assert details(browser).startswith("all 2.50 s")
    cells.send_keys(Keys.ARROW_LEFT, Keys.ENTER)
    assert "22:13:20" in browser.find_element(By.ID, "moment").text
    no_errors(browser)


def test_order_colour_theme_and_copy(browser: webdriver.Chrome, tmp_path: Path) -> None:
    graph = open_page(browser, tmp_path / "flame.html", html(SLOW))
    click(browser, 0.1, 2)
    assert focus(browser) == NASTY
    graph.send_keys(Keys.ESCAPE)
    Select(browser.find_element(By.ID, "order")).select_by_value("weight")
    click(browser, 0.1, 2)
    assert focus(browser) == "m:answer"
    Select(browser.find_element(By.ID, "colour")).select_by_value("self")
    assert "≥ 25.0 %" in browser.find_element(By.ID, "legend").text
    graph.send_keys("c")
    WebDriverWait(browser, 10).until(
        lambda driver: driver.find_element(By.ID, "share").text == "copied"
    )
    body = browser.find_element(By.TAG_NAME, "body")
    assert body.get_attribute("data-copied") == "m:answer (m.py:3)"
    before = body.value_of_css_property("background-color")
    browser.find_element(By.ID, "theme").click()
    assert body.value_of_css_property("background-color") != before
    no_errors(browser)


def viewer_ready(browser: webdriver.Chrome) -> None:
    browser.switch_to.frame(0)
    WebDriverWait(browser, 60).until(
        lambda driver: driver.find_element(By.TAG_NAME, "body").get_attribute("data-ready")
    )
    title = browser.execute_script("return document.title")
    resources = browser.execute_script("return performance.getEntriesByType('resource').length")
    browser.switch_to.default_content()
    assert str(title).endswith("- speedscope")
    assert resources == 0


def test_speedscope_opens_from_a_file_without_the_network(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    page = tmp_path / "speedscope.html"
    page.write_text(Speedscope(SLOW, "</script><i>").html(), encoding="utf-8")
    browser.get(page.as_uri())
    viewer_ready(browser)
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_speedscope_and_flame_graph_work_in_nbconvert_html(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    import nbformat
    from nbconvert import HTMLExporter

    outputs = [
        nbformat.v4.new_output("display_data", shown._repr_mimebundle_())
        for shown in (Speedscope(SLOW), FlameGraph(SLOW))
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("prof", outputs=[output]) for output in outputs]
    )
    text, _ = HTMLExporter().from_notebook_node(notebook)
    page = tmp_path / "notebook.html"
    page.write_text(text, encoding="utf-8")
    browser.get(page.as_uri())
    viewer_ready(browser)
    frame = browser.find_elements(By.TAG_NAME, "iframe")[1]
    browser.execute_script("arguments[0].scrollIntoView()", frame)
    browser.switch_to.frame(frame)
    try:
        ready(browser)
        assert focus(browser) == "all"
    finally:
        browser.switch_to.default_content()
        browser.get_log("browser")  # type: ignore[no-untyped-call]  # nbconvert's own requests


def test_it_works_in_a_sandboxed_iframe(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = tmp_path / "notebook.html"
    page.write_text(
        f"<!DOCTYPE html><title>notebook</title>{FlameGraph(SLOW, title='x')._repr_html_()}",
        encoding="utf-8",
    )
    browser.get(page.as_uri())
    browser.switch_to.frame(0)
    try:
        graph = ready(browser)
        graph.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
        assert focus(browser) == "m:run"
    finally:
        browser.switch_to.default_content()
    assert browser.title == "notebook"
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_dark_phone_and_empty(browser: webdriver.Chrome, tmp_path: Path) -> None:
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        open_page(browser, tmp_path / "empty.html", html(ProfileBuilder().build()))
        assert "0 ns wall" in browser.find_element(By.TAG_NAME, "h1").text
        no_errors(browser)
        open_page(browser, tmp_path / "flame.html", html(SLOW, BASELINE))
        background = browser.find_element(By.TAG_NAME, "body").value_of_css_property(
            "background-color"
        )
        assert "20, 24, 29" in background
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        no_errors(browser)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
