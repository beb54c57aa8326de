"""The Profile model, Recording stacks as profiles, formats and comparison."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof import tables
from ragprof.profiles.content import Content
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType
from ragprof.profiles.read import profiles_of
from ragprof.profiles.samples import from_tables, with_wait_frames

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
STACKS = st.lists(st.tuples(st.lists(NAMES, max_size=6), st.integers(0, 1000)), max_size=30)


def make(stacks: list[tuple[list[str], float]], *, name: str = "") -> Profile:
    builder = ProfileBuilder(name=name)
    for path, weight in stacks:
        builder.sample(builder.stack([builder.frame(Frame(frame)) for frame in path]), weight)
    return builder.build()


def folded(profile: Profile) -> dict[tuple[str, ...], float]:
    sums: dict[tuple[str, ...], float] = {}
    for index, weight in enumerate(profile.stack_weights().tolist()):
        path = tuple(frame.function for frame in profile.stack(index))
        sums[path] = sums.get(path, 0.0) + weight
    return {path: weight for path, weight in sums.items() if weight}


def test_a_profile_is_made_only_by_its_builder_and_does_not_change() -> None:
    with pytest.raises(TypeError, match="ProfileBuilder"):
        Profile(object())
    profile = make([(["a"], 1)])
    with pytest.raises(AttributeError):
        profile.values = np.zeros((1, 1))
    with pytest.raises(ValueError, match="read-only"):
        profile.values[0, 0] = 5


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0])
def test_weights_that_cannot_be_are_refused_with_the_sample(weight: float) -> None:
    with pytest.raises(ProfileError, match=r"sample 1 has wall = .*finite and not negative"):
        make([(["a"], 1.0), (["a"], weight)])


def test_samples_and_stacks_must_point_at_something() -> None:
    builder = ProfileBuilder()
    with pytest.raises(ProfileError, match="stack 0 names a frame"):
        builder.stack([3])
    builder.sample(2, 1.0)
    with pytest.raises(ProfileError, match="sample 0 points at stack 2"):
        builder.build()
    with pytest.raises(ProfileError, match="2 values where 1"):
        builder.sample(0, 1.0, 2.0)


def test_samples_one_by_one_and_in_bulk_give_the_same_profile() -> None:
    one, many = ProfileBuilder(), ProfileBuilder()
    for builder in (one, many):
        frames = [builder.frame(Frame(name)) for name in "ab"]
        assert [builder.stack(frames), builder.stack(frames[:1])] == [0, 1]
    for index in range(4):
        one.sample(index % 2, index, time=index, thread=7, labels={"state": "xy"[index % 2]})
    from ragprof.profiles.model import Label

    many.samples(
        [0, 1, 0, 1],
        [0, 1, 2, 3],
        times=[0, 1, 2, 3],
        threads=[7] * 4,
        labels={"state": Label(np.array([0, 1, 0, 1]), ("x", "y"))},
    )
    pd.testing.assert_frame_equal(one.build().to_pandas(), many.build().to_pandas())


@given(STACKS)
def test_self_times_sum_to_the_total_and_no_total_exceeds_it(
    stacks: list[tuple[list[str], int]],
) -> None:
    profile = make([(path or ["root"], float(weight)) for path, weight in stacks])
    functions = profile.functions()
    assert functions["self"].sum() == pytest.approx(profile.total())
    assert (functions["total"] <= profile.total() * (1 + 1e-12)).all()
    assert (functions["self"] <= functions["total"]).all()


def table(name: str, rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=tables.SCHEMAS[name])


@pytest.fixture
def recorded() -> tuple[pa.Table, pa.Table, pa.Table]:
    samples = [
        {
            "time": 1_000 + index,
            "weight_ns": 10,
            "stack_id": 40 + index % 3,
            "service": "api",
            "process": 1,
            "thread": 5,
            "task": index % 2,
            "state": ["running", "awaiting"][index % 2],
            "wait": ["", "lock"][index % 2],
            "trace_id": "ab" * 16,
            "span_id": "",
            "trace_key": index % 4,
            "span_key": 0,
        }
        for index in range(12)
    ]
    stacks = [
        {"stack_id": 41, "frame_ids": [9, 7], "lines": [11, 12]},
        {"stack_id": 40, "frame_ids": [9], "lines": [11]},
    ]
    frames = [
        {"frame_id": 7, "function": "m:g", "module": "m", "file": "m.py", "line": 3},
        {"frame_id": 9, "function": "m:f", "module": "m", "file": "m.py", "line": 1},
    ]
    return table("samples", samples), table("stacks", stacks), table("frames", frames)


def test_recorded_stacks_become_a_profile(recorded: tuple[pa.Table, pa.Table, pa.Table]) -> None:
    profile = from_tables(*recorded)
    assert profile.total() == 120
    assert folded(profile) == {
        ("m:f",): 40,
        ("m:f", "m:g"): 40,
        ("(stack not recorded)",): 40,
    }
    assert profile.notes == ("4 samples lost their stack and are kept without it.",)
    assert profile.value_types == (ValueType("wall", "nanoseconds"),)
    assert profile.stack_lines.tolist()[:3] == [11, 11, 12]
    assert set(profile.labels["state"].values()) == {"running", "awaiting"}
    assert profile.where(state="running").total() == 60
    rows = profile.to_pandas()
    assert rows["time"].iloc[0] == pd.Timestamp(1_000, tz="UTC")
    assert rows["trace_id"].iloc[0] == "ab" * 16


def test_traces_are_filtered_and_weights_are_per_request(
    recorded: tuple[pa.Table, pa.Table, pa.Table],
) -> None:
    profile = from_tables(*recorded, trace_keys=[1, 2], requests=2)
    assert len(profile) == 6
    assert profile.total() == 30
    from_pandas = from_tables(
        *(part.to_pandas() for part in recorded), trace_keys={1, 2}, requests=2
    )
    assert folded(from_pandas) == folded(profile)
    assert len(from_tables(*recorded, trace_keys=[])) == 0
    with pytest.raises(ProfileError, match="positive number of requests"):
        from_tables(*recorded, requests=0)


def test_what_a_stack_waits_on_becomes_its_innermost_frame(
    recorded: tuple[pa.Table, pa.Table, pa.Table],
) -> None:
    profile = with_wait_frames(from_tables(*recorded))
    assert profile.total() == 120
    sums = folded(profile)
    assert sums["m:f", "[awaiting lock]"] == 20
    assert sums["m:f",] == 20


def evented(events: list[tuple[str, int, float]]) -> str:
    return json.dumps(
        {
            "shared": {"frames": [{"name": "a"}, {"name": "b", "file": "x.py", "line": 4}]},
            "profiles": [
                {
                    "type": "evented",
                    "name": "main",
                    "unit": "milliseconds",
                    "startValue": 0,
                    "endValue": 10,
                    "events": [{"type": t, "frame": f, "at": at} for t, f, at in events],
                }
            ],
        }
    )


def speedscope(text: str) -> list[Profile]:
    return profiles_of(Content(text.encode()), format="speedscope")


def test_speedscope_evented_profiles_become_samples() -> None:
    (profile,) = speedscope(evented([("O", 0, 0), ("O", 1, 2), ("C", 1, 5), ("C", 0, 9)]))
    assert folded(profile) == {("a",): 6e6, ("a", "b"): 3e6}  # nothing is open at the end
    assert profile.frames[1] == Frame("b", "x", "x.py", 4, "app")
    assert profile.value_types == (ValueType("wall", "nanoseconds"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1, column 2"),
        ("[" * 100_000, "nests deeper"),
        ("[]", "the document is a list"),
        ('{"shared": {"frames": []}}', "profiles is missing"),
        (
            '{"shared": {"frames": []}, "profiles": [{"type": "sampled", "unit": "none"}]}',
            r"profiles\[0\].samples is missing",
        ),
        (evented([("C", 0, 1)]), r"events\[0\] closes"),
        (evented([("O", 0, 5), ("C", 0, 1)]), r"events\[1\] at 1.0 comes before"),
        (evented([("O", 9, 5)]), r"profiles\[0\].events\[0\] names frame 9"),
        (evented([("O", 0, 0), ("C", 0, 5)]).replace("10", "NaN"), ""),
    ],
)
def test_speedscope_names_the_field_that_is_wrong(text: str, says: str) -> None:
    if not says:  # a NaN end only means that nothing lies after the last event
        assert speedscope(text)[0].total() == 5e6
        return
    with pytest.raises(ProfileError, match=says):
        speedscope(text)
