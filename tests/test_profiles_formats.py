"""The formats of profiles: told apart, read from files of the real tools, written, read again."""

from __future__ import annotations

import gzip
import json
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ragprof as rp
from ragprof.profiles import registry
from ragprof.profiles.content import Content
from ragprof.profiles.formats import collapsed
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType
from ragprof.profiles.read import profiles_of, read_profile, read_profiles
from ragprof.profiles.write import LossWarning, encoded, losses

sys.path.insert(0, str(Path(__file__).parent / "profiles"))

import same
import snapshots

FILES = snapshots.FILES
NAMES = [path.name for path in snapshots.files()]
WRITTEN = [name for name, one in registry.all_formats().items() if one.write]


def again(profile: Profile, format: str) -> Profile:
    """The profile written and read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        data = encoded(profile, format, alpha=True)
    (back,) = profiles_of(Content(data), format=format)
    return back


def text(content: str, name: str = "x") -> Profile:
    (profile,) = profiles_of(Content(content.encode(), name))
    return profile


# --- files by the real tools --------------------------------------------------------------------


def test_every_format_has_a_file_by_the_real_tool_or_is_our_own() -> None:
    known = {registry.detected(Content.of_file(path)).name for path in snapshots.files()}
    assert known == set(registry.all_formats()) - {"otlp"}  # no tool writes OTLP files yet


@pytest.mark.parametrize("name", NAMES)
def test_exactly_one_format_knows_a_file(name: str) -> None:
    content = Content.of_file(FILES / name)
    nameless = Content(content.data)
    fitting = [one.name for one in registry.all_formats().values() if one.recognises(nameless)]
    assert len(fitting) == 1, fitting


@pytest.mark.parametrize("name", NAMES)
def test_a_file_reads_as_its_snapshot_says(name: str) -> None:
    expected = (snapshots.SNAPSHOTS / f"{name}.txt").read_text(encoding="utf-8")
    assert snapshots.snapshot(FILES / name) == expected


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("name", NAMES)
def test_read_write_read_says_the_same(name: str, format: str) -> None:
    profile = read_profile(FILES / name, trusted=True)
    back = again(profile, format)
    assert back.total() == pytest.approx(profile.total(), rel=1e-9)
    if format == "collapsed":
        assert sum(same.functions(back).values()) == pytest.approx(profile.total(), rel=1e-9)
        return
    without = {
        "speedscope": ("lines", "time", "thread", "task", "labels"),
        "chrome": ("lines", "time"),
        "pprof": (),
        "otlp": ("time",) if profile.clock == "start" else (),
    }[format]
    weights, expected = (same.rows(one, without=without, folded=True) for one in (back, profile))
    assert weights.keys() == expected.keys()
    for key, weight in expected.items():
        assert weights[key] == pytest.approx(weight, abs=len(profile) + 1)


# --- one recording in several formats -----------------------------------------------------------


def test_a_pyinstrument_session_says_the_same_in_all_its_formats() -> None:
    session = read_profile(FILES / "pyinstrument.pyisession")
    expected = same.functions(session)
    for name in ("pyinstrument.json", "pyinstrument.speedscope.json"):
        found = same.functions(read_profile(FILES / name))
        assert found.keys() == expected.keys()
        for stack, weight in expected.items():
            assert found[stack] == pytest.approx(weight, abs=10_000)  # six digits of a second
    statistics = read_profile(FILES / "pyinstrument.pstats", trusted=True)
    own = session.functions().groupby("function")["self"].sum()
    found = statistics.functions().groupby("function")["self"].sum()
    assert statistics.total() == pytest.approx(session.total(), rel=1e-6)
    for function, weight in own[own > 0].items():
        assert found[function] == pytest.approx(weight, rel=1e-6)


def test_a_py_spy_recording_says_the_same_in_all_its_formats() -> None:
    still = {
        name: read_profile(FILES / f"pyspy_still.{name}")
        for name in ("raw.txt", "speedscope.json", "chrometrace.json")
    }
    assert still["raw.txt"].value_types == (ValueType("samples", "count"),)
    assert still["speedscope.json"].value_types == (ValueType("wall", "nanoseconds"),)
    for profile in still.values():
        shares = same.rows(profile, without=("time", "task", "labels"), folded=True)
        expected = same.rows(still["raw.txt"], without=("time", "task", "labels"), folded=True)
        assert shares.keys() == expected.keys()  # functions, files, lines and threads
        assert set(profile.labels["thread_name"].values()) == {"MainThread", "indexer; <b>"}
        for weight in shares.values():
            assert weight / profile.total() == pytest.approx(0.5, abs=0.02)
    dump = read_profile(FILES / "pyspy.dump.json")
    assert (
        same.rows(dump, without=("time", "task", "labels"), folded=True).keys() == expected.keys()
    )
    assert set(dump.labels["state"].values()) == {"waiting"}


def test_memray_says_the_same_in_all_its_formats() -> None:
    table = read_profile(FILES / "memray.csv")
    graph = read_profile(FILES / "memray.gprof2dot.json")
    memory = read_profile(FILES / "memray.speedscope.json", profile="Memory")
    assert same.functions(table) == same.functions(graph) == same.functions(memory)
    count = read_profile(FILES / "memray.speedscope.json", profile=1)
    assert count.total() == table.total(1)


def test_perf_says_what_inferno_makes_of_it() -> None:
    perf = read_profile(FILES / "perf.txt")
    inferno = read_profile(FILES / "inferno.folded")
    assert inferno.total() == perf.total()
    # inferno puts the command on top, and has its own words for unknown frames.
    leaves = Counter[str]()
    for one in (perf, inferno):
        sign = 1 if one is perf else -1
        for stack, weight in same.functions(one).items():
            if not stack[-1].startswith("["):
                leaves[stack[-1]] += sign * weight
    assert not any(leaves.values())


def test_mojo_of_both_versions_and_with_memory_agree() -> None:
    third, fourth = (read_profile(FILES / f"austin_{version}.mojo") for version in (3, 4))
    assert same.functions(third) == same.functions(fourth)
    assert Content.of_file(FILES / "austin_4.mojo").data[3] == 4
    kinds = [one.value_types[0] for one in read_profiles(FILES / "austin_full_3.mojo")]
    assert kinds == [
        ("wall", "nanoseconds"),
        ("cpu", "nanoseconds"),
        ("alloc_space", "bytes"),
    ]


def test_go_s_pprof_has_labels_inlined_lines_and_value_types() -> None:
    cpu = read_profile(FILES / "go_cpu.pb.gz")
    assert [tuple(kind) for kind in cpu.value_types] == [
        ("cpu", "nanoseconds"),
        ("samples", "count"),
    ]
    assert set(cpu.labels["route"].values()) == {"/price"}
    assert any(stack[-2:] == ("main.price", "main.half") for stack in same.functions(cpu))
    heap = read_profile(FILES / "go_heap.pb.gz")
    assert heap.value_types[0] == ValueType("inuse_space", "bytes")  # the default of the file
    assert len(heap.value_types) == 4


# --- written and read again ---------------------------------------------------------------------


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles())
def test_pprof_carries_everything(profile: Profile) -> None:
    back = again(profile, "pprof")
    assert same.rows(back) == same.rows(profile)
    assert back.value_types == profile.value_types
    assert not losses(profile, registry.named("pprof"))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles())
def test_otlp_carries_everything_but_times_that_are_not_utc(profile: Profile) -> None:
    back = again(profile, "otlp")
    without = ("time",) if profile.clock == "start" else ()
    assert same.rows(back, without=without) == same.rows(profile, without=without)
    assert back.value_types == profile.value_types or not len(profile)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles())
def test_speedscope_carries_stacks_files_and_every_weight(profile: Profile) -> None:
    back = again(profile, "speedscope")
    without = ("lines", "time", "thread", "task", "labels")
    assert same.rows(back, without=without) == same.rows(profile, without=without)
    assert back.value_types == profile.value_types
    assert back.name == profile.name or not profile.name


def test_a_function_may_be_called_as_another_exporter_calls_its_callers_time() -> None:
    """pyinstrument's name for it is special in pyinstrument's files only."""
    (profile,) = profiles_of(Content(b"[self] 3\nmain;[self] 4\n"), format="collapsed")
    assert same.rows(again(profile, "speedscope")) == same.rows(profile)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles())
def test_chrome_carries_stacks_threads_and_labels(profile: Profile) -> None:
    if not profile.total():
        with pytest.raises(ProfileError, match="no event of it lasts"):
            again(profile, "chrome")
        return
    back = again(profile, "chrome")
    assert same.rows(back, without=("lines", "time"), folded=True) == same.rows(
        profile, without=("lines", "time"), folded=True
    )
    assert back.clock == profile.clock or profile.times is None


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles(same.PLAIN))
def test_collapsed_carries_the_functions(profile: Profile) -> None:
    if profile.total():  # else there is no line in the file
        assert same.functions(again(profile, "collapsed")) == same.functions(profile)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles(), st.sampled_from(WRITTEN), st.floats(0.1, 1e3))
def test_totals_survive_every_format(profile: Profile, format: str, factor: float) -> None:
    scaled = profile.scaled(factor)
    if format in ("chrome", "collapsed") and not scaled.total():
        return
    back = again(scaled, format)
    whole = format in ("pprof", "otlp") or scaled.total() >= 1e6
    most = 0.5001 if whole else 1e-2 * len(profile)  # Chrome counts in fractions of microseconds
    assert back.total() == pytest.approx(scaled.total(), rel=1e-9, abs=most)


def test_what_a_format_cannot_carry_is_said(tmp_path: Path) -> None:
    builder = ProfileBuilder(same.KINDS)
    frame = builder.frame(Frame("m:f", "m", "src/m.py", 3))
    builder.sample(
        builder.stack([frame], [5]), 10, 4, time=5, thread=1, task=2, labels={"state": "running"}
    )
    builder.note("Half of the samples were missed.")
    profile = builder.build()
    with pytest.warns(LossWarning) as caught:
        profile.to_collapsed(tmp_path / "x.folded")
    said = str(caught[0].message)
    for part in ("alloc_space", "source files", "lines", "time of each", "tasks", "state", "notes"):
        assert part in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        profile.to_pprof(tmp_path / "x.pb.gz")
        again = read_profile(tmp_path / "x.pb.gz")
    assert again.notes == profile.notes
    assert again.frames == profile.frames or again.frames[0].origin == "app"


def test_a_file_is_written_by_its_name_or_by_the_method(tmp_path: Path) -> None:
    builder = ProfileBuilder(name="run")
    builder.sample(builder.stack([builder.frame(Frame("f")), builder.frame(Frame("g"))]), 1e9)
    profile = builder.build()
    for name, format in {
        "a.speedscope.json": "speedscope",
        "a.pb.gz": "pprof",
        "a.collapsed": "collapsed",
        "a.trace.json": "chrome",
    }.items():
        path = profile.write(tmp_path / name)
        assert path == tmp_path / name
        content = Content.of_file(path)
        assert registry.detected(content).name == format
        assert rp.read_profile(path).total() == 1e9
    assert profile.to_chrome(tmp_path / "b").exists()
    assert profile.to_speedscope(tmp_path / "c").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["a.speedscope.json", "a.pb.gz", "a.collapsed", "a.trace.json", "b", "c"]
    )
    with pytest.raises(ProfileError, match=r"names no format that is written; names end in"):
        profile.write(tmp_path / "x.dat")
    with pytest.raises(ProfileError, match="read, not written"):
        profile.write(tmp_path / "x", format="gecko")
    with pytest.raises(ProfileError, match=r"alpha=True"):
        profile.to_otlp(tmp_path / "x.otlp")
    assert rp.read_profile(profile.to_otlp(tmp_path / "x.otlp", alpha=True)).total() == 1e9
    with pytest.raises(ProfileError, match="cannot be written"):
        profile.write(tmp_path / "no" / "a.pb.gz")


# --- several profiles in one file ---------------------------------------------------------------


def test_the_threads_of_a_file_are_one_profile_or_chosen() -> None:
    path = FILES / "pyspy.speedscope.json"
    whole = read_profile(path)
    parts = read_profiles(path)
    assert len(parts) == 2
    assert whole.total() == pytest.approx(sum(part.total() for part in parts))
    assert set(whole.labels["profile"].values()) == {part.name for part in parts}
    assert read_profile(path, profile=1).total() == parts[1].total()
    assert read_profile(path, profile=parts[0].name).total() == parts[0].total()
    with pytest.raises(ProfileError, match=r"has no profile 'x'; it has 0 'Thread"):
        read_profile(path, profile="x")


def test_profiles_that_measure_other_things_are_named_in_a_note() -> None:
    memory = read_profile(FILES / "memray.speedscope.json")
    assert memory.value_types == (ValueType("space", "bytes"),)
    assert memory.notes == ("The file also has samples in 'Allocations': choose with profile=.",)


# --- collapsed stacks ---------------------------------------------------------------------------


def test_collapsed_in_every_encoding_with_comments_and_stray_lines() -> None:
    lines = "# made by hand\r\na;b c 3\r\n\r\n// more\r\na 1.5\r\nnot a stack\r\na;é 2 \r\n"
    for data in (
        lines.encode(),
        b"\xef\xbb\xbf" + lines.encode(),
        lines.encode("utf-16"),
        lines.encode("utf-16-le"),
        lines.encode("utf-16-be"),
        gzip.compress(lines.encode()),
    ):
        (profile,) = profiles_of(Content(data))
        assert profile.total() == 6.5
        assert set(same.functions(profile)) == {("a", "b c"), ("a",), ("a", "é")}
        assert profile.notes == (
            "1 lines are no stacks and were skipped, first line 6: 'not a stack'.",
        )


LINES = st.one_of(
    st.tuples(
        st.lists(
            st.sampled_from(["a", "b c", "é", "", "#d", "(no stack)"]), min_size=1, max_size=4
        ),
        st.sampled_from(["1", "2", "0.5", "1e3", "x", "-", "1_0", "7 ", "\u0661"]),
    ).map(lambda line: f"{';'.join(line[0])} {line[1]}"),
    st.sampled_from(["", " ", "# said", "// 5", " 5", "5", "a;b", "\r"]),
)


@settings(max_examples=200)
@given(st.lists(LINES, max_size=12), st.sampled_from([1, 3]), st.sampled_from(["\n", "\r\n"]))
def test_collapsed_says_what_its_lines_say(lines: list[str], times: int, end: str) -> None:
    whole = "".join(line + end for line in lines * times)
    expected = collapsed.parsed(whole)
    if expected.stray > len(expected.paths) or not whole:
        with pytest.raises(ProfileError, match=r"most lines are no stacks|it is empty"):
            profiles_of(Content(whole.encode()), format="collapsed")
        return
    (profile,) = profiles_of(Content(whole.encode()), format="collapsed")
    stacks = [";".join(frame.function for frame in profile.stack(at)) for at in
              profile.sample_stacks.tolist()]  # fmt: skip
    named = [
        "" if path == "(no stack)" else ";".join(name or "(unnamed)" for name in path.split(";"))
        for path in expected.paths
    ]
    assert stacks == named
    assert profile.values[:, 0].tolist() == expected.weights
    assert len(set(profile.sample_stacks.tolist())) == profile.stack_count == len(set(named))
    assert any(f"{expected.stray} lines are no stacks" in note for note in profile.notes) == bool(
        expected.stray
    )


def test_collapsed_with_two_counts_is_before_and_after() -> None:
    profile = text("a;b 3 5\na;c 0 2\n")
    assert [kind.type for kind in profile.value_types] == ["before", "after"]
    assert profile.values.tolist() == [[3, 5], [0, 2]]
    difference = read_profile(FILES / "inferno_diff.folded")
    assert difference.total(0) == read_profile(FILES / "inferno.folded").total()


@pytest.mark.parametrize("weight", ["-4", "nan", "inf"])
def test_collapsed_names_the_line_with_a_wrong_weight(weight: str) -> None:
    with pytest.raises(ProfileError, match=rf"line 2 has the weight {weight}"):
        text(f"a;b 1\na;c {weight}\n")


def test_collapsed_names_the_first_line_when_most_are_none() -> None:
    with pytest.raises(ProfileError, match="most lines are no stacks, first line 2: 'b'"):
        profiles_of(Content(b"a 1\nb\nc\n", "x.folded"))


# --- speedscope ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.0.1", "0.1.2", "0.6.0", "1.25.0", None])
def test_speedscope_of_every_version(version: str | None) -> None:
    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "shared": {"frames": [{"name": "a"}, {"name": "b", "file": "b.js", "line": 4, "col": 2}]},
        "profiles": [
            {
                "type": "sampled",
                "name": "one",
                "unit": "seconds",
                "startValue": 0,
                "endValue": 3,
                "samples": [[0, 1], [0], [0, 1]],
                "weights": [1, 0.5, 0.25],
            },
            {
                "type": "evented",
                "name": "two",
                "unit": "none",
                "startValue": 0,
                "endValue": 3,
                "events": [
                    {"type": "O", "frame": 0, "at": 0},
                    {"type": "O", "frame": 0, "at": 1},
                    {"type": "C", "frame": 0, "at": 2},
                    {"type": "C", "frame": 0, "at": 3},
                ],
            },
        ],
    }
    if version:
        document["exporter" if version > "0.2" else "version"] = (
            f"speedscope@{version}" if version > "0.2" else version
        )
    one, two = profiles_of(Content(json.dumps(document).encode()))
    assert one.value_types == (ValueType("wall", "nanoseconds"),)
    assert same.functions(one) == {("a", "b"): 1_250_000_000, ("a",): 500_000_000}
    assert two.value_types == (ValueType("samples", "count"),)
    assert same.functions(two) == {("a",): 2, ("a", "a"): 1}
    assert one.frames[1][:4] == ("b", "", "b.js", 4)


# --- Chrome trace events ------------------------------------------------------------------------


def event(phase: str, name: str, at: float, **more: object) -> dict[str, object]:
    return {"ph": phase, "name": name, "ts": at, "pid": 1, "tid": 1, **more}


def trace(*events: dict[str, object]) -> Profile:
    return text(json.dumps(list(events)))


def test_chrome_begin_end_and_complete_events_nest() -> None:
    profile = trace(
        event("B", "a", 0),
        event("X", "b", 2, dur=3),
        event("X", "c", 3, dur=1),
        event("E", "a", 10),
    )
    assert same.functions(profile) == {("a",): 7000, ("a", "b"): 2000, ("a", "b", "c"): 1000}
    assert profile.clock == "start"
    assert not profile.notes


def test_chrome_processes_threads_async_tracks_and_flows() -> None:
    profile = trace(
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "main"}},
        {"ph": "M", "name": "process_name", "pid": 2, "args": {"name": "worker"}},
        event("X", "a", 0, dur=4),
        event("X", "a", 0, dur=6, pid=2, tid=5),
        event("b", "request", 1, id="0x1", cat="net", args={"span_id": "cd" * 8}),
        event("b", "body", 2, id="0x1", cat="net"),
        event("e", "body", 3, id="0x1", cat="net"),
        event("e", "request", 9, id="0x1", cat="net"),
        event("s", "flow", 1, id=3),
        event("f", "flow", 2, id=3),
        event("C", "memory", 2, args={"value": 3}),
    )
    rows = profile.to_pandas()
    assert rows.groupby("thread")["wall_nanoseconds"].sum().to_dict() == {0: 8000, 1: 4000, 5: 6000}
    waiting = profile.where(state="async")
    assert same.functions(waiting) == {("request",): 7000, ("request", "body"): 1000}
    assert set(waiting.labels["span_id"].values()) == {"cd" * 8}
    assert set(profile.labels["thread_name"].values()) == {"", "main"}
    assert "worker" in profile.labels["process_name"].values()
    assert profile.notes == (
        "2 flows carry no time and were passed over.",
        "1 counters carry no time and were passed over.",
    )


@pytest.mark.parametrize(
    "cut",
    [
        lambda whole: whole[:-1],  # without the ]
        lambda whole: whole[:-1] + ",\n",
        lambda whole: whole[:-1] + ",]",
        lambda whole: whole[:-1] + ',{"ph": "X", "na',
        lambda whole: '{"displayTimeUnit": "ms", "traceEvents": ' + whole[:-1] + ",",
    ],
)
def test_chrome_accepts_what_chrome_accepts(cut: object) -> None:
    whole = json.dumps([event("X", "a", 0, dur=4), event("X", "b", 1, dur=1)])
    profile = text(cut(whole))  # type: ignore[operator]
    assert same.functions(profile) == {("a",): 3000, ("a", "b"): 1000}


def test_chrome_says_what_did_not_fit_together() -> None:
    profile = trace(
        event("E", "x", 0),
        event("B", "a", 1),
        event("B", "b", 2),
        event("E", "a", 5),
        event("B", "c", 6),
        event("X", "d", 7, dur=3),
        event("X", "e", 9, dur=3),
    )
    assert set(profile.notes) == {
        "1 ends have no beginning and were passed over.",
        "1 slices were still open when an outer one ended.",
        "1 slices have no end and end with the trace.",
        "1 slices end after the one they began in and were cut there.",
    }


# --- told apart, refused ------------------------------------------------------------------------


def test_what_is_unknown_says_what_was_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\nworld\n")
    with pytest.raises(ProfileError) as caught:
        rp.read_profile(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    for one in registry.all_formats().values():
        assert one.title in said
        assert one.looks_for in said
    with pytest.raises(ProfileError, match="It begins as JSON but is none: line 1, column 11"):
        text('{"hello": }')
    with pytest.raises(ProfileError, match="there is no format 'nothing'; there are"):
        profiles_of(Content(b"a 1"), format="nothing")
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        rp.read_profile(tmp_path / "absent")
    with pytest.raises(ProfileError, match="it is empty"):
        text("")


def test_the_name_counts_only_when_the_content_does_not_tell() -> None:
    assert text("f 3\n", "x.folded").total() == 3  # one frame: it could be any text
    with pytest.raises(ProfileError, match="no profile format is known"):
        text("f 3\n", "x.txt")
    assert text("a;b 3\n", "x.speedscope.json").total() == 3  # the content tells
    with pytest.raises(ProfileError, match="in speedscope JSON, shared is missing"):
        text('{"hello": 1}', "x.speedscope.json")


def test_pstats_is_refused_unless_trusted() -> None:
    path = FILES / "cprofile.pstats"
    with pytest.raises(ProfileError, match="trusted=True, or --trusted"):
        rp.read_profile(path)
    profile = rp.read_profile(path, trusted=True)
    assert profile.total() > 0
    assert (profile.functions()["total"] <= profile.total() * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"shared": {"frames": [{}]}, "profiles": []}, r"shared.frames\[0\].name is missing"),
        ({"shared": {"frames": []}, "profiles": [{}]}, r"profiles\[0\].type is missing"),
        ({"shared": {"frames": []}, "profiles": []}, "has no profile in it"),
        ({"traceEvents": [{"ph": "X"}]}, "event 0.ts is null, not a number"),
        ({"traceEvents": [{"ph": "?"}]}, "event 0 has the phase '\\?'"),
        ({"traceEvents": [event("X", "a", 1, dur=-3)]}, r"event 0.dur is -3"),
        ({"frame_records": [[1, 2]], "start_call_stack": []}, r"frame_records\[0\] is not a stack"),
        (
            {"frame_records": [[["f"], "x"]], "start_call_stack": []},
            r"frame_records\[0\] is 'x', not a number",
        ),
        (
            {"root_frame": {"time": 1, "function": 3}, "sample_count": 1},
            "root_frame.function is 3, not a text",
        ),
        ([{"frames": [{}], "thread_id": 1, "active": True}], r"\[0\].frames\[0\].name is missing"),
        ({"meta": {}, "threads": [{}]}, r"threads\[0\].samples is missing"),
        (
            {"costs": [{"unit": "bytes"}], "functions": [], "events": [{"callchain": [0]}]},
            r"events\[0\].callchain names a function",
        ),
    ],
)
def test_a_known_format_names_the_field_at_fault(document: object, says: str) -> None:
    with pytest.raises(ProfileError, match=says):
        text(json.dumps(document))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("allocator,num_allocations,size,tid,thread_name,stack_trace\nMALLOC,1\n", "line 2 has 2"),
        (
            "allocator,num_allocations,size,tid,thread_name,stack_trace\nM,x,1,1,m,f;f;1\n",
            "line 2 has no number",
        ),
        ("# mode: wall\nP1;T1;f.py:f:1 100\nP1;T1;f.py:f:1 -5\n", "line 3 has the weights -5"),
        ("# mode: wall\nP1;T1;f.py:f:1 100\nP1;T1;f.py:f:1 2\nP1;\n", "line 4 is no sample"),
        ("p 1 2.5: 10 cpu-clock:\n\tff f+0x1 (lib)\nwhat\n", "line 3 is no frame"),
        ("p 1 2.5: 10 cpu-clock:\n\tff f+0x1 (lib)\n\nwhat\n", "line 4 heads no sample"),
    ],
)
def test_a_known_format_names_the_line_at_fault(content: str, says: str) -> None:
    with pytest.raises(ProfileError, match=says):
        text(content)


def test_perf_script_reads_python_frames_and_several_events() -> None:
    profiles = profiles_of(
        Content(
            b"# captured\npython3 10/11 [001] 5.000001: 250000 cycles:u: \n"
            b"\tffff py::price:/srv/shop.py+0x5 (/tmp/perf-10.map)\n"
            b"\t12 main+0x1 (/bin/a (deleted))\n\n"
            b"my prog 12 6.5: task-clock: \n\t1 [unknown] (/lib/x.so)\n\n"
        )
    )
    cycles, clock = profiles
    assert cycles.value_types == (ValueType("cycles", "count"),)
    assert cycles.total() == 250_000
    assert cycles.stack(0)[1][:3] == ("price", "shop", "/srv/shop.py")
    assert cycles.threads is not None
    assert cycles.threads.tolist() == [11]
    assert cycles.labels["process"].values() == ["10"]
    assert clock.total() == 1
    assert clock.labels["thread_name"].values() == ["my prog"]
    assert clock.stack(0)[0].function == "[unknown in x.so]"
    assert np.array_equal(clock.times, [6_500_000_000])
