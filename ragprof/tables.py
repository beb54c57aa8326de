"""The five tables of one time window, as Arrow schemas: the contract of the whole library.

Sources fill these tables, analysis only reads them. Times are UTC, in nanoseconds. Ids are
lower-case hex without dashes; an absent id is the empty string and has key 0.

``stacks`` and ``frames`` are the dictionaries of ``samples``, ``series`` is that of ``metrics``:
they are stored once and joined by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pyarrow as pa

NS = pa.timestamp("ns", tz="UTC")
TEXT = pa.dictionary(pa.int32(), pa.string())  # repeated strings: names, services, kinds
ATTRIBUTES = pa.map_(pa.string(), pa.string())  # values as text; structured values as JSON


def _field(name: str, type_: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, type_, metadata={"meaning": meaning, "unit": unit})


SPANS = pa.schema(
    [
        _field("trace_id", pa.string(), "trace, 32 hex digits"),
        _field("span_id", pa.string(), "span, 16 hex digits"),
        _field("parent_span_id", pa.string(), "parent span, 16 hex digits; empty at a root"),
        _field("trace_key", pa.int64(), "join key of trace_id"),
        _field("span_key", pa.int64(), "join key of (trace_id, span_id)"),
        _field("parent_key", pa.int64(), "join key of (trace_id, parent_span_id); 0 at a root"),
        _field("service", TEXT, "resource service.name"),
        _field("scope", TEXT, "instrumentation scope"),
        _field("name", TEXT, "span name"),
        _field("kind", TEXT, "internal, server, client, producer, consumer"),
        _field("start", NS, "start of the span", "ns since 1970, UTC"),
        _field("duration_ns", pa.int64(), "end minus start", "ns"),
        _field("status", TEXT, "unset, ok, error"),
        _field("status_message", pa.string(), "description of an error"),
        _field("attributes", ATTRIBUTES, "span attributes"),
        _field("resource", ATTRIBUTES, "resource attributes"),
        _field("events", pa.string(), "span events as a JSON array of {time, name, attributes}"),
        _field("links", pa.string(), "span links as a JSON array of {trace_id, span_id, ...}"),
    ]
)

LOGS = pa.schema(
    [
        _field("time", NS, "when it was logged", "ns since 1970, UTC"),
        _field("severity", TEXT, "trace, debug, info, warn, error, fatal, or empty"),
        _field("service", TEXT, "service that logged"),
        _field("body", pa.string(), "message, or the name of the event"),
        _field("trace_id", pa.string(), "32 hex digits or empty"),
        _field("span_id", pa.string(), "16 hex digits or empty"),
        _field("trace_key", pa.int64(), "join key of trace_id"),
        _field("span_key", pa.int64(), "join key of (trace_id, span_id)"),
        _field("request_id", pa.string(), "X-Request-ID or empty"),
        _field("attributes", ATTRIBUTES, "all other fields of the record"),
    ]
)

METRICS = pa.schema(
    [
        _field("series_id", pa.int64(), "row of the series dictionary"),
        _field("time", NS, "time of the point", "ns since 1970, UTC"),
        _field("value", pa.float64(), "value; for histograms the sum of observations"),
        _field(
            "histogram",
            pa.struct(
                [
                    ("count", pa.float64()),
                    ("sum", pa.float64()),
                    ("bounds", pa.list_(pa.float64())),  # upper bounds, last may be +Inf
                    ("counts", pa.list_(pa.float64())),  # per bucket, not cumulative
                ]
            ),
            "buckets of a histogram point; null for other types",
        ),
        _field(
            "exemplars",
            pa.list_(
                pa.struct(
                    [
                        ("time", NS),
                        ("value", pa.float64()),
                        ("trace_id", pa.string()),
                        ("span_id", pa.string()),
                    ]
                )
            ),
            "observations with their trace",
        ),
    ]
)

SERIES = pa.schema(
    [
        _field("series_id", pa.int64(), "id within the Recording"),
        _field("name", TEXT, "metric name as exposed"),
        _field("labels", ATTRIBUTES, "labels or attributes, `service` and `process` among them"),
        _field("type", TEXT, "gauge, counter, histogram, summary, event, unknown"),
        _field("unit", TEXT, "UCUM unit or empty"),
        _field("temporality", TEXT, "cumulative, delta or empty"),
    ]
)

SAMPLES = pa.schema(
    [
        _field("time", NS, "when the stack was seen", "ns since 1970, UTC"),
        _field(
            "weight_ns",
            pa.int64(),
            "time that the sample stands for: CPU time of running code, else wall time",
            "ns",
        ),
        _field("stack_id", pa.int64(), "row of the stacks dictionary"),
        _field("service", TEXT, "service of the process"),
        _field("process", pa.int64(), "process id"),
        _field("thread", pa.int64(), "thread id of the system"),
        _field("task", pa.int64(), "number of the asyncio task in its process; 0: none"),
        _field("state", TEXT, "running (on a CPU), awaiting (suspended task), waiting (blocked)"),
        _field(
            "wait",
            TEXT,
            "what a waiting or awaiting stack waits on, told from the primitive and not from its "
            "name: lock, queue, sleep, io, executor, task, future, gil, or empty",
        ),
        _field("trace_id", pa.string(), "32 hex digits or empty when unknown"),
        _field("span_id", pa.string(), "16 hex digits or empty when unknown"),
        _field("trace_key", pa.int64(), "join key of trace_id"),
        _field("span_key", pa.int64(), "join key of (trace_id, span_id)"),
    ]
)

STACKS = pa.schema(
    [
        _field("stack_id", pa.int64(), "id within the Recording"),
        _field("frame_ids", pa.list_(pa.int64()), "frames, the outermost first"),
        _field("lines", pa.list_(pa.int32()), "line that runs in each frame; 0: unknown"),
    ]
)

FRAMES = pa.schema(
    [
        _field("frame_id", pa.int64(), "id within the Recording"),
        _field("function", TEXT, "`module:qualname`"),
        _field("module", TEXT, "dotted module name"),
        _field("file", TEXT, "source file"),
        _field("line", pa.int32(), "first line of the function"),
        _field("origin", TEXT, "app, library (site-packages), stdlib, native"),
    ]
)

CHANGES = pa.schema(
    [
        _field("time", NS, "when it happened or began", "ns since 1970, UTC"),
        _field("end", NS, "when it ended; null: a moment"),
        _field("kind", TEXT, "deploy, restart, config, alert, scaling, mark"),
        _field("service", TEXT, "service concerned or empty"),
        _field("text", pa.string(), "what happened, for people"),
        _field("attributes", ATTRIBUTES, "details"),
    ]
)

SCHEMAS: dict[str, pa.Schema] = {
    "spans": SPANS,
    "logs": LOGS,
    "metrics": METRICS,
    "series": SERIES,
    "samples": SAMPLES,
    "stacks": STACKS,
    "frames": FRAMES,
    "changes": CHANGES,
}
"""The stored tables by name: the five and their three dictionaries."""

TIME_COLUMN = {
    "spans": "start",
    "logs": "time",
    "metrics": "time",
    "samples": "time",
    "changes": "time",
}
"""The column that places a row in time, for each of the five tables."""


def join_key(*ids: str) -> int:
    """A signed 64-bit join key of one or more hex ids; 0 when any of them is empty.

    BLAKE2b over the ids, so that span ids, which are unique only within a trace, join as
    ``join_key(trace_id, span_id)``.
    """
    if not all(ids):
        return 0
    digest = hashlib.blake2b("/".join(ids).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def join_keys(*columns: Iterable[str]) -> pa.Array:
    """`join_key` over columns of ids, each distinct tuple hashed once; an int64 array."""
    seen: dict[tuple[str, ...], int] = {}
    keys: list[int] = []
    for ids in zip(*columns, strict=True):
        key = seen.get(ids)
        if key is None:
            key = seen[ids] = join_key(*ids)
        keys.append(key)
    return pa.array(keys, pa.int64())
