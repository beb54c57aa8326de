"""Unit tests of every alert rule for ``promtool test rules``: firing, too early, and not firing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ragprof.monitoring import rules, shell
from ragprof.monitoring.catalogue_alerts import ALERT_BY_NAME, ALERTS, Alert

STEP = 30  # seconds between points
_REQUESTS = 'rag_http_requests_total{endpoint="/api/v1/ask",method="POST",status_code="%s"}'
_DURATION = 'rag_http_request_duration_seconds_%s{endpoint="/api/v1/ask",method="POST"%s}'
_RETRIEVAL = (
    'rag_retrieval_latency_seconds_bucket{strategy="hybrid",query_complexity="small",le="%s"}'
)
_CACHE = 'rag_cache_%s_total{cache_type="answers",operation="get"}'
_POOL = 'rag_database_connection_pool_%s{pool_name="rag"}'
_DOCUMENTS = (
    'rag_documents_processed_total{file_type="pdf",processing_strategy="default",status="%s"}'
)
_QUEUE = 'rag_background_jobs_queued{job_type="query_log"}'


@dataclass(frozen=True)
class Case:
    """Series as (selector, growth per step), or (selector, constant) for gauges.

    `shown` is the value as the description shows it; empty: the alert must not fire.
    """

    alert: str
    title: str
    counters: tuple[tuple[str, float], ...] = ()
    gauges: tuple[tuple[str, float], ...] = ()
    shown: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def _requests(good: float, bad: float) -> tuple[tuple[str, float], ...]:
    return (_REQUESTS % 200, good), (_REQUESTS % 500, bad)


def _buckets(name: str, **counts: float) -> tuple[tuple[str, float], ...]:
    if name == "retrieval":
        return tuple((_RETRIEVAL % bound, count) for bound, count in counts.items())
    return tuple((_DURATION % ("bucket", f',le="{le}"'), count) for le, count in counts.items())


_ASK = (("endpoint", "/api/v1/ask"),)
_IN_TIME, _LATE = {"0.5": 10.0, "5.0": 10.0, "+Inf": 10.0}, {"2.5": 0.0, "5.0": 10.0, "+Inf": 10.0}
_FAST, _SLOW = {"0.5": 10.0, "2.5": 10.0, "+Inf": 10.0}, {"1.0": 0.0, "2.5": 10.0, "+Inf": 10.0}
_COUNT = _DURATION % ("count", "")
_HALF = _DURATION % ("bucket", ',le="0.5"')

CASES: tuple[Case, ...] = (
    Case("HighErrorRate", "10 % fail", _requests(9, 1), shown="10%", labels=_ASK),
    Case("HighErrorRate", "1 % fail", _requests(99, 1)),
    Case("HighErrorRate", "no traffic", _requests(0, 0)),
    Case("HighLatency", "late", _buckets("http", **_LATE), shown="4.875s", labels=_ASK),
    Case("HighLatency", "in time", _buckets("http", **_IN_TIME)),
    Case(
        "DatabaseConnectionPoolExhausted",
        "19 of 20",
        gauges=((_POOL % "in_use", 19), (_POOL % "max", 20)),
        shown="95%",
        labels=(("pool_name", "rag"),),
    ),
    Case(
        "DatabaseConnectionPoolExhausted",
        "half",
        gauges=((_POOL % "in_use", 10), (_POOL % "max", 20)),
    ),
    Case(
        "LowCacheHitRate",
        "a quarter hits",
        ((_CACHE % "hits", 1), (_CACHE % "misses", 3)),
        shown="25%",
        labels=(("cache_type", "answers"),),
    ),
    Case(
        "LowCacheHitRate",
        "misses only",
        ((_CACHE % "misses", 3),),
        shown="0%",
        labels=(("cache_type", "answers"),),
    ),
    Case("LowCacheHitRate", "mostly hits", ((_CACHE % "hits", 3), (_CACHE % "misses", 1))),
    Case("LowCacheHitRate", "no traffic", ((_CACHE % "hits", 0), (_CACHE % "misses", 0))),
    Case(
        "RetrievalPerformanceDegradation",
        "slow",
        _buckets("retrieval", **_SLOW),
        shown="2.425s",
        labels=(("strategy", "hybrid"),),
    ),
    Case("RetrievalPerformanceDegradation", "fast", _buckets("retrieval", **_FAST)),
    Case(
        "BackgroundJobQueueGrowing",
        "1500 wait",
        gauges=((_QUEUE, 1500),),
        shown="1.5k",
        labels=(("job_type", "query_log"),),
    ),
    Case("BackgroundJobQueueGrowing", "500 wait", gauges=((_QUEUE, 500),)),
    Case(
        "DocumentProcessingFailures",
        "20 % fail",
        ((_DOCUMENTS % "error", 1), (_DOCUMENTS % "success", 4)),
        shown="20%",
    ),
    Case(
        "DocumentProcessingFailures",
        "1 % fails",
        ((_DOCUMENTS % "error", 1), (_DOCUMENTS % "success", 99)),
    ),
    *(
        case
        for window in ("1h", "6h", "3d")
        for case in (
            Case(f"ApiAvailabilityBudgetBurn{window}", "2 % fail", _requests(98, 2), shown="20"),
            Case(f"ApiAvailabilityBudgetBurn{window}", "0.05 % fail", _requests(1999, 1)),
            Case(f"ApiAvailabilityBudgetBurn{window}", "no errors ever", _requests(100, 0)[:1]),
            Case(f"ApiAvailabilityBudgetBurn{window}", "no traffic", _requests(0, 0)),
            Case(
                f"ApiLatencyBudgetBurn{window}",
                "90 % late",
                ((_COUNT, 100), (_HALF, 10)),
                shown="18",
            ),
            Case(f"ApiLatencyBudgetBurn{window}", "1 % late", ((_COUNT, 100), (_HALF, 99))),
        )
    ),
)


def content(rule_file: str) -> dict[str, Any]:
    """The test file; `rule_file` is the rules' name beside it."""
    return {
        "rule_files": [rule_file],
        "evaluation_interval": "30s",
        "tests": [_test(case) for case in CASES],
    }


