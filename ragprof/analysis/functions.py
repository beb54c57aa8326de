"""Samples on requests: time per request by function, state and what is waited for.

A sample belongs to the request of its span (joined by span key). It is told by its deepest frame
of the application, since what an application waits for or computes shows in a library's frame
below it; a stack without such a frame is told by its innermost frame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ragprof.analysis.columns import Bools, Floats, Ints, codes, integers, places
from ragprof.analysis.forest import Forest

COLUMNS = ("time", "weight_ns", "stack_id", "task", "state", "wait", "span_key")
"""Of the samples table, what `on_requests` reads."""


@dataclass(frozen=True)
class RequestSamples:
    """Samples with a span of the requests looked at, arrays equally long.

    span: index into the forest. request: number of the request. ms: weight. frame: row of
    `frames` (function, file, line, origin) that it is told by. stack: its stack_id. state, wait:
    texts. loop: taken on a thread that runs an event loop, in a task.
    """

    time: Ints
    span: Ints
    request: Ints
    ms: Floats
    frame: Ints
    caller: Ints
    stack: Ints
    state: np.ndarray
    wait: np.ndarray
    loop: Bools
    frames: pd.DataFrame


def telling_frames(stacks: pa.Table, frames: pa.Table) -> tuple[Ints, Ints, Ints, pd.DataFrame]:
    """Stack ids, ascending; the row in frames that tells each, and its caller's (-1: none)."""
    ids = integers(frames["frame_id"])
    order = np.argsort(ids)
    table = pd.DataFrame(
        {
            name: frames[name].cast(pa.string()).to_pylist()
            for name in ("function", "file", "origin")
        },
        dtype="str",  # also where there are no stacks at all
    )
    table["line"] = integers(frames["line"])
    table, enclosing = _enclosed(table)
    named = ~table["function"].str.endswith("<lambda>").to_numpy(dtype=bool)
    # Generated code ("<string>") is nobody's source file.
    generated = table["file"].str.startswith("<").to_numpy(dtype=bool)
    app = (table["origin"] == "app").to_numpy(dtype=bool) & ~generated
    rank = app.astype(np.int64) * 2 + (app & named)
    stack_ids = integers(stacks["stack_id"])
    lists = stacks["frame_ids"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    flat = integers(pa.chunked_array([pc.list_flatten(lists)]))
    length = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
    rows = order[np.minimum(np.searchsorted(ids, flat, sorter=order), max(0, len(ids) - 1))]
    owner = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(flat))
    telling = np.full(len(length), -1, dtype=np.int64)
    caller = np.full(len(length), -1, dtype=np.int64)
    for least in (0, 2, 3):  # the innermost, else the deepest of the application, best a named one
        fit = rank[rows] >= least
        at = np.full(len(length), -1, dtype=np.int64)
        np.maximum.at(at, owner[fit], place[fit])
        found = at >= 0
        telling[found] = at[found]
    fit = rank[rows] >= 3
    above = np.full(len(length), -1, dtype=np.int64)
    inner = fit & (place < telling[owner])
    np.maximum.at(above, owner[inner], place[inner])
    caller[above >= 0] = rows[above[above >= 0]]
    result = np.where(telling >= 0, rows[np.maximum(telling, 0)] if len(rows) else -1, -1)
    if len(enclosing):
        result = np.where(result >= 0, enclosing[result], -1)
        caller = np.where(caller >= 0, enclosing[caller], -1)
    sort = np.argsort(stack_ids)
    return stack_ids[sort], result[sort], caller[sort], table


_INNER = re.compile(r"(?:(?:\.<locals>)?\.<(?:listcomp|setcomp|dictcomp|genexpr|lambda)>)+$")


