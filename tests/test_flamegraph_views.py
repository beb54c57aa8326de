"""Views beside the page: time's order, sub-second cells, lines, tree, filters, the command."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ragprof import plots
from ragprof.cli import FAILED, OK, main
from ragprof.flamegraph import Speedscope, html, inputs, svg
from ragprof.flamegraph.in_time import MOST_BOXES, layout_in_time
from ragprof.flamegraph.layout import layout
from ragprof.flamegraph.source import SourceView
from ragprof.flamegraph.terminal import tree
from ragprof.profiles.lines import by_line
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError
from ragprof.profiles.subseconds import subseconds
from ragprof.profiles.weights import by_frame

VENDORED = Path(inputs.__file__).parent / "speedscope"
START = 1_700_000_000 * 10**9
NASTY = "m:</script><script>alert(1)</script>"
SAMPLES = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abc"), max_size=5),
        st.integers(0, 100),
        st.integers(0, 3_000_000_000),
        st.integers(1, 3),
    ),
    max_size=40,
)


def make(stacks: list[tuple[list[str], float]], *, name: str = "") -> Profile:
    builder = ProfileBuilder(name=name)
    for path, weight in stacks:
        frames = [builder.frame(Frame(text, text, f"{text}.py", 1, "app")) for text in path]
        builder.sample(builder.stack(frames), weight)
    return builder.build()


def timed(rows: list[tuple[list[str], int, int, int]]) -> Profile:
    builder = ProfileBuilder(name="timed")
    for path, weight, at, thread in rows:
        stack = builder.stack([builder.frame(Frame(text)) for text in path])
        builder.sample(
            stack,
            weight,
            time=START + at,
            thread=thread,
            labels={"state": path[-1] if path else ""},
        )
    return builder.build()


@given(SAMPLES, st.sampled_from([0.0, 0.05, 0.5]))
@settings(max_examples=100, deadline=None)
def test_time_order_keeps_every_weight_and_lanes_do_not_mix(
    rows: list[tuple[list[str], int, int, int]], smallest: float
) -> None:
    profile = timed(rows)
    boxes = layout_in_time(profile, smallest=smallest)
    assert boxes.total == pytest.approx(profile.total())
    assert boxes.own.sum() + boxes.pruned.sum() == pytest.approx(profile.total())
    inside = np.bincount(boxes.parent[1:], boxes.weight[1:], len(boxes.parent))
    np.testing.assert_allclose(boxes.weight, boxes.own + boxes.pruned + inside, atol=1e-6)
    right = boxes.x + boxes.weight
    assert (boxes.x[1:] >= boxes.x[boxes.parent[1:]] - 1e-6).all()
    assert (right[1:] <= right[boxes.parent[1:]] + 1e-6).all()
    threads = {thread for _, weight, _, thread in rows if weight}
    if len({thread for *_, thread in rows}) > 1 and not smallest:
        assert int((boxes.depth == 1).sum()) == len(threads)


def test_equal_neighbours_join_and_others_do_not() -> None:
    rows = [(["a"], 5, 1, 1), (["a"], 5, 2, 1), (["b"], 2, 3, 1), (["a"], 5, 4, 1)]
    boxes = layout_in_time(timed(rows))
    assert boxes.weight.tolist() == [17, 10, 2, 5]
    assert boxes.x.tolist() == [0, 0, 10, 12]


def test_a_long_profile_stays_within_the_boxes_of_a_page() -> None:
    random = np.random.default_rng(1)
    builder = ProfileBuilder()
    frames = [builder.frame(Frame(f"f{index}")) for index in range(30)]
    stacks = [builder.stack(random.choice(frames, 25).tolist()) for _ in range(50)]
    count = 30_000
    builder.samples(random.choice(stacks, count), np.ones(count), times=START + np.arange(count))
    boxes = layout_in_time(builder.build())
    assert len(boxes.frame) <= MOST_BOXES
    assert boxes.own.sum() + boxes.pruned.sum() == pytest.approx(count)


@given(SAMPLES)
@settings(max_examples=60, deadline=None)
def test_cells_part_the_samples(rows: list[tuple[list[str], int, int, int]]) -> None:
    profile = timed(rows)
    if not rows:
        with pytest.raises(ProfileError, match="no times"):
            subseconds(profile)
        return
    cells = subseconds(profile, rows=10)
    assert cells.weights.sum() == pytest.approx(profile.total())
    column, row = np.unravel_index(int(cells.weights.argmax()), cells.weights.shape)
    chosen = cells.cell(int(column), int(row))
    assert chosen.total() == pytest.approx(cells.weights.max())
    assert chosen.times is not None
    moment = (chosen.times - cells.start) % 10**9
    assert ((moment * 10 // 10**9) == row).all()
    everything = cells.between((0, 0), (cells.columns - 1, cells.rows - 1))
    assert len(everything) == len(profile)
    with pytest.raises(ProfileError, match="outside of the heatmap"):
        cells.cell(cells.columns, 0)


def test_hours_make_columns_of_several_seconds() -> None:
    cells = subseconds(timed([(["a"], 1, at * 10**9, 1) for at in (0, 3_599)]))
    assert (cells.columns, cells.seconds) == (600, 6)


def test_the_heatmap_is_a_static_picture() -> None:
    picture = plots.heatmap(timed([(["a"], 5, 0, 1), (["b"], 1, 1_500_000_000, 1)]))
    bundle = picture._repr_mimebundle_()
    assert "<script" not in bundle["text/html"]
    assert "22:13:20.000, has 5 ns" in bundle["text/plain"]


def test_the_page_has_heatmap_and_time_only_with_times() -> None:
    assert 'id="heat-data"' in html(timed([(["a"], 5, 0, 1)]))
    assert 'id="heat-data"' not in html(make([(["a"], 5)]))
    assert 'id="heat-data"' not in html(timed([(["a"], 0, 0, 1)]))  # no weight, no cells
    assert 'id="time-data"' not in html(timed([(["a"], 5, 0, 1)]), make([(["a"], 1)]))


STACKS = st.lists(
    st.tuples(st.lists(st.sampled_from("abcd"), max_size=6), st.integers(0, 99)), max_size=30
)


@given(STACKS)
@settings(max_examples=100, deadline=None)
def test_weights_by_frame_agree_with_counting(stacks: list[tuple[list[str], int]]) -> None:
    profile = make(stacks)
    own, total = by_frame(profile)
    for at, frame in enumerate(profile.frames):
        name = frame.function
        assert own[at] == sum(w for path, w in stacks if path and path[-1] == name)
        assert total[at] == sum(w for path, w in stacks if name in path)


@given(STACKS, STACKS)
@settings(max_examples=60, deadline=None)
def test_a_normalised_baseline_has_the_same_total(
    stacks: list[tuple[list[str], int]], other: list[tuple[list[str], int]]
) -> None:
    profile, baseline = make(stacks), make(other)
    boxes = layout(profile, baseline, normalized=True)
    assert boxes.before is not None
    if baseline.total() and profile.total():
        assert boxes.before[0] == pytest.approx(profile.total())


def test_stacks_of_one_side_are_stated_and_seen() -> None:
    after, before = make([(["a"], 60), (["new"], 40)]), make([(["a"], 60), (["gone"], 20)])
    picture = svg(after, before, widths="both")
    assert "40.0 % in stacks that the baseline lacks" in picture
    assert "25.0 % of the baseline in stacks that are gone" in picture
    assert "only in the baseline" in picture
    widths = {
        match[1]: float(match[2])
        for match in re.finditer(r"<title>(\w+)\n.*?width=\"([\d.]+)\"", picture, re.DOTALL)
    }
    assert widths["gone"] == pytest.approx(1198 * 20 / 180, abs=1)
    assert "<title>gone" not in svg(after, before)


def test_lines_are_counted_and_listed_with_their_source(tmp_path: Path) -> None:
    source = tmp_path / "slow.py"
    source.write_text("def slow():\n    x = '<b>'\n    return x\n", encoding="utf-8")
    secret = tmp_path / "secret.txt"
    secret.write_text("password\n", encoding="utf-8")
    builder = ProfileBuilder()
    slow = builder.frame(Frame("slow", "slow", str(source), 1))
    other = builder.frame(Frame("other", "other", str(secret), 1))
    builder.sample(builder.stack([slow], [3]), 4e6)
    builder.sample(builder.stack([slow, slow], [3, 2]), 6e6)
    builder.sample(builder.stack([other], [1]), 1e6)
    profile = builder.build()
    table = by_line(profile).set_index(["function", "line"])
    assert table.loc[("slow", 2), ["self", "total"]].tolist() == [6e6, 6e6]
    assert table.loc[("slow", 3), ["self", "total"]].tolist() == [4e6, 10e6]
    view = SourceView(profile)
    text = view.text()
    assert re.search(r"6 ms +54.5 % +2 +x = '<b>'", text)
    assert "password" not in text  # only Python sources are read
    assert "source not at hand" in text
    assert "&lt;b&gt;" in view.html()
    assert "<b>" not in view.html()
    nothing = SourceView(make([(["a"], 1)]))
    assert "does not say" in nothing.text()


def test_the_tree_joins_chains_and_leaves_out_the_small() -> None:
    chain = make([(["a", "b", "c", "d"], 98), (["a", "x"], 1)])
    console = Console(width=120, file=io.StringIO())
    console.print(tree(chain))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a … 2 … d" in text
    assert "x" not in text.splitlines()[-1]
    console = Console(width=120, file=io.StringIO())
    console.print(tree(make([(["[red]a"], 5)]), make([(["[red]a"], 2)])))
    assert "+3 ns  [red]a" in console.file.getvalue()  # type: ignore[attr-defined]


def test_filters_are_read_and_wrong_ones_told() -> None:
    assert inputs.filters(["thread=2, state=b*", "x=y"]) == {"thread": "2", "state": "b*", "x": "y"}
    with pytest.raises(ProfileError, match="is not a filter"):
        inputs.filters(["thread"])
    profile = timed([(["a"], 5, 0, 1), (["b"], 3, 1, 2), (["bc"], 1, 2, 12)])
    given_ = inputs.Input(Path("x"), profile, (profile,))
    assert inputs.filtered(given_, {"thread": "2"}).total() == 3
    assert inputs.filtered(given_, {"thread": "*2"}).total() == 4
    assert inputs.filtered(given_, {"state": "b*", "thread": "12"}).total() == 1
    with pytest.raises(ProfileError, match="does not know 'stage'; filter by state, thread"):
        inputs.filtered(given_, {"stage": "rerank"})


@pytest.fixture
def collapsed(tmp_path: Path) -> Path:
    path = tmp_path / "run.txt"
    path.write_text("main;answer;rerank 60\nmain;answer 20\nmain;[x] 20\n", encoding="utf-8")
    return path


def test_the_command_draws_and_converts(
    collapsed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["flamegraph", str(collapsed)]
    assert main(command) == OK
    assert "rerank" in capsys.readouterr().out
    begins = {
        "x.svg": b"<svg",
        "x.html": b"<!DOCTYPE html>",
        "x.speedscope.html": b"<!DOCTYPE html>",
        "x.speedscope.json": b"{",
        "x.pb.gz": b"\x1f\x8b",
    }
    for name, begin in begins.items():
        assert main([*command, "--out", str(tmp_path / name), "--invert"]) == OK
        assert (tmp_path / name).read_bytes().startswith(begin), name
        capsys.readouterr()
    assert "show('callers')" in (tmp_path / "x.html").read_text(encoding="utf-8")
    for name in ("x.speedscope.json", "x.pb.gz"):
        assert main(["flamegraph", str(tmp_path / name), "--json"]) == OK
        assert json.loads(capsys.readouterr().out)["total"] == 100
    assert main([*command, "--against", str(collapsed), "--out", str(tmp_path / "d.svg")]) == OK
    assert "difference 0" in (tmp_path / "d.svg").read_text(encoding="utf-8")


def test_what_cannot_be_drawn_is_told(
    collapsed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, says in (
        (["--filter", "state=x"], "does not know 'state'"),
        (["--traces", "slow"], "is no Recording"),
        (["--out", str(tmp_path / "no" / "x.svg")], "cannot be written"),
        (["--out", str(tmp_path / "x.unknown")], "x.unknown"),
    ):
        assert main(["flamegraph", str(collapsed), *more]) == FAILED
        assert says in capsys.readouterr().err
    assert main(["flamegraph", str(tmp_path / "none.txt")]) == FAILED
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["flamegraph", str(empty)]) == FAILED
    assert "folder without files" in capsys.readouterr().err


def test_the_viewer_is_what_its_record_says() -> None:
    record = json.loads((VENDORED / "VENDORED.json").read_text(encoding="utf-8"))
    assert (record["package"], record["licence"]) == ("speedscope", "MIT")
    assert record["integrity"].startswith("sha512-")
    for name, entry in record["files"].items():
        data = (VENDORED / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], name
    assert "MIT License" in (VENDORED / "LICENSE").read_text(encoding="utf-8")


def test_the_viewer_escapes_names_and_names_no_address_to_load() -> None:
    shown = Speedscope(make([([NASTY], 5)]), NASTY)
    page = shown.html()
    assert "<script>alert" not in page
    assert "sourceMappingURL" not in page
    assert "SourceCodePro" not in page
    assert "default-src &#x27;none&#x27;" in page
    assert set(shown._repr_mimebundle_()) == {"text/html", "image/svg+xml", "text/plain"}