def text(rule_file: str) -> str:
    """The same as JSON, which is YAML too."""
    import json

    return json.dumps(content(rule_file), indent=1) + "\n"


def untested() -> set[str]:
    """Alerts without a case that fires and one that does not."""
    firing = {case.alert for case in CASES if case.shown}
    quiet = {case.alert for case in CASES if not case.shown}
    return {alert.name for alert in ALERTS} - (firing & quiet)


def _test(case: Case) -> dict[str, Any]:
    alert = ALERT_BY_NAME[case.alert]
    wait = _seconds(alert.wait)
    late = wait + 300
    points = late // STEP + 5
    checks: list[dict[str, Any]] = [
        {"eval_time": f"{late}s", "alertname": alert.name, "exp_alerts": []}
    ]
    if case.shown:
        checks[0]["exp_alerts"] = [_expected(alert, case, late)]
        early = {"eval_time": f"{wait - STEP}s", "alertname": alert.name, "exp_alerts": []}
        checks.insert(0, early)
    series = [
        *({"series": name, "values": f"0+{step:g}x{points}"} for name, step in case.counters),
        *({"series": name, "values": f"{value:g}+0x{points}"} for name, value in case.gauges),
    ]
    return {
        "name": f"{case.alert}: {case.title}",
        "interval": f"{STEP}s",
        "input_series": series,
        "alert_rule_test": checks,
    }


def _expected(alert: Alert, case: Case, at: int) -> dict[str, Any]:
    rule = rules.rule(alert)
    given = dict(case.labels)

    def filled(template: str) -> str:
        done = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: given[match[1]], template)
        return re.sub(r"\{\{ \$value \| \w+ \}\}", case.shown, done)

    annotations = {name: filled(value) for name, value in rule["annotations"].items()}
    moment = f"1970-01-01T{at // 3600:02d}:{at % 3600 // 60:02d}:{at % 60:02d}Z"
    words = [f"ragprof investigate {shell.CONFIG} --alert '{alert.name}@{moment}'"]
    words += [f"--label '{name}={shell.plain(given[name])}'" for name in alert.by]
    annotations["investigate"] = " ".join(words)
    return {"exp_labels": {**rule["labels"], **given}, "exp_annotations": annotations}


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
