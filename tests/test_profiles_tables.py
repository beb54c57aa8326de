"""A profile as tables: pandas by sample and by stack, SQL, and the public names."""

from __future__ import annotations

import pandas as pd
import pytest

import ragprof as rp
from ragprof.profiles.combine import combined
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType
from ragprof.query import QueryError

KINDS = [ValueType("wall", "nanoseconds"), ValueType("alloc_space", "bytes")]


@pytest.fixture
def profile() -> Profile:
    builder = ProfileBuilder(KINDS, name="run")
    outer, inner = builder.frame(Frame("f", "m", "m.py", 1)), builder.frame(Frame("g"))
    stacks = [builder.stack([outer], [3]), builder.stack([outer, inner], [4, 9]), builder.stack([])]
    for number in range(6):
        builder.sample(
            stacks[number % 3],
            10,
            number,
            time=1_000_000_000 * number if number else None,
            thread=number % 2 + 1,
            labels={"state": "running" if number % 2 else ""},
        )
    return builder.build()


def test_one_row_per_sample(profile: Profile) -> None:
    rows = profile.to_pandas()
    assert list(rows) == [
        "stack",
        "wall_nanoseconds",
        "alloc_space_bytes",
        "time",
        "thread",
        "state",
    ]
    assert rows["stack"].tolist()[:3] == [("f",), ("f", "g"), ()]
    assert pd.isna(rows["time"].iloc[0])
    assert rows["time"].iloc[2] == pd.Timestamp(2, unit="s", tz="UTC")
    wide = profile.to_pandas(frames="columns")
    assert wide[["frame_0", "frame_1"]].astype(str).values.tolist()[:3] == [
        ["f", ""],
        ["f", "g"],
        ["", ""],
    ]


def test_one_row_per_stack(profile: Profile) -> None:
    rows = profile.to_pandas(by="stack", frames="columns")
    assert rows["wall_nanoseconds"].tolist() == [20, 20, 20]
    assert rows["alloc_space_bytes"].tolist() == [3, 5, 7]
    assert profile.to_pandas(by="stack")["stack"].tolist() == [("f",), ("f", "g"), ()]


def test_times_without_a_calendar_are_durations() -> None:
    builder = ProfileBuilder(clock="start")
    builder.sample(builder.stack([]), 1, time=5_000)
    profile = builder.build()
    assert profile.to_pandas()["time"].iloc[0] == pd.Timedelta(5_000, unit="ns")
    assert len(profile.sql("select * from samples where time > interval 4 microseconds")) == 1


def test_sql_reads_samples_stacks_and_frames(profile: Profile) -> None:
    own = profile.sql(
        """
        with leaf as (
          select stack_id, last(frame_id order by depth) as frame_id, last(line order by depth) line
          from stacks group by stack_id
        )
        select function, leaf.line, sum(wall_nanoseconds) as own
        from samples join leaf using (stack_id) join frames using (frame_id)
        group by all order by function
        """
    )
    assert own.values.tolist() == [["f", 3, 20.0], ["g", 9, 20.0]]
    assert profile.sql("select max(time) as t from samples where state = 'running'")["t"][
        0
    ] == pd.Timestamp(5, unit="s", tz="UTC")
    for query in ("copy samples to 'x.csv'", "create table t (a int)", "select 1; select 2"):
        with pytest.raises(QueryError):
            profile.sql(query)
    assert profile.sql("select count(*) as n from frames")["n"].tolist() == [2]
    assert len(ProfileBuilder().build().sql("select * from frames")) == 0


def test_profiles_of_one_kind_are_combined_and_others_are_not(profile: Profile) -> None:
    whole = combined([profile.named("a"), profile.named("b")])
    assert whole.total() == 2 * profile.total()
    assert set(whole.labels["profile"].values()) == {"a", "b"}
    assert whole.where(profile="a").total() == profile.total()
    with pytest.raises(ProfileError, match="cannot be one profile"):
        combined([profile, ProfileBuilder(KINDS[:1]).build()])


def test_read_profile_is_public() -> None:
    assert "read_profile" in rp.__all__
    assert rp.read_profile.__module__ == "ragprof.profiles.read"
