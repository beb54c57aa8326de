"""A Recording made longer: its requests again and again, under new ids.

The healthy part is repeated, then the faulty part. Each copy of a trace has ids of its own and runs
up to 3 % faster or slower; its logs and samples go with it. What has no trace is repeated by its
time, counters go on counting. Stacks, frames and series are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragprof.analysis.columns import Bools, Floats, Ints, integers
from ragprof.journal import Journal
from ragprof.recording import Recording
from ragprof.tables import NS, TIME_COLUMN

JITTER = 0.03
BEFORE, HEALTHY, FAULTY, AFTER = range(4)
Column = pa.ChunkedArray | pa.Array
IDS = ("trace_id", "span_id", "parent_span_id", "request_id")
KEYS = ("trace_key", "span_key", "parent_key")


@dataclass(frozen=True)
class Parts:
    """Which part of the Recording an instant lies in, and by how much a copy of it is moved."""

    begin: int
    split: int
    stop: int
    copies: int

    def of(self, time: Ints) -> Ints:
        return np.searchsorted([self.begin, self.split, self.stop], time, side="right")

    def shift(self, part: Ints, copy: int) -> Ints:
        healthy, faulty = self.split - self.begin, self.stop - self.split
        longer = (self.copies - 1) * healthy
        by_part = (0, copy * healthy, longer + copy * faulty, longer + (self.copies - 1) * faulty)
        return np.array(by_part)[part]


def enlarge(
    small: Recording,
    out: Path,
    rows: int,
    edges: tuple[int, int, int],
    distinct_bodies: bool = False,
    seed: int = 1,
) -> dict[str, int]:
    """Write at least `rows` spans, logs and samples each to `out`; how many of each table.

    edges: begin of the healthy part, begin and end of the faulty part, ns since 1970. Where the
    Recording has fewer logs or samples than spans, each line is logged several times and each
    sample is cut into several. distinct_bodies: no two lines of log are equal.
    """
    draw = np.random.default_rng(seed)
    tables = {name: small.table(name) for name in TIME_COLUMN}
    spans = tables["spans"]
    traces = pc.unique(spans["trace_id"])
    anchors = _anchors(spans, traces)
    anchor = {name: _anchor_of(table, name, traces, anchors) for name, table in tables.items()}
    repeated = _repeated(edges, anchor["spans"])
    parts = Parts(*edges, -(-rows // max(1, repeated)))
    counts = {"spans": 0, "logs": 0, "samples": 0, "metrics": 0}
    old = _ids(tables)
    counting = _counting(small)
    with Journal(out) as journal:
        for name in ("series", "stacks", "frames"):
            journal.append(name, small.table(name))
        changes = tables["changes"]
        journal.append("changes", _moved(changes, "changes", parts, anchor["changes"], 0))
        for copy in range(parts.copies):
            new = _new_ids(old, draw)
            speed = 1 + JITTER * draw.uniform(-1, 1, len(traces) + 1)
            speed[-1] = 1.0
            for name in ("spans", "logs", "samples"):
                table = tables[name]
                inside = _repeated(edges, anchor[name])
                each = max(1.0, rows / max(1, inside * parts.copies))
                table, at = _copy(table, name, parts, anchor[name], copy, speed, traces, each, draw)
                table = _renamed(table, old, new)
                if name == "logs" and distinct_bodies:
                    table = _distinct_bodies(table, draw)
                counts[name] += table.num_rows
                journal.append(name, _with_times(table, name, at))
            points = _points(tables["metrics"], counting, parts, anchor["metrics"], copy)
            counts["metrics"] += points.num_rows
            journal.append("metrics", _renamed_exemplars(points, old, new))
    return counts


def _counting(small: Recording) -> Bools:
    """Points of series that only count up."""
    series = small.table("series")
    cumulative = series.filter(pc.equal(series["temporality"].cast(pa.string()), "cumulative"))
    return np.isin(integers(small.table("metrics", ["series_id"])["series_id"]),
                   integers(cumulative["series_id"]))  # fmt: skip


def _repeated(edges: tuple[int, int, int], anchor: Ints) -> int:
    return int(((anchor >= edges[0]) & (anchor < edges[2])).sum())


def _anchors(spans: pa.Table, traces: pa.Array) -> Ints:
    """The first start of each trace."""
    first = np.full(len(traces), np.iinfo(np.int64).max)
    np.minimum.at(first, _index(spans["trace_id"], traces), integers(spans["start"]))
    return first


def _index(column: pa.ChunkedArray, values: pa.Array) -> Ints:
    """Where each value stands in `values`; absent: the last place beyond them."""
    found = pc.fill_null(pc.index_in(column, values), len(values))
    return np.asarray(found.to_numpy(), dtype=np.int64)


def _anchor_of(table: pa.Table, name: str, traces: pa.Array, anchors: Ints) -> Ints:
    """The instant that places a row: the first start of its trace, else its own time."""
    own = integers(table[TIME_COLUMN[name]])
    if "trace_id" not in table.column_names:
        return own
    trace = _index(table["trace_id"], traces)
    return np.where(trace < len(traces), np.append(anchors, 0)[trace], own)


def _chosen(parts: Parts, anchor: Ints, copy: int) -> tuple[Ints, Ints]:
    """Rows that this copy has, and their parts; what lies outside is there once."""
    part = parts.of(anchor)
    rows = np.flatnonzero((copy == 0) | (part == HEALTHY) | (part == FAULTY))
    return rows, part[rows]


def _copy(
    table: pa.Table,
    name: str,
    parts: Parts,
    anchor: Ints,
    copy: int,
    speed: Floats,
    traces: pa.Array,
    each: float,
    draw: np.random.Generator,
) -> tuple[pa.Table, Ints]:
    """One copy of the rows, not yet renamed, and their times; each row `each` times on average."""
    rows, part = _chosen(parts, anchor, copy)
    times = np.full(len(rows), int(each)) + (draw.random(len(rows)) < each % 1)
    number = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    rows, part, times = np.repeat(rows, times), np.repeat(part, times), np.repeat(times, times)
    table, begin = table.take(pa.array(rows)), anchor[rows]
    factor = speed[_index(table["trace_id"], traces)]
    at = integers(table[TIME_COLUMN[name]])
    moved = begin + parts.shift(part, copy)
    if name == "spans":
        end = at + integers(table["duration_ns"])
        at, end = (moved + np.floor((edge - begin) * factor).astype(np.int64) for edge in (at, end))
        return _set(table, "duration_ns", end - at), at
    later = np.zeros(len(rows), dtype=np.int64)
    if name == "samples":
        weight = integers(table["weight_ns"]) // times
        later = number * weight
        table = _set(table, "weight_ns", np.floor(weight * factor).astype(np.int64))
    else:
        later = number * 1000
    return table, moved + np.floor((at + later - begin) * factor).astype(np.int64)


def _set(table: pa.Table, column: str, values: Ints | pa.ChunkedArray) -> pa.Table:
    at = table.schema.get_field_index(column)
    field = table.schema.field(column)
    return table.set_column(
        at, field, pa.array(values) if isinstance(values, np.ndarray) else values
    )


def _with_times(table: pa.Table, name: str, at: Ints) -> pa.Table:
    return _set(table, TIME_COLUMN[name], pa.chunked_array([pa.array(at).cast(NS)]))


def _moved(table: pa.Table, name: str, parts: Parts, anchor: Ints, copy: int) -> pa.Table:
    at = integers(table[TIME_COLUMN[name]]) + parts.shift(parts.of(anchor), copy)
    return _with_times(table, name, at)


def _ids(tables: dict[str, pa.Table]) -> pa.Array:
    """All ids of traces, spans and requests."""
    found = [
        pc.unique(table[column].combine_chunks())
        for table in tables.values()
        for column in IDS
        if column in table.column_names
    ]
    ids = pc.unique(pa.concat_arrays(found))
    return ids.filter(pc.not_equal(ids, ""))


def _new_ids(old: pa.Array, draw: np.random.Generator) -> pa.Array:
    """As many random ids of the same lengths."""
    length = pc.utf8_length(old).to_numpy()
    text = draw.bytes(int(length.sum()) // 2 + 1).hex()
    ends = np.cumsum(length)
    return pa.array([text[end - n : end] for end, n in zip(ends, length, strict=True)])


def _fresh(column: Column, old: pa.Array, new: pa.Array) -> Column:
    return pc.coalesce(new.take(pc.index_in(column, old)), column)


def _renamed(table: pa.Table, old: pa.Array, new: pa.Array) -> pa.Table:
    """Rows with new ids, also where an attribute is one; the keys go, since they are hashes."""
    for column in IDS:
        if column in table.column_names:
            table = _set(table, column, _fresh(table[column], old, new))
    if "attributes" in table.column_names:
        maps = _one(table["attributes"])
        values = _fresh(maps.items, old, new)
        renamed = pa.MapArray.from_arrays(maps.offsets, maps.keys, values)
        table = _set(table, "attributes", pa.chunked_array([renamed]))
    return table.drop_columns([key for key in KEYS if key in table.column_names])


def _distinct_bodies(logs: pa.Table, draw: np.random.Generator) -> pa.Table:
    """Each line with the id of its request and a time of its own, as services often log."""
    took = pa.array(np.round(draw.exponential(100, logs.num_rows), 3)).cast(pa.string())
    parts = (logs["body"], " of ", logs["request_id"], " after ", took, " ms")
    return _set(logs, "body", pc.binary_join_element_wise(*parts, ""))


def _points(metrics: pa.Table, counting: Bools, parts: Parts, anchor: Ints, copy: int) -> pa.Table:
    """One copy of the points; what counts up goes on from where the copies before it ended."""
    part = parts.of(anchor)
    rows, chosen = _chosen(parts, anchor, copy)
    edges = [_edges(integers(metrics["series_id"]), part == one) for one in (HEALTHY, FAULTY)]
    earlier = [
        np.where(
            counting[rows], np.where(chosen == one, copy, (chosen > one) * (parts.copies - 1)), 0
        )
        for one in (HEALTHY, FAULTY)
    ]

    def counted(values: Floats, at: Callable[[Ints], Ints], times: list[Ints]) -> Floats:
        result = values[at(rows)]
        for (first, last), before in zip(edges, times, strict=True):
            result = result + before * (values[at(last[rows])] - values[at(first[rows])])
        return result

    table = metrics.take(pa.array(rows))
    values = metrics["value"].to_numpy()
    table = _set(table, "value", counted(values, lambda at: at, earlier))
    histogram = _one(metrics["histogram"])
    numbers = {
        name: counted(
            pc.struct_field(histogram, name).to_numpy(zero_copy_only=False), lambda at: at, earlier
        )
        for name in ("count", "sum")
    }
    buckets = pc.struct_field(histogram, "counts")
    length = np.asarray(pc.fill_null(pc.list_value_length(buckets), 0), dtype=np.int64)
    offset = np.asarray(buckets.offsets)[:-1]
    own = length[rows]
    place = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
    for first, last in edges:  # a series that changed its buckets does not go on counting
        same = (length[first] == length) & (length[last] == length)
        first[~same] = last[~same] = np.flatnonzero(~same)
    flat = counted(
        buckets.values.to_numpy(),
        lambda at: np.repeat(offset[at], own) + place,
        [np.repeat(before, own) for before in earlier],
    )
    taken = _one(table["histogram"])
    lists = pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(own)), pa.int32()), flat)
    made = pa.StructArray.from_arrays(
        [pa.array(numbers["count"]), pa.array(numbers["sum"]),
         pc.struct_field(taken, "bounds"), lists],
        fields=list(taken.type),
        mask=taken.is_null(),
    )  # fmt: skip
    table = _set(table, "histogram", pa.chunked_array([made]))
    return _with_times(table, "metrics", anchor[rows] + parts.shift(chosen, copy))


def _edges(series: Ints, inside: Bools) -> tuple[Ints, Ints]:
    """For each row the first and the last row of its series inside; itself when there is none."""
    first, last = np.arange(len(series)), np.arange(len(series))
    rows = np.flatnonzero(inside)
    for one in np.unique(series[rows]):
        members = rows[series[rows] == one]
        first[series == one], last[series == one] = members[0], members[-1]
    return first, last


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _renamed_exemplars(points: pa.Table, old: pa.Array, new: pa.Array) -> pa.Table:
    """Exemplars name the traces of their copy."""
    lists = _one(points["exemplars"])
    inner = lists.flatten()
    fields = {field.name: pc.struct_field(inner, field.name) for field in inner.type}
    for column in ("trace_id", "span_id"):
        fields[column] = _fresh(fields[column], old, new)
    made = pa.StructArray.from_arrays(list(fields.values()), fields=list(inner.type))
    length = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
    offsets = pa.array(np.append(0, np.cumsum(length)), pa.int32())
    again = pa.ListArray.from_arrays(offsets, made, mask=lists.is_null())
    return _set(points, "exemplars", pa.chunked_array([again]))
