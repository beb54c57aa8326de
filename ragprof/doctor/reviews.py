"""The reviews: weekly objectives, monthly alerts, quarterly dashboards, the year's strategy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ragprof.doctor.after import panels_without_data
from ragprof.doctor.checks import FAILED, OK, WARNING, Check, Places, Result, not_asked
from ragprof.monitoring import dashboards
from ragprof.monitoring import rules as catalogue_rules
from ragprof.monitoring.catalogue import METRICS, SAMPLES
from ragprof.monitoring.catalogue_alerts import ALERTS
from ragprof.slo import history, replay, rulefile, status
from ragprof.slo.prometheus import Prometheus

DAY = 86_400.0
OFTEN = 20
"""Times a month that an alert fires before it counts as noise."""
LITTLE = 10.0  # per cent of a budget


def objectives(places: Places) -> Iterator[Result]:
    """Weekly: what is left of each budget."""
    name = "error budgets"
    if not places.prometheus:
        yield not_asked(name, "--prometheus URL")
        return
    found = status.read(places.prometheus)
    for one in found.to_dict()["objectives"]:
        left = one["budget_remaining_percentage"]
        if left is None:
            yield Result(
                name, WARNING, f"{one['slo']}: {one['reason']}", "check that it is scraped"
            )
            continue
        burn = one["burn_rates"]["6h"] or 0.0
        text = f"{one['slo']}: {left:.1f} % left, burn rate {burn:.2f} over 6 h"
        if left <= 0:
            step = "stop risky changes until the window has recovered; ragprof slo report"
            yield Result(name, FAILED, text, step)
        elif left < LITTLE or burn > 1:
            worst = found.worst_endpoints(str(one["slo"]))
            most = str(worst["endpoint"].iloc[0]) if len(worst) else "unknown"
            step = f"look at {most}, which takes most of it; ragprof slo report"
            yield Result(name, WARNING, text, step)
        else:
            yield Result(name, OK, text)
    for mean in found.to_dict()["means"]:
        if mean["actual"] is None:
            yield Result(name, WARNING, f"{mean['slo']}: {mean['reason']}", "check that it is fed")
            continue
        text = f"{mean['slo']}: {mean['actual']:.3f} against {mean['target']:g}"
        step = "" if mean["met"] else "compare the last change of model, index or chunking"
        yield Result(name, OK if mean["met"] else WARNING, text, step)


def alert_tuning(places: Places) -> Iterator[Result]:
    """Monthly: which alerts fired, how often, and which never did."""
    name = "alert tuning"
    if not places.prometheus:
        yield not_asked(name, "--prometheus URL")
        return
    rules = (
        rulefile.read(places.rules)
        if places.rules
        else rulefile.of_content(catalogue_rules.groups(), "the catalogue")
    )
    metrics = history.metrics_of(rules)
    with history.open_history(metrics, prometheus=places.prometheus, since="30d") as found:
        for rule in rules:
            one = replay.replay(found.prometheus, rule, found.since, found.until)
            fired = len(one.fired)
            seconds = sum(each.seconds(one.until) for each in one.fired)
            days = (found.until - found.since) / DAY
            text = f"{rule.name}: fired {fired} times in {days:.1f} days, {seconds:.0f} s together"
            if fired > OFTEN:
                step = "raise its threshold or its time: ragprof alerts replay --threshold X"
                yield Result(name, WARNING, text, step)
            elif not fired:
                step = "prove once a quarter that it can fire: its unit test, or a game day"
                yield Result(name, OK, f"{text}: never", step)
            else:
                yield Result(name, OK, text)


def dashboard_panels(places: Places) -> Result:
    """Quarterly: panels without data in the window."""
    name = "panels without data"
    if not places.prometheus:
        return not_asked(name, "--prometheus URL")
    empty = panels_without_data(places)
    panels = len({panel for panel, _ in dashboards.expressions()})
    text = f"{panels - len(empty)} of {panels} panels had data in {places.window / DAY:.3g} days"
    if not empty:
        return Result(name, OK, text)
    step = f"remove or repair: {', '.join(empty[:8])}"
    return Result(name, WARNING, text, step)


def strategy(places: Places) -> Iterator[Result]:
    """Annual: what is emitted and never asked for, retention, and the year's budgets."""
    if not places.prometheus:
        yield not_asked("the year's strategy", "--prometheus URL")
        return
    asked = {
        reference
        for _, query in [
            *dashboards.expressions(),
            *((alert.name, alert.expression) for alert in ALERTS),
        ]
        for reference in SAMPLES
        if reference in query
    }
    unused = [
        metric.name for metric in METRICS if not asked & {name for name, _ in metric.samples()}
    ]
    yield Result(
        "metrics that nobody asks for",
        WARNING if unused else OK,
        f"{len(unused)} of {len(METRICS)}: {', '.join(unused)}" if unused else "none",
        "put each on a panel, or stop emitting it" if unused else "",
    )
    with Prometheus(places.prometheus) as prometheus:
        kept = replay.retention(prometheus)
        series = prometheus.query("count({__name__=~'rag_.+'})", time.time())
    count = series[0][1] if series else 0
    yield Result(
        "series of the service",
        OK if 0 < count < 100_000 else WARNING,
        f"{count:.0f} series now",
        "" if 0 < count < 100_000 else "look for a label without bounds, or for a missing scrape",
    )
    long_enough = kept is None or kept >= 30 * DAY
    yield Result(
        "history for the objectives",
        OK if long_enough else WARNING,
        "kept without limit, or untold" if kept is None else f"{kept / DAY:g} days are kept",
        "" if long_enough else "objectives of 30 days need --storage.tsdb.retention.time=30d",
    )
    yield from objectives(places)


def reports(places: Places) -> Iterator[Result]:
    """The reports that a person reads beside this."""
    url = places.prometheus or "URL"
    yield Result(
        "the report to read",
        OK,
        f"ragprof slo report --prometheus {url} --out slo-report",
        f"keep it in {Path('slo-report')} or on a schedule: ragprof report slo_report --schedule",
    )


CHECKS: dict[str, tuple[tuple[str, Check], ...]] = {
    "weekly": (("error budgets", objectives), ("the report to read", reports)),
    "monthly": (("alert tuning", alert_tuning),),
    "quarterly": (("panels without data", dashboard_panels), ("alert tuning", alert_tuning)),
    "annual": (("the year's strategy", strategy), ("the report to read", reports)),
}
WINDOWS = {"weekly": 7 * DAY, "monthly": 30 * DAY, "quarterly": 90 * DAY, "annual": 365 * DAY}
