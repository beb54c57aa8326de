"""Conditions such as ``self(rerank)>+10%``: measured, with a bootstrap interval, judged.

A gate fails only when the lower bound of the interval of the change exceeds the limit, so that
noise alone rarely fails it, and it does not pass or fail at all on too little data.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ragprof.errors import RagprofError
from ragprof.profiles.model import Floats, Profile
from ragprof.profiles.quantities import NANOSECONDS

LEVEL = 0.95
"""Of the two-sided interval whose lower bound is compared with the limit."""
DRAWS = 4_000
MOST_DRAWN = 40_000_000
LEAST_REQUESTS = 20
LEAST_REPEATS = 5
BEYOND = 3
"""A percentile needs so many requests beyond it: p95 needs 60, p99 needs 300."""

Outcome = Literal["passed", "failed", "too little data"]

_CONDITION = re.compile(
    r"\s*(?P<metric>self|total|mean|p\d{1,2}(?:\.\d+)?)\s*\(\s*(?P<name>.+?)\s*\)"
    r"\s*>\s*\+?\s*(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>%|ns|us|µs|ms|s)?\s*"
)


class ConditionError(RagprofError):
    """A condition that cannot be read or cannot be measured on what was given."""


@dataclass(frozen=True)
class Condition:
    """``metric`` of what ``name`` (a regular expression) matches may not grow by over ``limit``.

    self and total: weight of the matching functions per request or repeat. mean and percentiles:
    the time in the matching spans per request. ``limit``: a share when ``relative``,
    else in nanoseconds, or in the profile's unit where the text had none.
    """

    text: str
    metric: str
    name: re.Pattern[str]
    limit: float
    relative: bool

    @property
    def of_spans(self) -> bool:
        """Whether it reads the spans of a Recording instead of stacks."""
        return self.metric not in ("self", "total")

    @property
    def quantile(self) -> float | None:
        """The share that lies below the percentile; None for means and sums."""
        return float(self.metric[1:]) / 100 if self.metric[1].isdigit() else None


@dataclass(frozen=True)
class Verdict:
    """One condition judged. ``before``, ``after``: the statistic. ``change``, ``low``, ``high``:
    after against before and its interval, shares when the condition is relative. ``counts``: the
    requests or repeats on both sides."""

    condition: Condition
    outcome: Outcome
    before: float
    after: float
    change: float
    low: float
    high: float
    counts: tuple[int, int]
    reason: str


def condition(text: str) -> Condition:
    """Reads ``self(NAME)>+10%``, ``total(NAME)>+5ms``, ``p95(SPAN)>+10%``. Raises `ConditionError`
    that shows the form."""
    found = _CONDITION.fullmatch(text)
    if not found:
        raise ConditionError(
            f"{text!r} is not a condition: write METRIC(NAME)>+LIMIT, with METRIC self, total, "
            "mean or a percentile, and LIMIT in % or a time, such as self(rerank)>+10%."
        )
    try:
        name = re.compile(found["name"], re.IGNORECASE)
    except re.error as error:
        raise ConditionError(
            f"{text!r}: {found['name']!r} is not a regular expression ({error})."
        ) from error
    limit, unit = float(found["limit"]), found["unit"] or ""
    if unit == "%":
        return Condition(text, found["metric"], name, limit / 100, True)
    return Condition(text, found["metric"], name, limit * NANOSECONDS.get(unit, 1.0), False)


def matching(profile: Profile, asked: Condition) -> Floats:
    """Per sample the weight in functions that match: its innermost one (self), or any (total)."""
    hits = np.array([bool(asked.name.search(frame.function)) for frame in profile.frames], bool)
    counts = profile.stack_count
    of_stack = np.zeros(counts, dtype=bool)
    lengths = np.diff(profile.stack_offsets)
    if asked.metric == "self":
        some = lengths > 0
        of_stack[some] = hits[profile.stack_frames[profile.stack_offsets[1:][some] - 1]]
    elif len(profile.stack_frames):
        inside = hits[profile.stack_frames]
        of_stack[np.repeat(np.arange(counts), lengths)[inside]] = True
    weights: Floats = np.where(of_stack[profile.sample_stacks], profile.values[:, 0], 0.0)
    return weights


def judge(
    asked: Condition, before: Floats, after: Floats, *, least: int = LEAST_REQUESTS
) -> Verdict:
    """The verdict on one number per request (or repeat) before and after."""
    counts = (len(before), len(after))
    quantile = asked.quantile
    if quantile is not None:
        least = max(least, math.ceil(BEYOND / (1 - quantile) - 1e-9))
    nan = math.nan
    then = _statistic(before, quantile) if len(before) else nan
    now = _statistic(after, quantile) if len(after) else nan
    change = _change(np.array([then]), np.array([now]), asked.relative)[0]
    if min(counts) < least:
        reason = f"{counts[0]} and {counts[1]} of at least {least} that {asked.metric} needs"
        return Verdict(asked, "too little data", then, now, float(change), nan, nan, counts, reason)
    low, high = _interval(asked, before, after)
    outcome: Outcome = "failed" if low > asked.limit else "passed"
    reason = (
        "the lower bound of the change exceeds the limit"
        if outcome == "failed"
        else "the change may be within the limit"
        if change > asked.limit
        else "the change is within the limit"
    )
    return Verdict(asked, outcome, then, now, float(change), low, high, counts, reason)


def _statistic(values: Floats, quantile: float | None) -> float:
    if quantile is None:
        return float(values.mean())
    return float(np.sort(values)[_rank(len(values), quantile) - 1])


def _rank(count: int, quantile: float) -> int:
    """The order statistic (from 1) that is the quantile."""
    return max(1, min(count, math.ceil(quantile * count - 1e-9)))


def _interval(asked: Condition, before: Floats, after: Floats) -> tuple[float, float]:
    """The expanded percentile bootstrap interval of the change (Hesterberg 2015, section 5.2).

    Both sides are drawn anew, independently. The percentiles are those of Student's t instead of
    the normal distribution, widened by sqrt(n / (n - 1)), as plain ones are too narrow for few
    values. The draws are seeded: the same data gives the same verdict.
    """
    from scipy import stats

    random = np.random.default_rng(20_150)
    draws = max(500, min(DRAWS, MOST_DRAWN // max(len(before), len(after))))
    then = _drawn(random, before, asked.quantile, draws)
    now = _drawn(random, after, asked.quantile, draws)
    count = min(len(before), len(after))
    bound = stats.t.ppf((1 - LEVEL) / 2, count - 1) * math.sqrt(count / (count - 1))
    tail = float(stats.norm.cdf(bound))
    changes = np.sort(_change(then, now, asked.relative))
    low = changes[int(tail * (draws - 1))]
    high = changes[math.ceil((1 - tail) * (draws - 1))]
    return float(low), float(high)


def _drawn(
    random: np.random.Generator, values: Floats, quantile: float | None, draws: int
) -> Floats:
    """The statistic of ``draws`` samples with replacement, each as large as ``values``."""
    count = len(values)
    if quantile is not None:  # the order statistic of uniform ranks has a beta distribution
        rank = _rank(count, quantile)
        at = np.ceil(random.beta(rank, count - rank + 1, draws) * count).astype(np.int64)
        ordered: Floats = np.sort(values)[np.clip(at, 1, count) - 1]
        return ordered
    means = np.empty(draws)
    step = max(1, 2_000_000 // count)
    for low in range(0, draws, step):
        size = min(step, draws - low)
        means[low : low + size] = values[random.integers(0, count, (size, count))].mean(axis=1)
    return means


def _change(before: Floats, after: Floats, relative: bool) -> Floats:
    """After against before; from nothing to something is infinite growth."""
    if not relative:
        return after - before
    with np.errstate(divide="ignore", invalid="ignore"):
        change: Floats = np.where(before > 0, after / before - 1, np.where(after > 0, np.inf, 0.0))
    return np.where(np.isnan(before) | np.isnan(after), np.nan, change)
