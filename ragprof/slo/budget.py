"""Error budgets and burn rates by events.

The arithmetic of the SRE workbook (Google, 2018, chapters 2 and 5), with the budget counted in
events: ``(1 - target) * events`` of them may be bad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragprof.slo.counters import Events, Floats

DAY = 86_400.0
BURN_WINDOWS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "6h": 21_600.0, "3d": 259_200.0}
"""The windows of the burn rate alerts, in seconds."""


@dataclass(frozen=True)
class ErrorBudget:
    """The budget of one objective over one window.

    Counts are None when the window has no data at all; `actual` is None as well when there were
    no events: then nothing failed, the budget is whole, and `reason` says so.
    """

    slo: str
    target: float
    window_days: float
    events: float | None
    bad_events: float | None
    coverage: float
    """The share of the window in which the service was scraped, 0 to 1."""
    burn_rates: dict[str, float | None]
    reason: str = ""

    @property
    def actual(self) -> float | None:
        """The share of good events, 0 to 1."""
        if not self.events or self.bad_events is None:
            return None
        return 1.0 - self.bad_events / self.events

    @property
    def budget_events(self) -> float | None:
        """How many events may be bad."""
        return None if self.events is None else (1.0 - self.target) * self.events

    @property
    def used(self) -> float | None:
        """The share of the budget that is used: 0 untouched, 1 gone, above 1 overdrawn.

        It is also the burn rate over the whole window.
        """
        if self.events is None or self.bad_events is None:
            return None
        return burn_rate(self.events, self.bad_events, self.target)

    @property
    def seconds_to_exhaustion(self) -> float | None:
        """At the burn rate of the last hour; None when the budget does not burn or is unknown.

        A window that keeps burning at rate b uses b budgets in its length.
        """
        burn, used = self.burn_rates.get("1h"), self.used
        if burn is None or used is None:
            return None
        if used >= 1:
            return 0.0
        return (1 - used) * self.window_days * DAY / burn if burn > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """The budget in minutes and in events, as JSON has it (no NaN; unknown is null)."""
        minutes = self.window_days * DAY / 60
        budget_minutes = (1 - self.target) * minutes
        used = self.used
        used_minutes = None if used is None else used * budget_minutes
        remaining = None if used is None else 1 - used
        allowed = self.budget_events
        return {
            "slo": self.slo,
            "target": self.target,
            "actual": self.actual,
            "budget_total_minutes": budget_minutes,
            "budget_used_minutes": used_minutes,
            "budget_remaining_minutes": None if remaining is None else remaining * budget_minutes,
            "budget_remaining_percentage": None if remaining is None else 100 * remaining,
            "events": self.events,
            "budget_total_events": allowed,
            "budget_used_events": self.bad_events,
            "budget_remaining_events": (
                None if allowed is None or self.bad_events is None else allowed - self.bad_events
            ),
            "burn_rate": used,
            "burn_rates": dict(self.burn_rates),
            "seconds_to_exhaustion": self.seconds_to_exhaustion,
            "window_days": self.window_days,
            "coverage": self.coverage,
            "reason": self.reason,
        }


def burn_rate(events: float, bad_events: float, target: float) -> float:
    """Times as fast as the budget allows; 0 without events, inf when a target of 1 is missed."""
    if events <= 0 or bad_events <= 0:
        return 0.0
    return bad_events / events / (1 - target) if target < 1 else math.inf


def burn_rates(total: Events, bad: Events, target: float, window: float, at: Floats) -> Floats:
    """The burn rate over the `window` seconds before each of `at` (s since 1970)."""
    events = total.until(at) - total.until(at - window)
    failed = bad.until(at) - bad.until(at - window)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = failed / events / (1 - target)
    return np.where(events > 1e-9, np.maximum(rates, 0.0), 0.0)


def error_budget(
    slo: str,
    target: float,
    total: Events,
    bad: Events,
    since: float,
    until: float,
    coverage: float = 1.0,
) -> ErrorBudget:
    """The budget over ``[since, until)``, s since 1970. With coverage 0 nothing is known."""
    days = (until - since) / DAY
    if coverage <= 0:
        return ErrorBudget(
            slo, target, days, None, None, 0.0, dict.fromkeys(BURN_WINDOWS),
            "no data: the series of this objective do not exist in the window",
        )  # fmt: skip
    events, failed = total.between(since, until), bad.between(since, until)
    burning: dict[str, float | None] = {
        name: float(burn_rates(total, bad, target, seconds, np.array([until]))[0])
        for name, seconds in BURN_WINDOWS.items()
    }
    reason = "" if events > 0 else "no events: nothing was asked, so nothing failed"
    failed = min(max(failed, 0.0), events)
    return ErrorBudget(slo, target, days, events, failed, coverage, burning, reason)


def burn_down(
    total: Events, bad: Events, target: float, since: float, until: float, points: int = 200
) -> tuple[Floats, Floats]:
    """Times (s since 1970) and the share of the budget that is left at each of them.

    The budget is that of the whole window's events, so the line ends at what is left.
    """
    at = np.linspace(since, until, points)
    events = total.between(since, until)
    failed = bad.until(at) - bad.until(np.array([since]))
    if events <= 0 or target >= 1:
        return at, np.where(failed > 0, -np.inf, 1.0)
    return at, 1 - failed / ((1 - target) * events)
