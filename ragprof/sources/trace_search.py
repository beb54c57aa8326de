"""Searches that give no more than N traces, made complete: a window is halved until all fit.

Jaeger and Tempo answer a search with at most `limit` traces and do not say whether there are more.
A trace that is found in several windows or under several services belongs to one window alone: the
one in which its anchor begins, its earliest span that the search asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragprof.sources.source import Query, SourceError, Window

FINEST = 1000  # ns: what the backends search by

Search = Callable[[Window, int], pa.Table]
"""Spans of the traces of a window, whole traces, of at most so many."""


def complete(
    search: Search, window: Window, limit: int, name: str, finest: int = FINEST
) -> Iterator[pa.Table]:
    """All answers of a window whose searches came back with fewer than `limit` traces.

    `finest`: ns, below which the backend does not search. Raises SourceError when more than
    `limit` traces begin within that.
    """
    found = search(window, limit)
    if len(pc.unique(found["trace_id"])) < limit:
        yield found
        return
    length = (window.end - window.start) // 2 // finest * finest
    if length < finest:
        raise SourceError(
            f"{name}: more than {limit:,} traces begin within {finest // 1000:,} us; raise limit."
        )
    middle = window.start + length
    yield from complete(search, Window(window.start, middle), limit, name, finest)
    yield from complete(search, Window(middle, window.end), limit, name, finest)


def anchored(spans: pa.Table, window: Window, query: Query, *, exact: bool = False) -> pa.Table:
    """Whole traces whose anchor begins in the window; `exact`: only those with a span that fulfils
    the query, where the backend does not look at all of it.
    """
    if not spans.num_rows:
        return spans
    start = np.asarray(spans["start"].cast(pa.int64()))
    _, trace = np.unique(np.asarray(spans["trace_id"].to_pandas()), return_inverse=True)
    asked = matching(spans, query)
    last = np.iinfo(np.int64).max
    anchor = np.full(int(trace.max()) + 1, last, np.int64)
    np.minimum.at(anchor, trace[asked], start[asked])
    alone = anchor == last  # the backend sees a match where we do not: the earliest span counts
    earliest = np.full(len(anchor), last, np.int64)
    np.minimum.at(earliest, trace, start)
    anchor = np.where(alone, earliest, anchor)
    inside = (anchor >= window.start) & (anchor < window.end) & ~(alone & exact)
    return spans.filter(pa.array(inside[trace]))


def matching(spans: pa.Table, query: Query) -> NDArray[np.bool_]:
    """Which spans fulfil a query by themselves."""
    found = np.ones(spans.num_rows, bool)
    for column, wanted in (("service", query.services), ("name", query.operations)):
        if wanted:
            texts = spans[column].cast(pa.string())
            found &= np.asarray(pc.is_in(texts, value_set=pa.array(list(wanted))))
    if query.min_duration:
        found &= np.asarray(spans["duration_ns"]) >= query.min_duration
    if query.tags:
        for row in np.flatnonzero(found):
            own = dict(spans["resource"][int(row)].as_py() or [])
            own.update(spans["attributes"][int(row)].as_py() or [])
            found[row] = _has(own, query.tags)
    return found


def _has(own: Mapping[str, str], tags: Mapping[str, Any]) -> bool:
    return all(own.get(key) == str(value) for key, value in tags.items())


def new_traces(spans: pa.Table, taken: set[str], limit: int = 0) -> pa.Table:
    """The traces that are not in `taken` yet, and puts them there; no more than `limit` in all."""
    ids = spans["trace_id"].to_pylist()
    new = dict.fromkeys(each for each in ids if each not in taken)
    if limit:
        new = dict.fromkeys(list(new)[: max(0, limit - len(taken))])
    taken.update(new)
    return spans.filter(pa.array([each in new for each in ids], pa.bool_()))


def roots(spans: pa.Table, window: Window) -> pa.Table:
    """The columns of `source.TraceSource.roots` from whole traces: one row per trace.

    The root is the earliest span without a parent, else the earliest whose parent is missing.
    """
    names = ["trace_id", "service", "name", "start", "duration_ns"]
    if not spans.num_rows:
        return spans.select(names).cast(ROOTS)
    traces = np.asarray(spans["trace_id"].to_pandas())
    parents = np.asarray(spans["parent_span_id"].to_pandas())
    ids = set(zip(traces, np.asarray(spans["span_id"].to_pandas()), strict=True))
    orphan = np.array(
        [bool(parent) and (trace, parent) not in ids
         for trace, parent in zip(traces, parents, strict=True)]
    )  # fmt: skip
    top = np.flatnonzero((parents == "") | orphan)
    start = np.asarray(spans["start"].cast(pa.int64()))
    order = top[np.lexsort((start[top], orphan[top], traces[top]))]
    first = np.ones(len(order), bool)
    first[1:] = traces[order][1:] != traces[order][:-1]
    chosen = order[first]
    chosen = chosen[(start[chosen] >= window.start) & (start[chosen] < window.end)]
    return spans.select(names).take(pa.array(chosen)).cast(ROOTS)


ROOTS = pa.schema(
    [
        ("trace_id", pa.string()),
        ("service", pa.string()),
        ("name", pa.string()),
        ("start", pa.timestamp("ns", tz="UTC")),
        ("duration_ns", pa.int64()),
    ]
)
