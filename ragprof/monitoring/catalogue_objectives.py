"""What the service promises: indicators, objectives, and the burn rates that raise an alarm.

An indicator of events has `bad` and `total`, counted by queries over a window; it has an error
budget. An indicator that is a mean has no events, so it has a value and a trend, and no budget.
Queries hold `$window` where the range goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

WINDOW = "$window"


@dataclass(frozen=True)
class Indicator:
    """One SLI.

    `total` and `bad` count events in `$window` (event indicators; both answer with one value, or
    with none when there was no traffic at all); `mean` is the value of an indicator without
    events. `beside` are queries to report beside it, by name.
    """

    name: str
    description: str
    unit: str
    total: str = ""
    bad: str = ""
    mean: str = ""
    beside: tuple[tuple[str, str], ...] = ()

    @property
    def has_events(self) -> bool:
        """Whether there is something to budget."""
        return bool(self.total)

    def total_events(self, window: str) -> str:
        """The query for the number of events in `window` (a PromQL duration)."""
        return self.total.replace(WINDOW, window)

    def bad_events(self, window: str) -> str:
        """The query for the number of bad events in `window`; 0 when there were only good ones."""
        return self.bad.replace(WINDOW, window)

    def error_ratio(self, window: str) -> str:
        """The query for the share of bad events in `window`: nothing or NaN without traffic."""
        return f"({self.bad_events(window)}) / ({self.total_events(window)})"

    def value(self, window: str) -> str:
        """The query for the indicator itself: the share of good events, or the mean."""
        if not self.has_events:
            return self.mean.replace(WINDOW, window)
        return f"1 - {self.error_ratio(window)}"


@dataclass(frozen=True)
class Objective:
    """One SLO: the indicator must reach `target` (0 to 1) over `window_days`."""

    name: str
    indicator: Indicator
    target: float
    window_days: int
    description: str

    @property
    def has_budget(self) -> bool:
        """Whether it has an error budget: only events can be budgeted."""
        return self.indicator.has_events


@dataclass(frozen=True)
class BurnRate:
    """Alarm when the budget burns `factor` times too fast over both windows (PromQL durations)."""

    factor: float
    long: str
    short: str
    severity: Literal["critical", "warning"]
    wait: str
    budget_share: float
    """The part of a 30-day budget that is gone when the long window has burned so."""


# Google's SRE workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".
BURN_RATES = (
    BurnRate(14.4, "1h", "5m", "critical", "2m", 0.02),
    BurnRate(6, "6h", "30m", "critical", "15m", 0.05),
    BurnRate(1, "3d", "6h", "warning", "1h", 0.10),
)

_REQUESTS = "sum(increase(rag_http_requests_total[$window]))"
_TIMED = "sum(increase(rag_http_request_duration_seconds_count[$window]))"

API_AVAILABILITY = Indicator(
    "api_availability",
    "Share of requests whose status is not 5xx.",
    "percentunit",
    total=_REQUESTS,
    # Without a single 5xx its series does not exist: then there are 0 bad events, not none known.
    bad=f'sum(increase(rag_http_requests_total{{status_code=~"5.."}}[$window])) or {_REQUESTS} * 0',
)

API_LATENCY = Indicator(
    "api_latency",
    "Share of requests that took at most 500 ms.",
    "percentunit",
    total=_TIMED,
    bad=(
        f'{_TIMED} - sum(increase(rag_http_request_duration_seconds_bucket{{le="0.5"}}[$window]))'
    ),
    beside=(
        (
            "p95",
            "histogram_quantile(0.95, sum by (le) "
            "(rate(rag_http_request_duration_seconds_bucket[$window])))",
        ),
    ),
)

SEARCH_QUALITY = Indicator(
    "search_quality",
    "Mean relevance score of searches, 0 to 1.",
    "percentunit",
    mean=(
        "sum(increase(rag_search_relevance_score_sum[$window])) "
        "/ sum(increase(rag_search_relevance_score_count[$window]))"
    ),
)

INDICATORS = (API_AVAILABILITY, API_LATENCY, SEARCH_QUALITY)

OBJECTIVES = (
    Objective(
        "api_availability",
        API_AVAILABILITY,
        0.999,
        30,
        "99.9 % of requests are answered without a server error.",
    ),
    Objective(
        "api_latency",
        API_LATENCY,
        0.95,
        30,
        "95 % of requests are answered within 500 ms.",
    ),
    Objective(
        "search_quality",
        SEARCH_QUALITY,
        0.85,
        7,
        "The mean relevance score is at least 0.85: status and trend, no budget.",
    ),
)

OBJECTIVE_BY_NAME: Mapping[str, Objective] = {each.name: each for each in OBJECTIVES}
