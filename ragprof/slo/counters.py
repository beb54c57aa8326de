"""Counters -> events: how many happened when, from samples with resets and gaps.

Not `increase()`: that extrapolates to the edges of its window and misses the first events of a
series that appears with its first error. Here an increment belongs to the time between two
samples, and a window gets the share of it that it covers, so windows add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
GAP = 2.5
"""Samples further apart than so many scrape intervals have a gap between them."""


@dataclass(frozen=True)
class Series:
    """The samples of one counter: times in s since 1970, ascending; values never NaN.

    `zero_at` is when it stood at zero, if that is known to be before the first sample: its process
    began then, or its target was scraped then and did not have it. Then its first value is events,
    too; otherwise nobody knows when they happened, and they are not counted.
    """

    times: Floats
    values: Floats
    zero_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """Increments: `count` events happened after `begin` and up to `end` (s since 1970)."""

    begin: Floats
    end: Floats
    count: Floats
    resets: int = 0

    def between(self, since: float, until: float) -> float:
        """Events in the window; of an increment that only partly lies in it, that share."""
        return float(self.in_windows([since, until])[0]) if until > since else 0.0

    def in_windows(self, edges: Sequence[float] | Floats) -> Floats:
        """Events between each two neighbouring `edges` (ascending, s since 1970)."""
        return np.asarray(np.diff(self.until(np.asarray(edges, float))), float)

    def until(self, times: Floats) -> Floats:
        """Events from the beginning of the samples up to each of `times`."""
        if not len(self.count):
            return np.zeros(len(times))
        knots = np.unique(np.concatenate([self.begin, self.end]))
        # Each increment adds its rate where it begins and takes it away where it ends. Sums of
        # rates would drift, so whole increments are counted and only cut ones are shared out.
        ended = np.sort(self.end)
        whole = np.concatenate([[0.0], np.cumsum(self.count[np.argsort(self.end, kind="stable")])])
        at_knots = whole[np.searchsorted(ended, knots, side="right")]
        at_knots = at_knots + self._cut(knots)
        return np.asarray(np.interp(times, knots, at_knots), np.float64)

    def _cut(self, times: Floats) -> Floats:
        """The shares, up to each of `times`, of increments that have begun and not ended."""
        order = np.argsort(self.begin, kind="stable")
        rate = self.count / np.maximum(self.end - self.begin, 1e-9)
        by_end = np.argsort(self.end, kind="stable")
        begun = np.searchsorted(self.begin[order], times, side="right")
        gone = np.searchsorted(self.end[by_end], times, side="right")

        def sums(values: Floats) -> Floats:
            opened = np.concatenate([[0.0], np.cumsum(values[order])])[begun]
            closed = np.concatenate([[0.0], np.cumsum(values[by_end])])[gone]
            return np.asarray(opened - closed, np.float64)

        origin = float(self.begin.min())  # small numbers keep their digits
        share = sums(rate) * (times - origin) - sums(rate * (self.begin - origin))
        return np.asarray(share, np.float64)

    @property
    def total(self) -> float:
        return float(self.count.sum())


def events(series: Iterable[Series]) -> Events:
    """The events of several counters together.

    A value below the one before is a reset: the counter began anew at zero, and what it had
    counted after the last sample is lost.
    """
    begins, ends, counts, resets = [], [], [], 0
    for one in series:
        if not len(one.times):
            continue
        if one.zero_at is not None and one.zero_at < one.times[0]:
            begins.append(np.array([one.zero_at]))
            ends.append(one.times[:1])
            counts.append(np.maximum(one.values[:1], 0.0))
        steps = np.diff(one.values)
        fell = steps < 0
        resets += int(fell.sum())
        begins.append(one.times[:-1])
        ends.append(one.times[1:])
        counts.append(np.where(fell, np.maximum(one.values[1:], 0.0), steps))
    if not begins:
        empty = np.zeros(0)
        return Events(empty, empty, empty)
    return Events(np.concatenate(begins), np.concatenate(ends), np.concatenate(counts), resets)


def without(total: Events, good: Events) -> Events:
    """The events of `total` that are not `good`, at the times of both."""
    return Events(
        np.concatenate([total.begin, good.begin]),
        np.concatenate([total.end, good.end]),
        np.concatenate([total.count, -good.count]),
        total.resets,
    )


def covered(
    times: Iterable[Floats], interval: float, since: float, until: float
) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of the window in which at least one of the targets was scraped, and the gaps.

    `times` are the sample times of each series. A sample stands for the interval before it;
    samples at most `GAP` intervals apart have no gap between them.
    """
    arrays = [np.asarray(each, float) for each in times if len(each)]
    if until <= since:
        return 0.0, []
    if not arrays:
        return 0.0, [(since, until)]
    seen = np.unique(np.concatenate(arrays))
    limit = GAP * interval
    breaks = np.flatnonzero(np.diff(seen) > limit)
    begins = np.concatenate([seen[:1] - interval, seen[breaks + 1] - interval])
    ends = np.concatenate([seen[breaks], seen[-1:] + interval])
    gaps, at, inside = [], since, 0.0
    for begin, end in zip(begins, ends, strict=True):
        low, high = max(begin, at), min(end, until)
        if high <= low:
            continue
        if low - at > limit:
            gaps.append((float(at), float(low)))
        inside += high - low
        at = high
    if until - at > limit:
        gaps.append((float(at), float(until)))
    return float(min(inside, until - since)), gaps


def scrape_interval(times: Iterable[Floats], default: float = 15.0) -> float:
    """The usual distance of samples in seconds: the median over all series."""
    steps = [np.diff(np.asarray(each, float)) for each in times if len(each) > 1]
    if not steps:
        return default
    return float(np.median(np.concatenate(steps))) or default
