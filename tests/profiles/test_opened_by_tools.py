"""What we write, opened by the format's own tool: go tool pprof, speedscope, inferno, Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import started
from selenium import webdriver
from selenium.webdriver.common.by import By

from ragprof.flamegraph.speedscope import viewer
from ragprof.profiles.content import Content
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType
from ragprof.profiles.read import profiles_of, read_profile
from ragprof.profiles.write import LossWarning

sys.path.insert(0, str(Path(__file__).parent))

import same

TOOLS = Path(os.environ.get("RAGPROF_TOOLS", Path.home() / ".cache/ragprof/tools")) / "bin"
WAIT_S = 240


def tool(name: str) -> str:
    """A program on the PATH or in the cache folder."""
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    assert found, f"{name} is missing: run tests/profiles/install.sh"
    return found


def run(*command: str | Path) -> str:
    words = [str(one) for one in command]
    done = subprocess.run(words, capture_output=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture
def profile() -> Profile:
    builder = ProfileBuilder(
        [ValueType("wall", "nanoseconds"), ValueType("alloc_space", "bytes")], name="shop"
    )
    frames = [
        builder.frame(Frame("shop:main", "shop", "/srv/shop/shop.py", 36)),
        builder.frame(Frame("shop:price", "shop", "/srv/shop/shop.py", 12)),
        builder.frame(Frame("</script><b>&amp;", "", "/srv/shop/odd name.py", 3)),
    ]
    ran = [40, 13, 7]
    for number, (path, wall) in enumerate([([0], 5), ([0, 1], 30), ([0, 1, 2], 10), ([0, 1], 20)]):
        builder.sample(
            builder.stack([frames[frame] for frame in path], ran[: len(path)]),
            wall * 1_000_000,
            number * 100,
            time=1_700_000_000_000_000_000 + number * 50_000_000,
            thread=4711,
            task=number,
            labels={"span_id": f"{number:016x}", "trace_id": "ab" * 16},
        )
    builder.note("One sample in four was missed.")
    return builder.build()


def test_go_s_pprof_reads_every_part(profile: Profile, tmp_path: Path) -> None:
    path = profile.to_pprof(tmp_path / "shop.pb.gz")
    raw = run(tool("go"), "tool", "pprof", "-raw", path)
    assert "Comment: One sample in four was missed." in raw
    assert "wall/nanoseconds[dflt] alloc_space/bytes" in raw
    assert "Time: 2023-11-14" in raw
    assert re.search(r"30000000\s+100: 2 1", raw)
    assert "span_id:[0000000000000002]" in raw
    assert "thread id:[4711]" in raw
    assert re.search(r"shop:price /srv/shop/shop.py:13(:0)? s=12", raw)
    assert "</script><b>&amp; /srv/shop/odd name.py:7" in raw
    top = run(tool("go"), "tool", "pprof", "-top", "-unit", "ms", path)
    assert re.search(r"Showing nodes accounting for 65ms, 100% of 65ms total", top)
    assert re.search(r"50ms\s+76.92%\s+76.92%\s+60ms\s+92.31%\s+shop:price", top)


@pytest.mark.parametrize(
    "name", ["pyspy.speedscope.json", "go_heap.pb.gz", "pyinstrument.pyisession"]
)
def test_go_s_pprof_and_we_agree_on_the_functions(name: str, tmp_path: Path) -> None:
    profile = read_profile(Path(__file__).parent / "files" / name)
    path = profile.to_pprof(tmp_path / "x.pb.gz")
    table = run(tool("go"), "tool", "pprof", "-top", "-nodecount=0", "-nodefraction=0", path)
    shown = re.findall(
        r"^\s*\S+\s+\S+%\s+\S+%\s+\S+\s+(\S+)%\s+(.+?)(?: \(inline\))?$", table, re.M
    )
    functions = profile.functions().groupby("function")["total"].max() / profile.total()
    assert shown
    for share, function in shown:
        if function in functions.index and (profile.functions()["function"] == function).sum() == 1:
            assert float(share) / 100 == pytest.approx(functions[function], abs=0.0002)


def test_we_read_what_go_writes_again(profile: Profile, tmp_path: Path) -> None:
    ours = profile.to_pprof(tmp_path / "ours.pb.gz")
    run(tool("go"), "tool", "pprof", "-proto", "-output", tmp_path / "theirs.pb.gz", ours)
    theirs = read_profile(tmp_path / "theirs.pb.gz")
    assert same.rows(theirs) == same.rows(profile)
    assert theirs.notes == profile.notes


def test_a_difference_by_go_is_refused_with_the_way_out(profile: Profile, tmp_path: Path) -> None:
    less = profile.to_pprof(tmp_path / "less.pb.gz")
    more = profile.scaled(2).to_pprof(tmp_path / "more.pb.gz")
    difference = tmp_path / "difference.pb.gz"
    run(tool("go"), "tool", "pprof", "-proto", "-diff_base", more, "-output", difference, less)
    with pytest.raises(ProfileError, match=r"difference of profiles is no profile; read both"):
        read_profile(difference)


def test_inferno_draws_our_collapsed_stacks(profile: Profile, tmp_path: Path) -> None:
    with pytest.warns(LossWarning):
        path = profile.to_collapsed(tmp_path / "shop.folded")
    picture = run(tool("inferno-flamegraph"), path)
    assert "shop:price (60,000,000 samples, 92.31%)" in picture
    assert "&lt;/script&gt;&lt;b&gt;&amp;amp: (10,000,000 samples, 15.38%)" in picture
    assert "all (65,000,000 samples, 100%)" in picture


def test_inferno_reads_names_that_end_in_numbers_as_names(tmp_path: Path) -> None:
    builder = ProfileBuilder([ValueType("samples", "count")])
    for name in ("worker 1", "worker 2"):
        builder.sample(builder.stack([builder.frame(Frame("main")), builder.frame(Frame(name))]), 3)
    path = builder.build().to_collapsed(tmp_path / "x.folded")
    picture = run(tool("inferno-flamegraph"), path)
    assert "worker\u00a01 (3 samples, 50.00%)" in picture
    # Two counts a line are a difference to both of us.
    difference = run(tool("inferno-diff-folded"), path, path)
    (back,) = profiles_of(Content(difference.encode()))
    assert [kind.type for kind in back.value_types] == ["before", "after"]
    assert back.values.tolist() == [[3, 3], [3, 3]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with started(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


def test_speedscope_shows_our_file(
    profile: Profile, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    with pytest.warns(LossWarning):
        path = profile.to_speedscope(tmp_path / "shop.speedscope.json")
    (back,) = profiles_of(Content.of_file(path))
    page = tmp_path / "viewer.html"
    page.write_text(viewer(back, "shop"), encoding="utf-8")
    browser.get(page.as_uri())
    deadline = time.monotonic() + WAIT_S
    while "speedscope" not in browser.title and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "shop" in browser.title, browser.get_log("browser")
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "error" not in text.lower()
    assert "wall" in text  # the name of the first of two profiles


def test_chromium_s_json_reader_takes_our_trace(
    profile: Profile, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        path = profile.to_chrome(tmp_path / "shop.trace.json")
    text = path.read_text(encoding="utf-8")
    events = browser.execute_script("return JSON.parse(arguments[0]).traceEvents", text)
    slices = [event for event in events if event["ph"] == "X"]
    assert events == json.loads(text)["traceEvents"]
    assert sum(one["dur"] for one in slices if one["name"] == "shop:main") == pytest.approx(65_000)
    for one in slices:  # a slice lies within the slice it begins in
        for other in slices:
            if one["tid"] == other["tid"] and other["ts"] < one["ts"] < other["ts"] + other["dur"]:
                assert one["ts"] + one["dur"] <= other["ts"] + other["dur"] + 1e-6
