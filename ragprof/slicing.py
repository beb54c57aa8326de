"""Parts of a Recording and several as one, as streams of batches in bounded memory.

A slice stays consistent: the dictionaries (series, stacks, frames) keep just what its rows use.
A merge renumbers them: equal series, frames and stacks become one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ragprof.tables import NS, SCHEMAS, TIME_COLUMN

Scan = Callable[[str, ds.Expression | None], Iterator[pa.Table]]
"""(table, filter) -> batches in the table's order."""

UNKNOWN_ID = -1
"""The id that rows get in a merge when their dictionary lacks them."""


@dataclass(frozen=True)
class Part:
    """Which rows: a half-open interval of time (ns since 1970), traces, services; None: all."""

    since: int | None = None
    until: int | None = None
    traces: Collection[str] | None = None
    services: Collection[str] | None = None


def slice_tables(scan: Scan, part: Part) -> dict[str, Iterator[pa.Table]]:
    """Batches by table of the rows of a part, dictionaries pruned; read in the order given."""
    if part.traces is not None:
        first, last = traces_interval(scan, part)
        context = Part(
            first if part.since is None else max(first, part.since),
            last if part.until is None else min(last, part.until),
            None,
            part.services,
        )
    else:
        context = part
    series = _used_series(scan, part.services)
    sources = {name: scan(name, _filter(name, part)) for name in ("spans", "logs", "samples")}
    sources["changes"] = scan("changes", _filter("changes", context))
    metrics = _filter("metrics", context)
    if series is not None:
        metrics = _and(metrics, pc.field("series_id").isin(series))
    sources["metrics"] = scan("metrics", metrics)
    sources["series"] = _keep(scan, "series", "series_id", lambda: _ids(scan, metrics, "metrics"))
    stacks = functools.cache(lambda: _ids(scan, _filter("samples", part), "samples"))
    sources["stacks"] = _keep(scan, "stacks", "stack_id", stacks)
    sources["frames"] = _keep(scan, "frames", "frame_id", lambda: _frame_ids(scan, stacks()))
    return {name: sources[name] for name in SCHEMAS}


def traces_interval(scan: Scan, part: Part) -> tuple[int, int]:
    """From the first start to just after the last end of a part's spans, ns; (0, 0) if none."""
    first: int | None = None
    last = 0
    for rows in scan("spans", _filter("spans", part)):
        start = rows["start"].cast(pa.int64())
        low = pc.min(start).as_py()
        if low is None:
            continue
        first = low if first is None else min(first, low)
        last = max(last, pc.max(pc.add(start, rows["duration_ns"])).as_py() + 1)
    return (0, 0) if first is None else (first, last)


def _filter(table: str, part: Part) -> ds.Expression | None:
    conditions = []
    time = pc.field(TIME_COLUMN[table])
    if part.since is not None:
        conditions.append(time >= pa.scalar(part.since, NS))
    if part.until is not None:
        conditions.append(time < pa.scalar(part.until, NS))
    if part.traces is not None and "trace_id" in SCHEMAS[table].names:
        conditions.append(pc.field("trace_id").isin(pa.array(sorted(part.traces), pa.string())))
    if part.services is not None and "service" in SCHEMAS[table].names:
        service = pc.field("service").cast(pa.string())
        conditions.append(service.isin(pa.array(sorted(part.services), pa.string())))
    return functools.reduce(operator.and_, conditions) if conditions else None


def _and(one: ds.Expression | None, other: ds.Expression) -> ds.Expression:
    return other if one is None else one & other


def _used_series(scan: Scan, services: Collection[str] | None) -> pa.Array | None:
    if services is None:
        return None
    ids = [
        row["series_id"]
        for rows in scan("series", None)
        for row in rows.select(["series_id", "labels"]).to_pylist()
        if dict(row["labels"] or ()).get("service", "") in services
    ]
    return pa.array(ids, pa.int64())


def _ids(scan: Scan, filter_: ds.Expression | None, table: str) -> pa.Array:
    column = {"metrics": "series_id", "samples": "stack_id"}[table]
    found = pa.array([], pa.int64())
    for rows in scan(table, filter_):
        found = pc.unique(pa.concat_arrays([found, pc.unique(rows[column])]))
    return found


