"""Stacks of a Recording (tables samples, stacks, frames) as a Profile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragprof.profiles.model import (
    Floats,
    Frame,
    Ints,
    Label,
    Profile,
    ProfileBuilder,
    ProfileError,
    ValueType,
)

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("service", "state", "wait", "trace_id", "span_id")
NOT_RECORDED = Frame("(stack not recorded)")


def from_tables(
    samples: pa.Table | pd.DataFrame,
    stacks: pa.Table | pd.DataFrame,
    frames: pa.Table | pd.DataFrame,
    *,
    trace_keys: Iterable[int] | None = None,
    requests: float | None = None,
    name: str = "",
) -> Profile:
    """The samples as a Profile of wall nanoseconds; tables as in `ragprof.tables`.

    ``trace_keys`` keeps only the samples of these traces. ``requests`` divides every weight, so
    that the profile reads "per request" and profiles of unequal numbers of requests compare. A
    sample whose stack was not recorded (a recorder killed in mid-write) keeps its weight under
    ``(stack not recorded)``. Raises `ProfileError` on negative weights.
    """
    if requests is not None and not requests > 0:
        raise ProfileError(
            f"weights per request need a positive number of requests, not {requests}."
        )
    table = _arrow(samples)
    if trace_keys is not None:
        wanted = pa.array(np.fromiter(trace_keys, dtype=np.int64))
        table = table.filter(pc.is_in(table["trace_key"], value_set=wanted))
    builder = ProfileBuilder([ValueType("wall", "nanoseconds")], name=name)
    used = np.unique(_ints(table["stack_id"]))
    ids, targets = _add_stacks(builder, _arrow(stacks), _arrow(frames), used)

    stack_ids = _ints(table["stack_id"])
    place = np.searchsorted(ids, stack_ids)
    found = (place < len(ids)) & (
        ids[np.minimum(place, len(ids) - 1)] == stack_ids if len(ids) else False
    )
    stack_of = np.zeros(len(stack_ids), dtype=np.int64)
    stack_of[found] = targets[place[found]]
    if not found.all():
        stack_of[~found] = builder.stack([builder.frame(NOT_RECORDED)])
        builder.note(f"{int((~found).sum())} samples lost their stack and are kept without it.")
    weights: Floats = _ints(table["weight_ns"]).astype(np.float64)
    columns = set(table.column_names)
    builder.samples(
        stack_of,
        weights / requests if requests else weights,
        times=_ints(table["time"].cast(pa.int64())) if "time" in columns else None,
        threads=_ints(table["thread"]) if "thread" in columns else None,
        tasks=_ints(table["task"]) if "task" in columns else None,
        labels={label: _label(table[label]) for label in LABELS if label in columns},
    )
    return builder.build()


def with_wait_frames(profile: Profile) -> Profile:
    """The profile with what a sample waits on as its innermost frame, such as ``[awaiting lock]``.

    A flame graph of wall time then tells waiting from work. Running samples stay as they are; a
    profile without the label ``state`` comes back unchanged.
    """
    if "state" not in profile.labels:
        return profile
    states = profile.labels["state"]
    waits = profile.labels.get("wait", Label(np.zeros(len(profile), dtype=np.int64), ("",)))
    builder = ProfileBuilder(profile.value_types, name=profile.name, clock=profile.clock)
    for text in profile.notes:
        builder.note(text)
    for frame in profile.frames:
        builder.frame(frame)
    combined = (profile.sample_stacks * len(states.vocabulary) + states.codes) * len(
        waits.vocabulary
    ) + waits.codes
    distinct, inverse = np.unique(combined, return_inverse=True)
    targets = np.zeros(len(distinct), dtype=np.int64)
    for index, code in enumerate(distinct.tolist()):
        rest, wait = divmod(code, len(waits.vocabulary))
        stack, state = divmod(rest, len(states.vocabulary))
        low, high = profile.stack_offsets[stack], profile.stack_offsets[stack + 1]
        path = profile.stack_frames[low:high].tolist()
        lines = profile.stack_lines[low:high].tolist()
        text = states.vocabulary[state]
        if text in ("awaiting", "waiting"):
            path.append(builder.frame(Frame(f"[{text} {waits.vocabulary[wait]}".rstrip() + "]")))
            lines.append(0)
        targets[index] = builder.stack(path, lines)
    builder.samples(
        targets[inverse],
        profile.values,
        times=profile.times,
        threads=profile.threads,
        tasks=profile.tasks,
        labels=profile.labels,
    )
    return builder.build()


def _add_stacks(
    builder: ProfileBuilder, stacks: pa.Table, frames: pa.Table, used: Ints
) -> tuple[Ints, Ints]:
    """Adds the used stacks; their ids in the Recording, ascending, and in the builder."""
    stacks = stacks.filter(pc.is_in(stacks["stack_id"], value_set=pa.array(used)))
    ids, first = np.unique(_ints(stacks["stack_id"]), return_index=True)
    stacks = stacks.take(pa.array(first))
    paths = stacks["frame_ids"].combine_chunks()
    path_ids = _ints(pc.list_flatten(paths))
    lengths = _ints(pc.fill_null(pc.list_value_length(paths), 0))
    lines = np.zeros(len(path_ids), dtype=np.int64)
    if "lines" in stacks.column_names:
        flat = _ints(pc.list_flatten(stacks["lines"].combine_chunks()))
        if len(flat) == len(lines):
            lines = flat

    needed = np.unique(path_ids)
    rows = frames.filter(pc.is_in(frames["frame_id"], value_set=pa.array(needed))).to_pylist()
    known = {row["frame_id"]: _frame(row) for row in rows}
    of_frame = np.array(
        [
            builder.frame(known.get(frame, Frame(f"(frame {frame} not recorded)")))
            for frame in needed.tolist()
        ],
        dtype=np.int64,
    )
    renamed = of_frame[np.searchsorted(needed, path_ids)] if len(path_ids) else path_ids
    return ids, builder.stacks(renamed, lines, lengths)


def _frame(row: dict[str, Any]) -> Frame:
    return Frame(
        row.get("function") or "(unknown)",
        row.get("module") or "",
        row.get("file") or "",
        int(row.get("line") or 0),
        row.get("origin") or "",
    )


def _label(column: pa.ChunkedArray) -> Label:
    encoded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return Label(_ints(encoded.indices), tuple(encoded.dictionary.to_pylist()))


def _ints(column: pa.Array | pa.ChunkedArray) -> Ints:
    filled = pc.fill_null(column, 0)
    return np.asarray(
        filled.to_numpy(zero_copy_only=False)
        if isinstance(filled, pa.Array)
        else filled.to_numpy(),
        dtype=np.int64,
    )


def _arrow(table: pa.Table | pd.DataFrame) -> pa.Table:
    return (
        table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    )
