"""Self time: what of a span's duration none of its children covers, in parallel or not."""

from __future__ import annotations

import numpy as np

from ragprof.analysis.columns import Bools, Ints
from ragprof.analysis.forest import Forest


def self_time(forest: Forest) -> Ints:
    """ns per span: its duration less the union of its children's intervals, clipped to it.

    Unlike a critical path section it does not depend on who waits for the span: self times of
    spans that run in parallel add up to more than the request took.
    """
    child = np.flatnonzero(forest.parent >= 0)
    above = forest.parent[child]
    low = np.clip(forest.start[child], forest.start[above], forest.end[above])
    high = np.clip(forest.end[child], forest.start[above], forest.end[above])
    order = np.lexsort((low, above))
    above, low, high = above[order], low[order], high[order]
    first = np.ones(len(child), dtype=bool)
    first[1:] = above[1:] != above[:-1]
    covered_until = _segmented_maximum(high, first)
    before = np.empty(len(child), dtype=np.int64)
    before[1:] = covered_until[:-1]
    before[first] = low[first]
    added = np.maximum(high - np.maximum(low, before), 0)
    covered = np.zeros(len(forest), dtype=np.int64)
    np.add.at(covered, above, added)
    own: Ints = forest.end - forest.start - covered
    return own


def _segmented_maximum(values: Ints, first: Bools) -> Ints:
    distinct, rank = np.unique(values, return_inverse=True)
    lift = (np.cumsum(first) - 1) * len(distinct)
    highest: Ints = distinct[np.maximum.accumulate(rank + lift) - lift]
    return highest
