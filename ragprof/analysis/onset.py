"""When requests became slow: a change point in the latencies of one operation.

The statistic is the largest sum of ranks beyond the mean over all splits (Pettitt 1979), or over
all inner intervals when it ended again (epidemic alternative; Levin and Kline 1985). Ranks,
because latencies have heavy tails. Beside the ranks of all requests stand those of the slowest
quarter alone: a queue before a pool makes the slow requests slower and leaves the median as it
was; and those of the slowest twentieth, for what happens to few requests. The null comes from
exchanging blocks of requests, so that short correlation in time does not look like an onset; all
statistics share it, and the clearest counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ragprof.analysis.columns import Floats, Ints

MIN_REQUESTS = 20
"""Fewer requests on a side are not enough to tell."""
ROUNDS = 7999
UPPER = (0.25, 0.05)
"""Shares of the slowest requests whose ranks are looked at alone."""
PLAIN = 0.005
"""A lasting onset as sure as this is not compared with passing ones."""


@dataclass(frozen=True)
class Onset:
    """begin, end: positions in the requests ordered by time, [begin, end) is slow. score: the
    statistic. p_value: share of exchanges that reach it."""

    begin: int
    end: int
    score: float
    p_value: float


def find_onset(
    durations: Floats, strata: Ints | None = None, seed: int = 0, passing: bool = True
) -> Onset | None:
    """The stretch of requests that is slower than those before it; None when too few requests.

    durations: any unit, in the order of their start. strata: kinds of requests (for example served
    from a cache or not) that are ranked apart: their mix then adds no noise; as a change of the
    mix itself would go unseen, both ways are tried. passing:
    also look for a stretch that ended again. The result is the best stretch, significant or not.
    """
    if len(durations) < 2 * MIN_REQUESTS:
        return None
    whole = [_ranks(durations)]
    if strata is not None and len(np.unique(strata)) > 1:
        ranks = np.empty(len(durations))
        for one in np.unique(strata):
            ranks[strata == one] = _ranks(durations[strata == one])
        whole.append(ranks)
    scores = np.array(
        [_unit(score) for ranks in whole for score in (ranks, *(_upper(ranks, q) for q in UPPER))]
    )
    lasting = _search(scores, seed, False)
    if lasting.p_value <= PLAIN or not passing:
        return lasting
    # What ended again has many more ways to be found by chance: looked for only then.
    short = _search(scores, seed, True)
    short = replace(short, p_value=min(1.0, short.p_value * 2))
    return min(lasting, short, key=order)


def order(onset: Onset) -> tuple[float, float]:
    """Sorts onsets of the same requests: the surest first, then the clearest."""
    return onset.p_value, -onset.score


def _search(scores: Floats, seed: int, ended: bool) -> Onset:
    """The clearest stretch over all scores (score, request); one null for all of them."""
    count = scores.shape[1]
    size = max(3, count // 60)
    cut = np.arange(0, count, size)
    if count - cut[-1] < size and len(cut) > 1:
        cut = cut[:-1]
    sizes = np.diff(np.append(cut, count)).astype(np.float64)
    means = np.add.reduceat(scores, cut, axis=1) / sizes
    least = int(np.ceil(MIN_REQUESTS / size))
    observed, begin, end = _best(means, sizes, least, ended)
    clearest = int(np.argmax(observed))
    draw = np.random.default_rng(seed)
    # Runs of three blocks are exchanged together: what lasts a second is not an onset.
    reached, total = 0, 1600 if ended else ROUNDS + 1
    for _ in range(8):
        order = _runs(draw, means.shape[1], 3, total // 8)
        highest = np.max([_best(row[order], sizes, least, ended)[0] for row in means], axis=0)
        reached += int((highest >= observed[clearest]).sum())
    low = int(cut[begin[clearest]])
    high = int(cut[end[clearest]]) if end[clearest] < len(cut) else count
    low = _refine(scores[clearest], low, size, high)
    return Onset(low, high, float(observed[clearest]), (reached + 1) / total)


def _upper(ranks: Floats, share: float) -> Floats:
    """Only the slowest share counts, the more the slower."""
    upper: Floats = np.maximum(ranks - (0.5 - share), 0.0)
    return upper


def _unit(scores: Floats) -> Floats:
    """Around 0 with the spread 1, so that statistics of different scores can be compared."""
    spread = scores.std()
    centred: Floats = (scores - scores.mean()) / (spread if spread > 0 else 1.0)
    return centred


def _ranks(values: Floats) -> Floats:
    """Ranks from -0.5 to 0.5; equal values share theirs."""
    ranks: Floats = (stats.rankdata(values) - 1) / max(1, len(values) - 1) - 0.5
    return ranks


def _runs(draw: np.random.Generator, count: int, run: int, rounds: int) -> Ints:
    """Permutations of 0..count in which runs of `run` neighbours stay together."""
    groups = -(-count // run)
    offset = draw.integers(0, run, size=(rounds, 1))
    of_block = (np.arange(count)[None, :] + offset) // run
    key = draw.random((rounds, groups + 1))
    return np.lexsort(
        (np.broadcast_to(np.arange(count), of_block.shape), np.take_along_axis(key, of_block, 1)),
        axis=1,
    )


def _best(means: Floats, sizes: Floats, least: int, ended: bool) -> tuple[Floats, Ints, Ints]:
    """Per row the largest upward shift of [begin, end) against what came before it and after it.

    `ended`: also stretches that end before the last block, with enough after them to be told.
    """
    count = means.shape[1]
    total = np.concatenate([np.zeros((len(means), 1)), np.cumsum(means * sizes, axis=1)], axis=1)
    length = np.concatenate([[0.0], np.cumsum(sizes)])
    pairs = [
        (begin, end)
        for begin in range(least, count - least + 1)
        for end in [count, *(range(begin + least, count - least + 1, 2) if ended else ())]
    ]
    begins, ends = np.array(pairs).T
    inside = total[:, ends] - total[:, begins]
    n = length[ends] - length[begins]
    rest = length[-1] - n
    shift = inside / n - (total[:, -1:] - inside) / rest
    # Not divided by its spread: a burst of a second would beat a shift that lasts.
    score = shift * n * rest / length[-1] ** 1.5
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
    score = (after - before) * at * (high - at)
    return int(at[np.argmax(score)])