def _enclosed(table: pd.DataFrame) -> tuple[pd.DataFrame, Ints]:
    """Frames named by the function that encloses a comprehension, generator or lambda; and for
    each the row that stands for it.

    From Python 3.12 list comprehensions have no frame of their own (PEP 709): their time is their
    function's in every version.
    """
    inner = table["function"].str.contains(_INNER).to_numpy(dtype=bool)
    stands = np.arange(len(table))
    if not inner.any():
        return table, stands
    table = table.assign(function=table["function"].str.replace(_INNER, "", regex=True))
    rows = table.assign(row=stands, inner=inner).sort_values(["inner", "line"], kind="stable")
    first = rows.groupby(["function", "file"])["row"].transform("first").sort_index()
    stands[inner] = first.to_numpy()[inner]
    return table, stands


def on_requests(
    samples: pa.Table, stacks: pa.Table, frames: pa.Table, forest: Forest, request_of_span: Ints
) -> RequestSamples:
    """The samples during a request (`request_of_span` >= 0) that bear one of its spans."""
    key = integers(samples["span_key"])
    span = places(forest.span_key, key)
    known_span = np.maximum(span, 0)
    inside = (span >= 0) & (request_of_span[known_span] >= 0)
    if len(forest):  # background work that outlives the request does not make it slow
        root, time = forest.root[known_span], integers(samples["time"])
        inside &= (time >= forest.start[root]) & (time < forest.end[root])
    keep = np.flatnonzero(inside)
    ids, telling, caller, table = telling_frames(stacks, frames)
    stack = integers(samples["stack_id"])[keep]
    at = np.minimum(np.searchsorted(ids, stack), max(0, len(ids) - 1))
    known = (ids[at] == stack) if len(ids) else np.zeros(len(stack), dtype=bool)
    state, states = codes(samples["state"])
    wait, waits = codes(samples["wait"])
    task = integers(samples["task"])[keep]
    span = span[keep]
    return RequestSamples(
        time=integers(samples["time"])[keep],
        span=span,
        request=request_of_span[span],
        ms=integers(samples["weight_ns"])[keep] / 1e6,
        frame=np.where(known, telling[at], -1) if len(ids) else np.full(len(stack), -1),
        caller=np.where(known, caller[at], -1) if len(ids) else np.full(len(stack), -1),
        stack=stack,
        state=np.array([*states, ""], dtype=object)[state[keep]],
        wait=np.array([*waits, ""], dtype=object)[wait[keep]],
        loop=task != 0,
        frames=table,
    )


def difference(
    samples: RequestSamples, slow: Bools, baseline: Bools, keep: Bools | None = None
) -> pd.DataFrame:
    """Per function, state and wait the ms per request of both groups, the largest addition first.

    Columns: function, file, line, state, wait, baseline_ms, slow_ms, added_ms. `keep` chooses
    samples.
    """
    kept = samples.frame >= 0
    chosen = np.flatnonzero(kept if keep is None else kept & keep)
    state, states = pd.factorize(samples.state[chosen], sort=True)
    wait, waits = pd.factorize(samples.wait[chosen], sort=True)
    shape = max(1, len(samples.frames)), max(1, len(states)), max(1, len(waits))
    cell = np.ravel_multi_index((samples.frame[chosen], state, wait), shape)
    present, number = np.unique(cell, return_inverse=True)
    frame, of_state, of_wait = np.unravel_index(present, shape)
    request, ms = samples.request[chosen], samples.ms[chosen]
    after, before = (
        np.bincount(number, ms * group[request] / max(1, group.sum()), len(present))
        for group in (slow, baseline)
    )
    table = pd.DataFrame(
        {
            "frame": frame,
            "state": np.asarray(states, dtype=object)[of_state],
            "wait": np.asarray(waits, dtype=object)[of_wait],
            "slow_ms": after,
            "baseline_ms": before,
        }
    )
    table = table.join(samples.frames[["function", "file", "line", "origin"]], on="frame")
    table["added_ms"] = table["slow_ms"] - table["baseline_ms"]
    table = table.sort_values("added_ms", ascending=False, ignore_index=True)
    return table[
        [
            "function",
            "file",
            "line",
            "origin",
            "state",
            "wait",
            "baseline_ms",
            "slow_ms",
            "added_ms",
        ]
    ]
