"""The alert state machine of Prometheus over history (rules/alerting.go of Prometheus 2.42).

An alert is a set of labels. It is pending from the evaluation at which the expression first gives
it, fires at the first evaluation that is `for` later, and is over at the first one without it;
with `keep_firing_for` it goes on firing for that long after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ragprof.slo.counters import Floats
from ragprof.slo.prometheus import Row
from ragprof.slo.rulefile import AlertRule, RuleError


@dataclass(frozen=True)
class Episode:
    """One time that an alert was active; times in s since 1970.

    `fired` is None when it was only pending, `ended` is None when history ends before it does.
    `worst` is the value of the expression that was furthest from 0.
    """

    alert: str
    labels: Mapping[str, str]
    active: float
    fired: float | None
    ended: float | None
    worst: float

    def seconds(self, until: float) -> float:
        """How long it fired; until `until` when it still does."""
        if self.fired is None:
            return 0.0
        return (until if self.ended is None else self.ended) - self.fired


def episodes(rule: AlertRule, rows: Iterable[Row], steps: Floats) -> list[Episode]:
    """The episodes of a rule, from the rows that its expression has at the evaluations `steps`.

    Raises RuleError when two rows make the same alert, as Prometheus does.
    """
    found: list[Episode] = []
    seen: dict[tuple[tuple[str, str], ...], tuple[Floats, Floats]] = {}
    for labels, times, values in rows:
        identity = tuple(sorted(rule.identity(labels).items()))
        if identity in seen:
            before, numbers = seen[identity]
            if len(np.intersect1d(before, times)):
                raise RuleError(
                    f"alert {rule.name!r}: two rows have the labels {dict(identity)}; aggregate "
                    "the expression so that its rows differ"
                )
            times, values = np.concatenate([before, times]), np.concatenate([numbers, values])
        seen[identity] = times, values
    for identity, (times, values) in seen.items():
        order = np.argsort(times)
        at = np.round((times[order] - steps[0]) / _interval(steps)).astype(int)
        found += _of_one(rule, dict(identity), at, values[order], steps)
    return sorted(found, key=lambda each: (each.active, sorted(each.labels.items())))


def _of_one(
    rule: AlertRule, labels: dict[str, str], at: np.ndarray, values: Floats, steps: Floats
) -> list[Episode]:
    """The episodes of one alert that is active at the steps `at` (ascending)."""
    breaks = np.flatnonzero(np.diff(at) > 1)
    starts = np.concatenate([[0], breaks + 1]) if len(at) else np.zeros(0, int)
    ends = np.concatenate([breaks, [len(at) - 1]]) if len(at) else np.zeros(0, int)
    found: list[Episode] = []
    fired: float | None
    for start, end in zip(starts, ends, strict=True):
        first, gone = int(at[start]), int(at[end]) + 1  # gone: the first step without it
        worst = float(values[start : end + 1][np.argmax(np.abs(values[start : end + 1]))])
        last = found[-1] if found else None
        if (
            last is not None
            and last.fired is not None
            and (last.ended is None or last.ended >= steps[first])
        ):  # kept firing until it came back: still the same alert
            active = last.active
            fired = last.fired
            worst = max(last.worst, worst, key=abs)
            found.pop()
        else:
            active = float(steps[first])
            fired = None
            fires = int(np.searchsorted(steps, active + rule.wait - 1e-6))
            if fires < gone:
                fired = float(steps[fires])
        ended = _end(rule, steps, gone, fired is not None)
        found.append(Episode(rule.name, labels, active, fired, ended, worst))
    return found


def _end(rule: AlertRule, steps: Floats, gone: int, firing: bool) -> float | None:
    """The step at which an alert is over that the expression stops giving at step `gone`."""
    if gone >= len(steps):
        return None
    if firing and rule.keep > 0:
        over = int(np.searchsorted(steps, steps[gone] + rule.keep - 1e-6))
        return float(steps[over]) if over < len(steps) else None
    return float(steps[gone])


def _interval(steps: Floats) -> float:
    return float(steps[1] - steps[0]) if len(steps) > 1 else 1.0
