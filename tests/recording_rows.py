"""Rows of all tables to write and read back: small, consistent, with the awkward values in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import Phase
from hypothesis import strategies as st

import ragprof
from ragprof.journal import Journal
from ragprof.tables import SCHEMAS

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)  # files are slow to shrink on

T0 = 1_750_000_000_123_456_789
SERVICES = ("rag-api", "rag-reference", "")
TRACES = tuple(f"{n:032x}" for n in range(1, 6))

services = st.sampled_from(SERVICES)
traces = st.sampled_from((*TRACES, ""))
span_ids = st.integers(1, 40).map(lambda n: f"{n:016x}")
times = st.integers(T0, T0 + 50)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
attributes = st.dictionaries(texts, texts, max_size=3)
floats = st.floats(allow_nan=True, allow_infinity=True)

spans = st.fixed_dictionaries(
    {
        "trace_id": st.sampled_from(TRACES),
        "span_id": span_ids,
        "parent_span_id": span_ids | st.just(""),
        "service": services,
        "name": texts,
        "start": times,
        "duration_ns": st.integers(0, 10**12),
        "attributes": attributes,
        "resource": attributes,
    }
)
logs = st.fixed_dictionaries(
    {
        "time": times,
        "service": services,
        "body": texts,
        "trace_id": traces,
        "span_id": span_ids | st.just(""),
        "attributes": attributes,
    }
)
exemplars = st.fixed_dictionaries(
    {"time": times, "value": floats, "trace_id": traces, "span_id": span_ids}
)
histograms = st.lists(floats, min_size=1, max_size=3).map(
    lambda counts: {
        "count": 1.0,
        "sum": float("nan"),
        "bounds": [float("inf")] * len(counts),
        "counts": counts,
    }
)
metrics = st.fixed_dictionaries(
    {
        "series_id": st.integers(0, len(SERVICES) - 1),
        "time": times,
        "value": floats | st.none(),
        "histogram": histograms | st.none(),
        "exemplars": st.lists(exemplars, max_size=2) | st.none(),
    }
)
samples = st.fixed_dictionaries(
    {
        "time": times,
        "weight_ns": st.integers(0, 10**9),
        "stack_id": st.integers(10, 13),
        "service": services,
        "trace_id": traces,
        "state": st.sampled_from(("running", "awaiting")),
    }
)
changes = st.fixed_dictionaries(
    {
        "time": times,
        "end": times | st.none(),
        "service": services,
        "kind": st.just("mark"),
        "text": texts,
    }
)
DICTIONARIES: dict[str, list[dict[str, Any]]] = {
    "series": [
        {"series_id": i, "name": "latency", "labels": {"service": s}, "type": "gauge"}
        for i, s in enumerate(SERVICES)
    ],
    "frames": [
        {"frame_id": i, "function": f"m:f{i}", "module": "m", "file": "m.py", "line": i}
        for i in range(5)
    ],
    "stacks": [
        {"stack_id": 10 + i, "frame_ids": list(range(i + 1)), "lines": [7] * (i + 1)}
        for i in range(4)
    ],
}
recordings = st.fixed_dictionaries(
    {
        "spans": st.lists(spans, max_size=12),
        "logs": st.lists(logs, max_size=8),
        "metrics": st.lists(metrics, max_size=8),
        "samples": st.lists(samples, max_size=8),
        "changes": st.lists(changes, max_size=4),
    }
).map(lambda tables: {**tables, **DICTIONARIES})


def write(path: Path, tables: dict[str, Any], **manifest: Any) -> ragprof.Recording:
    """A Recording of these rows, by a journal."""
    with Journal(path, **manifest) as journal:
        for name, rows in tables.items():
            journal.append(name, rows)
    return ragprof.open(path)


def many_spans(count: int, *, start: int = T0, services: int = 3) -> pa.Table:
    """Spans one microsecond apart, made by Arrow and not row by row."""
    numbers = pa.array(range(count), pa.int64())
    digits = pc.utf8_lpad(numbers.cast(pa.string()), 32, "0")
    names = pa.array(["GET /ask", "embed", "retrieve", "generate"])
    who = pa.array([f"service-{n}" for n in range(services)])
    one = pa.array(
        [[("db.system", "sqlite"), ("rows", "3")]] * count,
        SCHEMAS["spans"].field("attributes").type,
    )
    return pa.table(
        {
            "trace_id": digits,
            "span_id": pc.utf8_slice_codeunits(digits, 16),
            "trace_key": numbers,
            "span_key": numbers,
            "parent_key": pa.repeat(pa.scalar(0, pa.int64()), count),
            "service": who.take(pa.array([n % services for n in range(count)])),
            "name": names.take(pa.array([n % 4 for n in range(count)])),
            "start": pc.add(pc.multiply(numbers, 1000), start).cast(
                SCHEMAS["spans"].field("start").type
            ),
            "duration_ns": pc.multiply(numbers, 7),
            "attributes": one,
        }
    )


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as Python values that compare equal: NaN as text, maps sorted, keys in order."""
    return [_plain(row) for row in table.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def as_set(rows: list[dict[str, Any]]) -> list[str]:
    """Rows in an order of their own, to compare regardless of theirs."""
    return sorted(repr(sorted(row.items(), key=lambda item: item[0])) for row in rows)
