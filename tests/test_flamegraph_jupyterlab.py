"""A profile's outputs in a real JupyterLab: of a trusted notebook, and of one that is not."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from chromium import started
from nbformat.sign import NotebookNotary
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from served import free_port, wait_for

import ragprof as rp
from ragprof.flamegraph import FlameGraph, Speedscope
from ragprof.profiles.model import Frame, Profile, ProfileBuilder

PATIENCE = 300
pytestmark = pytest.mark.timeout(900)


def profile(weight: float = 60e6) -> Profile:
    builder = ProfileBuilder(name="shop")
    for path, ns in (["m:run", "m:answer"], weight), (["m:run", "m:load"], 20e6):
        frames = [builder.frame(Frame(name, "m", "m.py", 3, "app")) for name in path]
        builder.sample(builder.stack(frames), ns)
    return builder.build()


SHOWN: tuple[Any, ...] = (
    profile(),
    FlameGraph(profile(), profile(10e6)),
    rp.compare(profile(10e6), profile()),
    Speedscope(profile()),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab with the notebook twice, once signed as if it was run here.

    The notebook names no kernel, so that none is started.
    """
    folder = tmp_path_factory.mktemp("lab")
    data = folder / "data"
    data.mkdir()
    outputs = [nbformat.v4.new_output("display_data", shown._repr_mimebundle_()) for shown in SHOWN]
    cells = [nbformat.v4.new_code_cell("prof", outputs=[output]) for output in outputs]
    notebook = nbformat.v4.new_notebook(cells=cells)
    for name in ("untrusted", "trusted"):
        notebook.metadata["title"] = name  # the signature is of the content
        nbformat.write(notebook, folder / f"{name}.ipynb")
    NotebookNotary(data_dir=str(data)).sign(notebook)
    port = free_port()
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(data),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:

        def answers() -> bool:
            assert server.poll() is None, (folder / "log").read_text()[-3000:]
            with urllib.request.urlopen(f"{address}/api/status", timeout=30) as answer:
                return bool(answer.status == 200)

        wait_for(answers, "JupyterLab", PATIENCE)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        driver.set_window_size(1400, 4000)  # Lab renders the cells that are in sight
        yield driver


def outputs(browser: webdriver.Chrome, lab: str, name: str) -> list[Any]:
    """The rendered outputs of a notebook, when all are there."""
    browser.get(f"{lab}/doc/tree/{name}.ipynb?reset")

    def rendered(driver: webdriver.Chrome) -> list[Any] | None:
        found = driver.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output")
        return found if len(found) == len(SHOWN) else None

    return WebDriverWait(browser, PATIENCE).until(rendered)


def test_a_trusted_notebook_shows_the_pages(browser: webdriver.Chrome, lab: str) -> None:
    for output in outputs(browser, lab, "trusted"):
        browser.execute_script("arguments[0].scrollIntoView()", output)
        frame = output.find_element(By.TAG_NAME, "iframe")
        assert frame.get_attribute("sandbox") == "allow-scripts"
        assert frame.is_displayed()
        assert not output.find_elements(By.TAG_NAME, "img")
        browser.switch_to.frame(frame)
        try:
            WebDriverWait(browser, PATIENCE).until(
                lambda driver: driver.find_element(By.TAG_NAME, "body").get_attribute("data-ready")
            )
        finally:
            browser.switch_to.default_content()


def test_an_untrusted_notebook_shows_the_pictures(browser: webdriver.Chrome, lab: str) -> None:
    for output in outputs(browser, lab, "untrusted"):
        browser.execute_script("arguments[0].scrollIntoView()", output)
        assert not output.find_elements(By.TAG_NAME, "iframe")
        picture = output.find_element(By.TAG_NAME, "img")
        assert picture.is_displayed()
        size = WebDriverWait(browser, PATIENCE).until(
            lambda driver, picture=picture: driver.execute_script(
                "return arguments[0].complete && arguments[0].naturalWidth", picture
            )
        )
        assert size > 500
        assert "&lt;" not in output.text
        assert len(output.text) < 2000  # not the page's source
