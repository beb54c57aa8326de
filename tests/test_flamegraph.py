"""Layout, SVG and HTML of flame graphs, without a browser."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.flamegraph import FlameGraph, html, svg
from ragprof.flamegraph.layout import Layout, layout
from ragprof.flamegraph.units import share_text, weight_text
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType

GOLDEN = Path(__file__).parent / "golden" / "flamegraph.svg"
NASTY = "m:</script><script>alert(1)</script>&\"'\u2028"
STACKS = st.lists(
    st.tuples(st.lists(st.sampled_from("abcde"), max_size=7), st.integers(0, 1000)), max_size=40
)


def make(stacks: list[tuple[list[str], float]], *, name: str = "") -> Profile:
    builder = ProfileBuilder(name=name)
    for path, weight in stacks:
        frames = [Frame(text, text, f"{text}.py", 1, "app") for text in path]
        builder.sample(builder.stack([builder.frame(frame) for frame in frames]), weight)
    return builder.build()


def children_sum(boxes: Layout, weights: np.ndarray) -> np.ndarray:
    return np.bincount(boxes.parent[1:], weights=weights[1:], minlength=len(boxes.parent))


@given(STACKS, STACKS, st.booleans(), st.sampled_from([0.0, 0.001, 0.1, 0.5]), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_every_box_is_the_sum_of_its_parts(
    stacks: list[tuple[list[str], int]],
    other: list[tuple[list[str], int]],
    inverted: bool,
    smallest: float,
    deepest: int,
) -> None:
    profile, baseline = make(stacks), make(other)
    boxes = layout(profile, baseline, inverted=inverted, smallest=smallest, deepest=deepest)
    assert boxes.total == pytest.approx(profile.total())
    assert boxes.own.sum() + boxes.pruned.sum() == pytest.approx(profile.total())
    inside = children_sum(boxes, boxes.weight)
    np.testing.assert_allclose(boxes.weight, boxes.own + boxes.pruned + inside, atol=1e-6)
    assert boxes.before is not None
    assert boxes.before_own is not None
    assert boxes.before_pruned is not None
    assert boxes.before[0] == pytest.approx(baseline.total())
    inside = children_sum(boxes, boxes.before)
    np.testing.assert_allclose(
        boxes.before, boxes.before_own + boxes.before_pruned + inside, atol=1e-6
    )
    # Children lie inside their parent and beside each other.
    right = boxes.x + boxes.weight
    parents = boxes.parent[1:]
    assert (boxes.x[1:] >= boxes.x[parents] - 1e-6).all()
    assert (right[1:] <= right[parents] + 1e-6).all()
    for depth in range(boxes.levels):
        row = np.flatnonzero(boxes.depth == depth)
        row = row[np.argsort(boxes.x[row], kind="stable")]
        assert (boxes.x[row][1:] >= right[row][:-1] - 1e-6).all()


@given(STACKS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_layout_agrees_with_a_tree_made_one_by_one(
    stacks: list[tuple[list[str], int]], inverted: bool
) -> None:
    boxes = layout(make(stacks), inverted=inverted, smallest=0.0)
    expected: dict[tuple[str, ...], float] = {(): 0.0}
    for path, weight in stacks:
        path = path[::-1] if inverted else path
        for depth in range(len(path) + 1):
            expected[tuple(path[:depth])] = expected.get(tuple(path[:depth]), 0.0) + weight
    paths: list[tuple[str, ...]] = [()]
    for index in range(1, len(boxes.frame)):
        frame = boxes.frames[boxes.frame[index]]
        paths.append((*paths[boxes.parent[index]], frame.function))
    assert len(set(paths)) == len(paths)
    found = dict(zip(paths, boxes.weight.tolist(), strict=True))
    assert found == {path: weight for path, weight in expected.items() if weight or not path}


def test_narrow_boxes_are_pruned_and_their_share_is_stated() -> None:
    profile = make([(["wide"], 9_985), *(([f"thin{index}"], 3) for index in range(5))])
    boxes = layout(profile)
    assert len(boxes.frame) == 2
    assert boxes.pruned_share == pytest.approx(0.0015)
    assert "0.15 % in boxes too narrow or too deep to draw" in svg(profile)
    assert "0.15 % in boxes too narrow or too deep to draw" in html(profile)


def test_recursion_of_100_000_frames_is_drawn_in_bounded_time_and_size() -> None:
    builder = ProfileBuilder()
    frame = builder.frame(Frame("deep"))
    builder.sample(builder.stack([frame] * 100_000), 5)
    profile = builder.build()
    began = time.perf_counter()
    picture, page = svg(profile), html(profile)
    assert time.perf_counter() - began < 5
    assert len(picture) < 500_000
    assert len(page) < 500_000
    assert "100 % in boxes too narrow or too deep to draw" in picture
    functions = profile.functions()
    assert functions["total"].tolist() == [5.0]


def test_an_empty_profile_is_drawn_as_empty() -> None:
    empty = ProfileBuilder().build()
    assert "no samples" in svg(empty)
    assert "0 ns wall" in html(empty)
    assert FlameGraph(empty).text() == "Flame graph: 0 ns"
    against = svg(make([(["a"], 1)]), empty)
    assert "baseline 0 ns, difference +1 ns" in against


def test_sides_of_different_units_are_refused() -> None:
    other = ProfileBuilder([ValueType("space", "bytes")]).build()
    with pytest.raises(ProfileError, match="cannot be drawn against"):
        svg(make([(["a"], 1)]), other)


def test_the_svg_is_well_formed_without_scripts_and_escapes_names() -> None:
    profile = make([([NASTY], 5), (["ok", "b"], 5)], name="<title>")
    picture = svg(profile, make([(["ok"], 5)]))
    root = ET.fromstring(picture)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags == {"svg", "style", "rect", "text", "g", "title"}
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
    titles = [element.text or "" for element in root.iter() if element.tag.endswith("title")]
    assert any(title.startswith(NASTY) for title in titles)
    assert any("baseline 0 ns, difference +5 ns" in title for title in titles)
    assert "prefers-color-scheme:dark" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_the_svg_of_a_known_profile_has_not_changed() -> None:
    builder = ProfileBuilder(name="golden")
    names = [
        Frame("asyncio.runners:run", "asyncio.runners", "runners.py", 160, "stdlib"),
        Frame("rag.api:answer", "rag.api", "api.py", 20, "app"),
        Frame("rag.rerank:score", "rag.rerank", "rerank.py", 44, "app"),
        Frame("numpy:matmul", "numpy", "", 0, "library"),
        Frame("[awaiting io]"),
    ]
    run, answer, score, matmul, io = (builder.frame(frame) for frame in names)
    for path, weight in (
        ([run, answer, score, matmul], 60e6),
        ([run, answer, io], 25e6),
        ([run, answer], 10e6),
        ([run], 5e6),
    ):
        builder.sample(builder.stack(path), weight)
    picture = svg(builder.build(), width=800)
    assert picture == GOLDEN.read_text(encoding="utf-8")


def page_data(page: str) -> dict[str, Any]:
    """The JSON parts of a page by their ids."""
    parts = re.findall(
        r'<script id="([\w-]+)" type="application/json">(.*?)</script>', page, re.DOTALL
    )
    return {name: json.loads(text) for name, text in parts}


def test_the_page_is_self_contained_and_escapes_names() -> None:
    page = html(make([([NASTY], 5), (["ok"], 5)]), title="</title><script>alert(2)</script>")
    assert "<script>alert" not in page
    assert page.count("<script") == 3  # two of data, one that runs
    assert not re.search(r"(src|href)\s*=", page)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert NASTY in page_data(page)["data"]["names"]


@given(STACKS)
@settings(max_examples=50, deadline=None)
def test_the_page_carries_the_whole_weight(stacks: list[tuple[list[str], int]]) -> None:
    profile = make(stacks)
    parts = page_data(html(profile))
    for tree in (parts["data"]["calls"], parts["callers-data"]):
        assert sum(tree["own"]) + sum(tree["cut"]) == pytest.approx(profile.total(), rel=1e-4)


def many(samples: int, seed: int = 1) -> Profile:
    """A random profile: a tree of 400 functions, about ``samples`` / 20 distinct stacks."""
    random = np.random.default_rng(seed)
    builder = ProfileBuilder()
    frames = [
        builder.frame(Frame(f"package.module{index % 37}:Class{index % 11}.function_{index}"))
        for index in range(400)
    ]
    paths = random.zipf(1.4, size=(max(1, samples // 20), 24)) % 400
    ids = [
        builder.stack([frames[frame] for frame in path[:length]])
        for path, length in zip(
            paths.tolist(), random.integers(6, 24, len(paths)).tolist(), strict=True
        )
    ]
    builder.samples(random.choice(ids, samples), random.integers(1, 20, samples) * 1e6)
    return builder.build()


def test_a_page_of_100_000_samples_is_small() -> None:
    assert len(html(many(100_000), many(100_000, 2)).encode()) < 1_000_000


def test_a_flame_graph_shows_itself_in_every_notebook() -> None:
    graph = make([(["a", "b"], 3e6), (["a"], 1e6)], name="run").flamegraph()
    bundle = graph._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    assert 'sandbox="allow-scripts"' in bundle["text/html"]
    assert "<script" not in bundle["text/html"]  # only inside the escaped srcdoc
    assert '<img alt="run" src="data:image/svg+xml;base64,' in bundle["text/html"]
    assert bundle["text/plain"].splitlines()[1].split() == ["75.0", "%", "3", "ms", "b"]


@pytest.mark.parametrize(
    ("weight", "kind", "text"),
    [
        (1_234_567, ValueType("wall", "nanoseconds"), "1.23 ms"),
        (0.5, ValueType("wall", "seconds"), "500 ms"),
        (0, ValueType("wall", "nanoseconds"), "0 ns"),
        (3 * 2**20, ValueType("space", "bytes"), "3 MiB"),
        (41_300, ValueType("samples", "count"), "41.3 k"),
    ],
)
def test_weights_read_well(weight: float, kind: ValueType, text: str) -> None:
    assert weight_text(weight, kind) == text


def test_shares_read_well() -> None:
    assert [share_text(share) for share in (1, 0.5, 0.0123, 0.00042, 0)] == [
        "100 %",
        "50.0 %",
        "1.2 %",
        "0.04 %",
        "0 %",
    ]
    assert share_text(-0.25, sign=True) == "\N{MINUS SIGN}25.0 %"
