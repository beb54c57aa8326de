"""`ErrorBudgetMonitor`: budgets, burn rates and means of objectives, now or of a Recording."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragprof.monitoring import indicators
from ragprof.monitoring.catalogue_objectives import OBJECTIVES, Objective
from ragprof.slo import budget, counters, objectives
from ragprof.slo.budget import ErrorBudget
from ragprof.slo.counters import Events
from ragprof.slo.samples import Samples, source_of, whole_window

if TYPE_CHECKING:
    from ragprof.recording import Recording


@dataclass(frozen=True)
class Counted:
    """The events of one objective over a window (s since 1970), and how well it is known."""

    objective: Objective
    total: Events
    bad: Events
    since: float
    until: float
    coverage: float
    gaps: list[tuple[float, float]]
    samples: Samples

    def error_budget(self) -> ErrorBudget:
        return budget.error_budget(
            self.objective.name, self.objective.target, self.total, self.bad,
            self.since, self.until, self.coverage,
        )  # fmt: skip


class ErrorBudgetMonitor:
    """Answers for objectives from a Prometheus (its URL) or from a Recording.

    The window ends now, at `at` (s since 1970), or where the Recording ends.
    """

    def __init__(
        self,
        source: str | Recording,
        objectives: Sequence[Objective] = OBJECTIVES,
        at: float | None = None,
    ) -> None:
        self.source = source_of(source)
        self.objectives = tuple(objectives)
        self.at = at

    def calculate_error_budget(
        self, slo_name: str, window_days: float | None = None
    ) -> dict[str, Any]:
        """The budget of an objective over `window_days` (its own window when None).

        Keys: slo, target, actual, budget_total_minutes, budget_used_minutes,
        budget_remaining_minutes, budget_remaining_percentage; by events: events,
        budget_total_events, budget_used_events, budget_remaining_events, burn_rate, burn_rates
        (by window), seconds_to_exhaustion; and window_days, coverage, reason. Unknown is None,
        and `reason` says why. Raises ObjectiveError for an unknown name and for an objective
        that is a mean: that has no events to budget.
        """
        found = self.counted(slo_name, window_days)
        answer = found.error_budget().to_dict()
        if found.samples.note:
            answer["reason"] = "; ".join(
                part for part in (answer["reason"], found.samples.note) if part
            )
        return answer

    def counted(self, slo_name: str, window_days: float | None = None) -> Counted:
        """The events of an objective. Raises ObjectiveError as `calculate_error_budget` does."""
        objective = objectives.named(slo_name, self.objectives)
        if not objective.has_budget:
            raise objectives.ObjectiveError(
                f"objective {slo_name!r} is a mean: it has no events and so no budget; "
                "ask for its status instead"
            )
        asked = indicators.counters(objective.indicator)
        chosen = [each for each in (asked.total, asked.bad, asked.good) if each is not None]
        since, until = self._window(objective, window_days)
        samples = self.source.samples(chosen, since, until)
        total = counters.events(samples.series[asked.total])
        if asked.bad is not None:
            bad = counters.events(samples.series[asked.bad])
        else:
            assert asked.good is not None
            bad = counters.without(total, counters.events(samples.series[asked.good]))
        exists = bool(samples.series[asked.total])
        seconds, gaps = counters.covered(samples.scrapes, samples.interval, since, until)
        if exists and not seconds:  # a source without `up`: the counters' own samples tell
            times = [each.times for each in samples.series[asked.total]]
            seconds, gaps = counters.covered(times, samples.interval, since, until)
        coverage = seconds / (until - since) if exists else 0.0
        return Counted(objective, total, bad, since, until, coverage, gaps, samples)

    def mean(self, slo_name: str, window_days: float | None = None) -> dict[str, Any]:
        """Status of an objective that is a mean: value, whether it is met, and the trend.

        The trend is the mean of the window's second half minus that of its first.
        """
        objective = objectives.named(slo_name, self.objectives)
        over, under = indicators.mean_counters(objective.indicator)
        since, until = self._window(objective, window_days)
        samples = self.source.samples([over, under], since, until)
        totals, counts = (counters.events(samples.series[each]) for each in (over, under))
        begin = max(since, float(counts.begin.min())) if len(counts.begin) else since
        middle = (begin + until) / 2
        whole, first, second = (
            _mean(totals, counts, *edges)
            for edges in ((since, until), (begin, middle), (middle, until))
        )
        return {
            "slo": slo_name,
            "target": objective.target,
            "actual": whole,
            "met": None if whole is None else whole >= objective.target,
            "trend": None if first is None or second is None else second - first,
            "events": counts.between(since, until) if samples.series[under] else None,
            "window_days": (until - since) / budget.DAY,
            "reason": "" if whole is not None else "no observations in the window",
        }

    def _window(self, objective: Objective, days: float | None) -> tuple[float, float]:
        now = time.time() if self.at is None else self.at
        if self.at is not None:
            length = objective.window_days if days is None else days
            return now - length * budget.DAY, now
        return whole_window(self.source, objective.window_days if days is None else days, now)


def _mean(totals: Events, counts: Events, since: float, until: float) -> float | None:
    number = counts.between(since, until)
    return totals.between(since, until) / number if number > 1e-9 else None
