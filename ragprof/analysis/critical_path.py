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
    children; low == high when it owns nothing. tail_ns: how long it outlives its parent.
    backwards: all spans but the roots, those of one parent together, what they own from last to
    first."""

    low: Ints
    high: Ints
    tail_ns: Ints
    backwards: Ints


def windows(forest: Forest, tolerance_ns: int = TOLERANCE_NS) -> Windows:
    """The interval that each span owns, descendants included."""
    low, high = forest.start.copy(), forest.end.copy()
    tail = np.zeros(len(forest), dtype=np.int64)
    child = np.flatnonzero(forest.parent >= 0)
    if not len(child):
        return Windows(low, high, tail, child)
    above = forest.parent[child]
    # Times from the parent's start are smaller numbers, which sort faster.
    origin = forest.start[above]
    start, end = forest.start[child] - origin, forest.end[child] - origin
    whole = forest.end[above] - origin
    over = np.flatnonzero(end > whole)
    tail[child[over]] = end[over] - np.maximum(whole[over], start[over])

    # Of one parent those that outlive it, then those it waited for; of these the one that ends
    # last first, of equal ends the one that starts last.
    waited = end <= whole + tolerance_ns
    side = 2 * above + waited
    order = ordered(side, -end, -start)
    child, above, side, start, end = (one[order] for one in (child, above, side, start, end))
    origin = origin[order]
    first = np.ones(len(child), dtype=bool)
    first[1:] = side[1:] != side[:-1]
    begin = start if waited.all() else _after_the_waited(start, end, above, side, first)
    # Each owns until one that ends later begins to own.
    earliest = _segmented_minimum(begin, first)
    cut = end.copy()
    np.minimum(end[1:], earliest[:-1], out=cut[1:], where=~first[1:])
    low[child] = begin + origin
    high[child] = np.maximum(cut, begin) + origin
    _clip_by_ancestors(forest, low, high)
    return Windows(low, np.maximum(low, high), tail, child)


def _after_the_waited(start: Ints, end: Ints, above: Ints, side: Ints, first: Bools) -> Ints:
    """When each begins to own: an outliving child from the end of the last sibling that was waited
    for. All sorted by side."""
    group = np.cumsum(first) - 1
    heads = np.append(np.flatnonzero(first), len(side))
    late = np.flatnonzero(side % 2 == 0)
    following = heads[group[late] + 1]
    known = np.minimum(following, len(side) - 1)
    sibling = (following < len(side)) & (above[known] == above[late])
    begin = start.copy()
    begin[late] = np.where(sibling, np.maximum(start[late], end[known]), start[late])
    return begin


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


def _clip_by_ancestors(forest: Forest, low: Ints, high: Ints) -> None:
    """Cut the window of each span to those of all its ancestors, by pointer jumping."""
    top = np.where(forest.parent < 0, np.arange(len(forest)), forest.parent)
    for _ in range(int(forest.depth.max()).bit_length()):
        np.maximum(low, low[top], out=low)
        np.minimum(high, high[top], out=high)
        top = top[top]
    # Outside its ancestors a span owns nothing; it must not reach out of them either.
    np.minimum(low, np.maximum(high, low), out=low)


def sections(forest: Forest, owned: Windows | None = None) -> Sections:
    """Who owns which time: the sections of each trace cover its root's interval, once."""
    found = windows(forest) if owned is None else owned
    low, high = found.low, found.high
    alone = high > low  # later: those without a child that owns
    child = found.backwards[::-1]
    child = child[alone[child]]
    above = forest.parent[child]

    # Own time of a span: before its first child, between children, after the last.
    first = np.ones(len(child), dtype=bool)
    first[1:] = above[1:] != above[:-1]
    before = np.empty(len(child), dtype=np.int64)
    if len(child):
        before[1:] = high[child[:-1]]
        before[first] = low[above[first]]
    last = np.ones(len(child), dtype=bool)
    last[:-1] = first[1:]
    alone[above] = False
    leaves = np.flatnonzero(alone)

    span = np.concatenate([above, above[last], leaves])
    begin = np.concatenate([before, high[child[last]], low[leaves]])
    end = np.concatenate([low[child], high[above[last]], high[leaves]])
    owns = end > begin
    span, begin, end = span[owns], begin[owns], end[owns]
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
