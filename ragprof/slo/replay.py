"""Alert rules on history: when each would have fired, whether that was right, and other thresholds.

Expressions are evaluated by Prometheus at the rule's own interval; only the state machine is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragprof.errors import RagprofError
from ragprof.monitoring import promql
from ragprof.monitoring.promql import quoted
from ragprof.slo.firing import Episode, episodes
from ragprof.slo.incidents import Incident, Score, score
from ragprof.slo.prometheus import Prometheus
from ragprof.slo.rulefile import AlertRule, seconds

Progress = Callable[[str, int, int], None]
"""Called with what is evaluated, and how many of how many queries are done."""


class ReplayError(RagprofError):
    """A replay that cannot be done."""


@dataclass(frozen=True)
class Replayed:
    """One rule over one window (s since 1970). `notes` say what is not as it would be live."""

    rule: AlertRule
    since: float
    until: float
    episodes: list[Episode]
    notes: list[str] = field(default_factory=list)

    @property
    def fired(self) -> list[Episode]:
        return [each for each in self.episodes if each.fired is not None]

    def score(self, incidents: Sequence[Incident]) -> Score:
        """Precision and recall against labelled incidents."""
        return score(self.rule.name, self.fired, incidents, self.until)

    def to_dict(self, incidents: Sequence[Incident] | None = None) -> dict[str, Any]:
        """For JSON; times as ISO 8601, durations in seconds."""
        answer: dict[str, Any] = {
            "alert": self.rule.name,
            "expression": self.rule.expression,
            "interval_s": self.rule.interval,
            "for_s": self.rule.wait,
            "keep_firing_for_s": self.rule.keep,
            "fired": len(self.fired),
            "firing_s": sum(each.seconds(self.until) for each in self.fired),
            "pending_only": len(self.episodes) - len(self.fired),
            "episodes": [
                {
                    "labels": dict(each.labels),
                    "active": iso(each.active),
                    "fired": iso(each.fired),
                    "ended": iso(each.ended),
                    "firing_s": each.seconds(self.until),
                    "worst": each.worst if math.isfinite(each.worst) else None,
                }
                for each in self.episodes
            ],
            "notes": self.notes,
        }
        if incidents is not None:
            answer |= self.score(incidents).to_dict()
        return answer


def replay(
    prometheus: Prometheus,
    rule: AlertRule,
    since: float,
    until: float,
    *,
    progress: Progress | None = None,
) -> Replayed:
    """One rule from `since` to `until` (s since 1970), at its interval.

    Evaluations stand where the Prometheus itself evaluated the rule, when it has stored that
    (``ALERTS_FOR_STATE``), else at multiples of the interval. Raises SourceError, RuleError.
    """
    if until <= since:
        raise ReplayError("the window ends before it begins; swap its times")
    phase, notes = _phase(prometheus, rule, since, until)
    steps = _steps(since, until, rule.interval, phase)
    if not len(steps):
        raise ReplayError(
            f"alert {rule.name!r}: no evaluation falls into a window of {until - since:g} s at an "
            f"interval of {rule.interval:g} s; take a longer window"
        )
    rows = prometheus.query_range(
        rule.expression,
        float(steps[0]),
        float(steps[-1]),
        rule.interval,
        (lambda done, of: progress(rule.name, done, of)) if progress else None,
    )
    return Replayed(rule, since, until, episodes(rule, rows, steps), notes)


def sweep(
    prometheus: Prometheus,
    rule: AlertRule,
    thresholds: Iterable[float],
    since: float,
    until: float,
    *,
    progress: Progress | None = None,
) -> list[tuple[float, Replayed]]:
    """The rule with each threshold in the place of its own. Raises ExpressionError without one."""
    return [
        (value, replay(prometheus, rule.with_threshold(value), since, until, progress=progress))
        for value in thresholds
    ]


def longest_window(expression: str) -> float:
    """The longest range in an expression in seconds: so long after the first point it is full."""
    found = [seconds(token.text) for token in promql.tokens(expression) if token.kind == "duration"]
    return max(found, default=0.0)


def first_point(prometheus: Prometheus, since: float, until: float) -> float | None:
    """When the first point of `up` in the window is, to 1/2000 of it; None without any."""
    step = max((until - since) / 2000, 1.0)
    query = f"count(count_over_time(up[{math.ceil(step * 1000)}ms]))"
    rows = prometheus.query_range(query, since, until + step, step)
    found = min((float(times[0]) for _, times, _ in rows), default=None)
    return None if found is None else max(since, found - step)


def retention(prometheus: Prometheus) -> float | None:
    """How long the server keeps points, in seconds; None when it does not tell."""
    try:  # such as 15d, or 15d or 10GiB
        text = str(prometheus.call("status/runtimeinfo").get("storageRetention", ""))
        return seconds(text.partition(" ")[0])
    except RagprofError:
        return None


def iso(moment: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds."""
    if moment is None:
        return None
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _phase(
    prometheus: Prometheus, rule: AlertRule, since: float, until: float
) -> tuple[float, list[str]]:
    """Where evaluations stand within the interval, from those that Prometheus stored."""
    selector = f"ALERTS_FOR_STATE{{alertname={quoted(rule.name)}}}"
    begin = max(since, until - 86_400)
    stored = [times for _, times, _ in prometheus.stored(selector, begin, until)]
    if not stored:
        return 0.0, []
    phases = np.round(np.concatenate(stored) % rule.interval, 3)
    values, counts = np.unique(phases, return_counts=True)
    phase = float(values[np.argmax(counts)])
    if counts.max() < 0.9 * counts.sum():
        return phase, ["Prometheus evaluated the rule at another interval at times"]
    return phase, []


def _steps(since: float, until: float, interval: float, phase: float) -> np.ndarray:
    first = math.ceil((since - phase) / interval - 1e-9) * interval + phase
    count = math.floor((until - first) / interval + 1e-9) + 1
    return first + interval * np.arange(max(count, 0))
