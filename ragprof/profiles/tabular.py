"""A Profile as tables: samples or stacks as rows, functions with self and total, SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ragprof.profiles.model import NO_TIME, Frame, Ints, Profile

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def to_pandas(
    profile: Profile, by: Literal["sample", "stack"], frames: Literal["stack", "columns"]
) -> pd.DataFrame:
    """See `Profile.to_pandas`."""
    import pandas as pd

    stacks = (
        profile.sample_stacks
        if by == "sample"
        else np.flatnonzero(np.bincount(profile.sample_stacks, minlength=profile.stack_count))
    )
    columns = _frame_columns(profile, stacks) if frames == "columns" else _tuples(profile, stacks)
    if by == "stack":
        for index, name in enumerate(value_names(profile)):
            columns[name] = profile.stack_weights(index)[stacks]
        return pd.DataFrame(columns)
    for index, name in enumerate(value_names(profile)):
        columns[name] = profile.values[:, index]
    if profile.times is not None:
        nothing = profile.times == NO_TIME
        numbers = np.where(nothing, 0, profile.times)
        times = (
            pd.to_datetime(numbers, utc=True, unit="ns")
            if profile.clock == "utc"
            else pd.to_timedelta(numbers, unit="ns")
        )
        columns["time"] = pd.Series(times).mask(nothing)
    if profile.threads is not None:
        columns["thread"] = profile.threads
    if profile.tasks is not None:
        columns["task"] = profile.tasks
    for name, label in profile.labels.items():
        columns[name] = pd.Categorical(label.values())
    return pd.DataFrame(columns)


def value_names(profile: Profile) -> list[str]:
    """The columns of the values: ``wall_nanoseconds``, numbered where two are alike."""
    names: list[str] = []
    for kind in profile.value_types:
        name = f"{kind.type}_{kind.unit}".strip("_")
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    return names


def _tuples(profile: Profile, stacks: Ints) -> dict[str, Any]:
    names = {
        stack: tuple(frame.function for frame in profile.stack(stack))
        for stack in np.unique(stacks).tolist()
    }
    return {"stack": [names[stack] for stack in stacks.tolist()]}


def _frame_columns(profile: Profile, stacks: Ints) -> dict[str, Any]:
    import pandas as pd

    names = pd.Index([*(frame.function for frame in profile.frames), ""])
    codes, categories = pd.factorize(names)
    begin, end = profile.stack_offsets[stacks], profile.stack_offsets[stacks + 1]
    columns: dict[str, Any] = {}
    for depth in range(int((end - begin).max(initial=0))):
        here = begin + depth
        deep = here < end
        frame = np.where(deep, profile.stack_frames[np.where(deep, here, 0)], len(names) - 1)
        columns[f"frame_{depth}"] = pd.Categorical.from_codes(codes[frame], categories=categories)
    return columns


def functions(profile: Profile, value: int = 0) -> pd.DataFrame:
    """See `Profile.functions`."""
    import pandas as pd

    weights = profile.stack_weights(value)
    lengths = np.diff(profile.stack_offsets)
    own = np.zeros(len(profile.frames))
    leaves = lengths > 0
    np.add.at(own, profile.stack_frames[profile.stack_offsets[1:][leaves] - 1], weights[leaves])
    owners = np.repeat(np.arange(profile.stack_count), lengths)
    pairs = pd.unique(owners * max(1, len(profile.frames)) + profile.stack_frames)
    stacks, frames = np.divmod(pairs, max(1, len(profile.frames)))
    total = np.bincount(frames, weights=weights[stacks], minlength=len(profile.frames))
    table = pd.DataFrame(profile.frames, columns=list(Frame._fields)).drop(columns="origin")
    table["self"], table["total"] = own, total
    table = table[table["total"] > 0]
    return table.sort_values(
        ["self", "total", "function"], ascending=[False, False, True], ignore_index=True
    )


def sql(profile: Profile, query: str) -> pd.DataFrame:
    """See `Profile.sql`."""
    import pyarrow.dataset as ds

    from ragprof.query import query as run

    tables = {"samples": _samples(profile), "stacks": _stacks(profile), "frames": _frames(profile)}
    return run({name: ds.dataset(table) for name, table in tables.items()}, query)


def _samples(profile: Profile) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, pa.Array] = {
        "sample": pa.array(np.arange(len(profile))),
        "stack_id": pa.array(profile.sample_stacks),
    }
    for index, name in enumerate(value_names(profile)):
        columns[name] = pa.array(profile.values[:, index])
    if profile.times is not None:
        type_ = pa.timestamp("ns", tz="UTC") if profile.clock == "utc" else pa.duration("ns")
        nothing = profile.times == NO_TIME
        columns["time"] = pa.array(np.where(nothing, 0, profile.times), mask=nothing).cast(type_)
    if profile.threads is not None:
        columns["thread"] = pa.array(profile.threads)
    if profile.tasks is not None:
        columns["task"] = pa.array(profile.tasks)
    for name, label in profile.labels.items():
        vocabulary = pa.array(list(label.vocabulary), pa.string())
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(label.codes), vocabulary)
    return pa.table(columns)


def _stacks(profile: Profile) -> pa.Table:
    import pyarrow as pa

    lengths = np.diff(profile.stack_offsets)
    owners = np.repeat(np.arange(profile.stack_count), lengths)
    return pa.table(
        {
            "stack_id": owners,
            "depth": np.arange(len(owners)) - profile.stack_offsets[owners],
            "frame_id": profile.stack_frames,
            "line": profile.stack_lines,
        }
    )


def _frames(profile: Profile) -> pa.Table:
    import pyarrow as pa

    rows = list(zip(*profile.frames, strict=True)) or [()] * len(Frame._fields)
    columns = {name: list(row) for name, row in zip(Frame._fields, rows, strict=True)}
    schema = pa.schema(
        [(name, pa.int64() if name == "line" else pa.string()) for name in Frame._fields]
    )
    table = pa.table(columns, schema=schema)
    return table.add_column(0, "frame_id", pa.array(np.arange(len(profile.frames))))
