"""Nulls by permutation, and many tests at once.

Requests near in time are alike (queues, neighbours on the machine), so single requests must not be
exchanged between before and after: blocks of time are (Künsch 1989; Good, "Permutation Tests",
2000).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ragprof.analysis.columns import Bools, Floats, Ints

BLOCKS = 10
"""Blocks of time that each of the two windows is cut into."""
ROUNDS = 4000
MOST_BLOCKS = 2000


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995); NaN stays."""
    p = np.asarray(p_values, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    if not len(known):
        return result
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    result[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return result


def blocks(times: Ints, slow: Bools, count: int = BLOCKS, interleaved: bool = False) -> Ints:
    """Block number of each request: each group cut by time into blocks of equally many requests.

    `interleaved`: the groups share their time (chosen by duration): each request is a block.
    """
    if interleaved:
        return np.arange(len(times))
    result = np.zeros(len(times), dtype=np.int64)
    for offset, group in ((0, ~slow), (count, slow)):
        members = np.flatnonzero(group)
        order = members[np.argsort(times[members], kind="stable")]
        result[order] = offset + np.arange(len(order)) * min(count, max(1, len(order))) // max(
            1, len(order)
        )
    return result


def difference_p_values(
    values: Floats, slow: Bools, block: Ints, seed: int = 0, rounds: int = ROUNDS
) -> tuple[Floats, Floats]:
    """Mean of the slow less mean of the others, and its one-sided permutation p-value, per column.

    values: requests x quantities; block: the block of each request. The p-value is the share of
    exchanges of whole blocks with at least this difference, the observed one counted in. Of more
    than `MOST_BLOCKS` single requests the difference is normal when they are exchanged (Hoeffding
    1951), so that none has to be drawn; the smallest p-value stays what it would be otherwise.
    """
    table = values.reshape(len(values), -1)
    columns = table.shape[1]
    if not slow.any() or slow.all():
        return np.full(columns, np.nan), np.full(columns, np.nan)
    names, index = np.unique(block, return_inverse=True)
    sums = np.zeros((len(names), columns))
    np.add.at(sums, index, table)
    sizes = np.bincount(index, minlength=len(names)).astype(np.float64)
    is_slow = np.zeros(len(names), dtype=bool)
    is_slow[index[slow]] = True
    observed = table[slow].mean(axis=0) - table[~slow].mean(axis=0)
    if len(names) > MOST_BLOCKS and len(names) == len(table):
        spread = table.std(axis=0, ddof=1) * np.sqrt(len(table) / slow.sum() / (~slow).sum())
        p = stats.norm.sf(observed / np.maximum(spread, 1e-300))
        return observed, np.maximum(np.where(spread > 0, p, 1.0), 1 / (rounds + 1))
    draws = _exchanges(is_slow, rounds, seed)
    inside = (draws @ sums) / np.maximum(draws @ sizes, 1)[:, None]
    outside = ((1 - draws) @ sums) / np.maximum((1 - draws) @ sizes, 1)[:, None]
    scale = np.abs(table).max(axis=0) + 1e-300
    reached = (inside - outside >= observed - 1e-9 * scale).sum(axis=0)
    return observed, (reached + 1) / (rounds + 1)


def _exchanges(is_slow: Bools, rounds: int, seed: int) -> NDArray[np.float64]:
    draw = np.random.default_rng(seed)
    order = np.argsort(draw.random((rounds, len(is_slow))), axis=1)
    return np.asarray(is_slow[order], dtype=np.float64)