def _frame_ids(scan: Scan, stacks: pa.Array) -> pa.Array:
    found = pa.array([], pa.int64())
    for rows in scan("stacks", pc.field("stack_id").isin(stacks)):
        used = pc.unique(pc.list_flatten(rows["frame_ids"]))
        found = pc.unique(pa.concat_arrays([found, used]))
    return found


def _keep(scan: Scan, table: str, column: str, ids: Callable[[], pa.Array]) -> Iterator[pa.Table]:
    yield from scan(table, pc.field(column).isin(ids()))


def merge_tables(scans: list[Scan]) -> dict[str, Iterable[pa.Table]]:
    """Batches by table of several Recordings, not sorted, with one numbering of dictionaries.

    An id stays what it was where it is still free, so merging the slices of a Recording gives
    back its ids.
    """
    series, frames, stacks = _Numbering(), _Numbering(), _Numbering()
    maps: list[dict[str, dict[int, int]]] = []
    for scan in scans:
        frame_map = _number(scan, "frames", "frame_id", frames, _frame_identity)
        stack_map = _number(
            scan, "stacks", "stack_id", stacks, functools.partial(_stack_identity, frame_map)
        )
        series_map = _number(scan, "series", "series_id", series, _series_identity)
        maps.append({"series_id": series_map, "frame_id": frame_map, "stack_id": stack_map})
    return {table: _renumbered(scans, maps, table) for table in SCHEMAS}


def _renumbered(
    scans: list[Scan], maps: list[dict[str, dict[int, int]]], table: str
) -> Iterator[pa.Table]:
    for scan, columns in zip(scans, maps, strict=True):
        yield from _renumber(scan, table, columns)


class _Numbering:
    """Identity of a dictionary row -> its id in the merge."""

    def __init__(self) -> None:
        self.ids: dict[Hashable, int] = {}
        self.taken: set[int] = set()
        self.next = 1

    def number(self, identity: Hashable, wanted: int) -> int:
        known = self.ids.get(identity)
        if known is not None:
            return known
        if wanted in self.taken:
            while self.next in self.taken:
                self.next += 1
            wanted = self.next
        self.taken.add(wanted)
        self.ids[identity] = wanted
        return wanted


def _number(
    scan: Scan,
    table: str,
    column: str,
    numbering: _Numbering,
    identity: Callable[[dict[str, Any]], Hashable],
) -> dict[int, int]:
    return {
        row[column]: numbering.number(identity(row), row[column])
        for rows in scan(table, None)
        for row in rows.to_pylist()
    }


def _frame_identity(row: dict[str, Any]) -> Hashable:
    return tuple(row[name] for name in ("function", "module", "file", "line", "origin"))


def _stack_identity(frame_map: dict[int, int], row: dict[str, Any]) -> Hashable:
    frames = tuple(frame_map.get(id_, UNKNOWN_ID) for id_ in row["frame_ids"] or ())
    return frames, tuple(row["lines"] or ())


def _series_identity(row: dict[str, Any]) -> Hashable:
    labels = frozenset(dict(row["labels"] or ()).items())
    return row["name"], labels, row["type"], row["unit"], row["temporality"]


def _renumber(scan: Scan, table: str, maps: Mapping[str, dict[int, int]]) -> Iterator[pa.Table]:
    columns = [name for name in maps if name in SCHEMAS[table].names]
    for rows in scan(table, None):
        for name in columns:
            ids = _mapped(rows[name].combine_chunks(), maps[name])
            rows = rows.set_column(rows.column_names.index(name), SCHEMAS[table].field(name), ids)
        if table == "stacks":
            rows = _renumber_frames(rows, maps["frame_id"])
        yield rows


def _renumber_frames(rows: pa.Table, frame_map: dict[int, int]) -> pa.Table:
    lists = pa.concat_arrays(rows["frame_ids"].chunks)
    ids = pa.ListArray.from_arrays(lists.offsets, _mapped(lists.values, frame_map))
    position = rows.column_names.index("frame_ids")
    return rows.set_column(position, SCHEMAS["stacks"].field("frame_ids"), ids)


def _mapped(ids: pa.Array, numbers: dict[int, int]) -> pa.Array:
    old = pa.array(numbers.keys(), pa.int64())
    new = pa.array(numbers.values(), pa.int64())
    return pc.fill_null(new.take(pc.index_in(ids, old)), UNKNOWN_ID)
