"""The critical path as a partition of time: at each instant of a request one span owns it.

The rule is that of CRISP (Zhang et al., "CRISP: Critical Path Analysis of Large-Scale Microservice
Architectures", USENIX ATC 2022): of children that run in parallel the one that ends last owns the
time, then the one that ended last before it began, and what no child owns is the parent's own. A
child that outlives its parent was not waited for: it owns only what of the parent's time comes
after the last child that was; the rest is its asynchronous tail.

All traces at once and without recursion: sorted by end, each child owns one interval that stops
where a sibling that ends later has begun, so a running minimum finds all of them; windows of
nested spans follow by pointer jumping. All numbers are whole nanoseconds, so the sections of a
trace sum to the duration of its root exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragprof.analysis.columns import Bools, Ints, ordered
from ragprof.analysis.forest import Forest

TOLERANCE_NS = 1_000_000
"""A child that ends at most this much after its parent was still waited for."""

SELF, EDGE = 0, 1
PARTS = ("self", "edge")
"""What an owned section is: the span's own time, or the time between a client span and the server
span that it called (network, queues)."""


@dataclass(frozen=True)
class Sections:
    """The partition, ordered by trace and time. span: index into the forest; part: 0 self, 1 edge;
    start, end: ns since 1970."""

    span: Ints
    part: Ints
    start: Ints
    end: Ints


@dataclass(frozen=True)
class Windows:
    """Per span of the forest: low, high (ns since 1970) is what it owns together with its
    children; low == high when it owns nothing. tail_ns: how long it outlives its parent."""

    low: Ints
    high: Ints
    tail_ns: Ints


def windows(forest: Forest, tolerance_ns: int = TOLERANCE_NS) -> Windows:
    """The interval that each span owns, descendants included."""
    count = len(forest)
    parent, start, end = forest.parent, forest.start, forest.end
    child = np.flatnonzero(parent >= 0)
    above = parent[child]
    low, high = start.copy(), end.copy()
    tail = np.zeros(count, dtype=np.int64)
    tail[child] = np.maximum(end[child] - np.maximum(end[above], start[child]), 0)

    outlives = end[child] > end[above] + tolerance_ns
    _own_until_later_begins(low, high, child[~outlives], above[~outlives], start, start, end)
    late, over = child[outlives], above[outlives]
    if len(late):
        # An outliving child owns from the end of the last sibling that was waited for.
        waited = np.full(count, np.iinfo(np.int64).min)
        np.maximum.at(waited, above[~outlives], end[child[~outlives]])
        begin = np.maximum(start, np.where(parent >= 0, waited[np.maximum(parent, 0)], start))
        low[late] = begin[late]
        _own_until_later_begins(low, high, late, over, start, begin, end)
    _clip_by_ancestors(parent, low, high)
    return Windows(low, np.maximum(low, high), tail)


def _own_until_later_begins(
    low: Ints, high: Ints, child: Ints, above: Ints, start: Ints, begin: Ints, end: Ints
) -> None:
    """Cut each child where a sibling that ends later begins to own; of equal ends the later start
    counts as the later."""
    if not len(child):
        return
    # Times from the parent's start are smaller numbers, which sort faster.
    origin = start[above]
    order = ordered(above, origin - end[child], origin - start[child])
    child, above, origin = child[order], above[order], origin[order]
    first = np.ones(len(child), dtype=bool)
    first[1:] = above[1:] != above[:-1]
    begins, ends = begin[child], end[child]
    # The earliest begin of this and of all that end later.
    earliest = _segmented_minimum(begins - origin, first) + origin
    cut = ends.copy()
    np.minimum(ends[1:], earliest[:-1], out=cut[1:], where=~first[1:])
    low[child], high[child] = begins, np.maximum(cut, begins)


def _segmented_minimum(values: Ints, first: Bools) -> Ints:
    """Running minimum that restarts where `first` is set.

    Each segment is lifted below the one before, so that one running minimum over the whole array
    never reaches back. Where that would not fit into 64 bits, values are replaced by their rank.
    """
    segment = np.cumsum(first) - 1
    low = int(values.min())
    width = int(values.max()) - low + 1
    if width * (int(segment[-1]) + 1) < 1 << 62:
        lift = segment * width
        running: Ints = np.minimum.accumulate(values - low - lift) + lift + low
        return running
    distinct, rank = np.unique(values, return_inverse=True)
    lifted = rank - segment * len(distinct)
    lowest: Ints = distinct[np.minimum.accumulate(lifted) + segment * len(distinct)]
    return lowest


def _clip_by_ancestors(parent: Ints, low: Ints, high: Ints) -> None:
    """Cut the window of each span to those of all its ancestors, by pointer jumping."""
    top = np.where(parent < 0, np.arange(len(parent)), parent)
    for _ in range(len(parent).bit_length()):
        np.maximum(low, low[top], out=low)
        np.minimum(high, high[top], out=high)
        further = top[top]
        if np.array_equal(further, top):
            break
        top = further
    # Outside its ancestors a span owns nothing; it must not reach out of them either.
    np.minimum(low, np.maximum(high, low), out=low)


def sections(forest: Forest, owned: Windows | None = None) -> Sections:
    """Who owns which time: the sections of each trace cover its root's interval, once."""
    found = windows(forest) if owned is None else owned
    low, high = found.low, found.high
    live = np.flatnonzero(high > low)
    child = live[forest.parent[live] >= 0]
    above = forest.parent[child]
    order = ordered(above, low[child] - low[above])
    child, above = child[order], above[order]

    # Own time of a span: before its first child, between children, after the last.
    first = np.ones(len(child), dtype=bool)
    first[1:] = above[1:] != above[:-1]
    before = np.empty(len(child), dtype=np.int64)
    if len(child):
        before[1:] = high[child[:-1]]
        before[first] = low[above[first]]
    last = np.ones(len(child), dtype=bool)
    last[:-1] = first[1:]
    leaf = np.ones(len(forest), dtype=bool)
    leaf[above] = False
    leaves = live[leaf[live]]

    span = np.concatenate([above, above[last], leaves])
    begin = np.concatenate([before, high[child[last]], low[leaves]])
    end = np.concatenate([low[child], high[above[last]], high[leaves]])
    some = end > begin
    span, begin, end = span[some], begin[some], end[some]
    root = forest.root[span]
    order = ordered(root, begin - forest.start[root])
    span, begin, end = span[order], begin[order], end[order]
    return Sections(span, np.where(calls_server(forest)[span], EDGE, SELF), begin, end)


def calls_server(forest: Forest) -> Bools:
    """Spans that are the client side of a recorded server span: their own time is an edge gap."""
    answered = np.zeros(len(forest), dtype=bool)
    child = np.flatnonzero(forest.entry & (forest.parent >= 0))
    answered[forest.parent[child]] = True
    return answered & forest.exit
