"""When requests became slow: a change point in the latencies of one operation.

The statistic is the largest standardised shift of mean ranks over all splits (Pettitt 1979), or
over all inner intervals when it ended again (epidemic alternative; Levin and Kline 1985). Ranks,
because latencies have heavy tails. The null comes from exchanging blocks of requests, so that
short correlation in time does not look like an onset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragprof.analysis.columns import Floats, Ints

MIN_REQUESTS = 20
"""Fewer requests on a side are not enough to tell."""
ROUNDS = 1999


@dataclass(frozen=True)
class Onset:
    """begin, end: positions in the requests ordered by time, [begin, end) is slow. score: the
    standardised shift. p_value: share of exchanges that reach it."""

    begin: int
    end: int
    score: float
    p_value: float


def find_onset(times: Ints, durations: Floats, seed: int = 0) -> Onset | None:
    """The stretch of requests that is slower than those before it; None when too few requests.

    times: ns, ascending. durations: any unit. The result is the best stretch, significant or not.
    """
    count = len(durations)
    if count < 2 * MIN_REQUESTS:
        return None
    size = max(3, count // 60)
    cut = np.arange(0, count, size)
    if count - cut[-1] < size and len(cut) > 1:
        cut = cut[:-1]
    ranks = _ranks(durations)
    sizes = np.diff(np.append(cut, count)).astype(np.float64)
    means = np.add.reduceat(ranks, cut) / sizes
    least = int(np.ceil(MIN_REQUESTS / size))
    observed, begin, end = _best(means[None, :], sizes, least)
    draw = np.random.default_rng(seed)
    # Runs of three blocks are exchanged together: what lasts a second is not an onset.
    reached = 0
    for _ in range(8):
        rounds = (ROUNDS + 1) // 8
        order = _runs(draw, len(means), 3, rounds)
        reached += int((_best(means[order], sizes, least)[0] >= observed[0]).sum())
    low = int(cut[begin[0]])
    high = int(cut[end[0]]) if end[0] < len(cut) else count
    low = _refine(ranks, low, size, high)
    return Onset(low, high, float(observed[0]), (reached + 1) / (ROUNDS + 1))


def _ranks(values: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    return ranks / max(1, len(values) - 1) - 0.5


def _runs(draw: np.random.Generator, count: int, run: int, rounds: int) -> Ints:
    """Permutations of 0..count in which runs of `run` neighbours stay together."""
    groups = -(-count // run)
    offset = draw.integers(0, run, size=(rounds, 1))
    of_block = (np.arange(count)[None, :] + offset) // run
    key = draw.random((rounds, groups + 1))
    return np.lexsort((np.broadcast_to(np.arange(count), of_block.shape), np.take_along_axis(key, of_block, 1)), axis=1)


def _best(means: Floats, sizes: Floats, least: int) -> tuple[Floats, Ints, Ints]:
    """Per row the largest upward shift of [begin, end) against what came before it and after it.

    An `end` before the last block is taken only when what follows is long enough to be told.
    """
    count = means.shape[1]
    total = np.concatenate([np.zeros((len(means), 1)), np.cumsum(means * sizes, axis=1)], axis=1)
    length = np.concatenate([[0.0], np.cumsum(sizes)])
    pairs = [
        (begin, end)
        for begin in range(least, count - least + 1)
        for end in [count, *range(begin + least, count - least + 1, 2)]
    ]
    begins, ends = np.array(pairs).T
    inside = total[:, ends] - total[:, begins]
    n = length[ends] - length[begins]
    rest = length[-1] - n
    shift = inside / n - (total[:, -1:] - inside) / rest
    score = shift * np.sqrt(n * rest / length[-1]) * np.sqrt(12)
    # A stretch with an end has many more ways to be found by chance: it must be clearly better.
    score = np.where(ends == count, score, score - 1.5)
    best = np.argmax(score, axis=1)
    rows = np.arange(len(means))
    return score[rows, best], begins[best], ends[best]


def _refine(ranks: Floats, low: int, size: int, high: int) -> int:
    """The split within a block on either side that separates best."""
    first, last = max(MIN_REQUESTS, low - size), min(high - MIN_REQUESTS, low + size)
    if last <= first:
        return low
    total = np.concatenate([[0.0], np.cumsum(ranks)])
    at = np.arange(first, last + 1)
    before, after = total[at] / at, (total[high] - total[at]) / (high - at)
    score = (after - before) * np.sqrt(at * (high - at))
    return int(at[np.argmax(score)])
