"""What a request would have taken if some spans had spent less of their own time.

The trace is replayed on its own structure: a child begins as long after the latest of what had
ended before it as it did, own time in between is scaled, and a parent ends as long after the
latest of its children. So what ran in parallel becomes critical when the former critical path
shrinks (virtual speed-up of a dependency graph; Curtsinger and Berger, "Coz: Finding Code that
Counts with Causal Profiling", SOSP 2015).
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from ragprof.analysis.columns import Floats, Ints
from ragprof.analysis.forest import Forest


def replay(forest: Forest, roots: Ints, factor: Floats) -> Floats:
    """Duration in ns of each of the traces of `roots` with the own time of spans scaled.

    factor: per span of the forest, 1 keeps its own time, 0 removes it. Children that outlive
    their parent count up to its end. With factor 1 everywhere the durations are those recorded.
    """
    wanted = np.zeros(len(forest), dtype=bool)
    wanted[roots] = True
    spans = np.flatnonzero(wanted[forest.root])
    # The deepest first: a span's children are done before it. Within a parent by start.
    order = spans[np.lexsort((forest.start[spans], -forest.depth[spans]))]
    number = np.full(len(forest) + 1, -1)
    number[order] = np.arange(len(order))
    start, end = forest.start[order].tolist(), forest.end[order].tolist()
    parent, scale = number[forest.parent[order]].tolist(), factor[order].tolist()
    children: dict[int, list[int]] = {}
    took = [0.0] * len(order)
    for span, above in enumerate(parent):
        took[span] = _span(span, children.pop(span, []), start, end, took, scale[span])
        if above >= 0:
            children.setdefault(above, []).append(span)
    return np.array([took[span] for span in number[roots]], dtype=np.float64)


def _span(
    span: int,
    children: list[int],
    start: list[int],
    end: list[int],
    took: list[float],
    factor: float,
) -> float:
    low, high = start[span], end[span]
    if not children:
        return (high - low) * factor
    ends: list[int] = []  # recorded ends of the children so far, ascending
    latest: list[float] = []  # new ends, the latest up to each of them, from `low`
    for child in children:
        begin, stop = min(max(start[child], low), high), min(end[child], high)
        at = bisect_right(ends, begin)
        before, anchor = (ends[at - 1], latest[at - 1]) if at else (low, 0.0)
        whole = max(1, end[child] - start[child])
        inside = took[child] * max(0, stop - begin) / whole
        new = anchor + (begin - before) * factor + inside
        place = bisect_right(ends, stop)
        ends.insert(place, stop)
        latest.insert(place, max(new, latest[place - 1] if place else 0.0))
        for later in range(place + 1, len(latest)):
            if latest[later] >= new:
                break
            latest[later] = new
    return latest[-1] + (high - ends[-1]) * factor
