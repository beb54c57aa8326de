"""After a deployment: does telemetry arrive, whole, and would anybody be told?"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np

from ragprof.doctor.calls import WAITS, get, post
from ragprof.doctor.checks import FAILED, OK, WARNING, Check, Places, Result, not_asked
from ragprof.monitoring import dashboards
from ragprof.monitoring.index_template import PREFIX
from ragprof.slo import counters
from ragprof.slo.prometheus import Prometheus

UNPARSED_SHARE = 0.01
SPANS_WITH_LOGS = 0.5
TRACES = 50  # looked at for logs
CONTENT_LIMIT = 1 << 20


def metrics_collected(places: Places) -> Iterator[Result]:
    """Every target is scraped, without gaps in the window."""
    name = "metrics are collected without gaps"
    if not places.prometheus:
        yield not_asked(name, "--prometheus URL")
        return
    now = time.time()
    since = now - places.window
    with Prometheus(places.prometheus) as prometheus:
        rows = prometheus.stored("up", since, now)
    if not rows:
        yield Result(
            name,
            FAILED,
            f"Prometheus has scraped nothing in the last {places.window:.0f} s",
            "add a scrape configuration (ragprof monitoring export) and check its targets page",
        )
    for labels, times, values in rows:
        target = f"{labels.get('job', '')} {labels.get('instance', '')}".strip()
        interval = counters.scrape_interval([times])
        down = float(np.mean(values == 0))
        begin = max(since, float(times[0]))
        seconds, gaps = counters.covered([times], interval, begin, now)
        seen = seconds / (now - begin) if now > begin else 1.0
        if down == 0 and not gaps:
            yield Result(name, OK, f"{target}: every {interval:.3g} s, no gap, never down")
            continue
        longest = max((end - start for start, end in gaps), default=0.0)
        yield Result(
            name,
            FAILED if down > 0.5 or seen < 0.5 else WARNING,
            f"{target}: down in {down:.1%} of the scrapes, data for {seen:.1%} of the window, "
            f"longest gap {longest:.0f} s",
            "look at the targets page, at restarts, and at the scrape's time-out",
        )


def notification(places: Places) -> Result:
    """An alert that is put into Alertmanager reaches a receiver on loopback."""
    name = "an alert notification arrives"
    if not places.alertmanager or not places.receiver:
        return not_asked(name, "--alertmanager URL and --receiver PORT")
    mark = secrets.token_hex(8)
    seen = threading.Event()
    try:
        server = _receiver(places.receiver, mark, seen)
    except OSError as error:
        return Result(
            name,
            FAILED,
            f"port {places.receiver} cannot be used: {error.strerror}",
            "name another --receiver, the one that a webhook receiver of Alertmanager points to",
        )
    began = time.monotonic()
    try:
        end = datetime.now(UTC) + timedelta(seconds=WAITS)
        alert = {
            "labels": {"alertname": "RagprofDoctor", "severity": "info", "mark": mark},
            "annotations": {"summary": "A test by ragprof doctor; nothing is wrong."},
            "endsAt": end.isoformat(),
        }
        post("Alertmanager", places.alertmanager, "/api/v2/alerts", [alert])
        arrived = seen.wait(WAITS)
    finally:
        server.shutdown()
        server.server_close()
    if arrived:
        return Result(name, OK, f"arrived {time.monotonic() - began:.1f} s after it was sent")
    return Result(
        name,
        FAILED,
        f"nothing came to 127.0.0.1:{places.receiver} within {WAITS:.0f} s",
        "add a webhook receiver with that address and a route that matches every severity",
    )


def dashboard_data(places: Places) -> Result:
    """Every panel of the dashboard has data."""
    name = "dashboard panels have data"
    if not places.prometheus:
        return not_asked(name, "--prometheus URL")
    empty = panels_without_data(places)
    panels = len({panel for panel, _ in dashboards.expressions()})
    if not empty:
        return Result(name, OK, f"all {panels} panels have data")
    return Result(
        name,
        WARNING,
        f"{len(empty)} of {panels} panels are empty: {', '.join(empty[:6])}",
        "see whether the service does what they show; remove panels of features it has not",
    )


def panels_without_data(places: Places) -> list[str]:
    """Panels none of whose queries had a value in the window."""
    now = time.time()
    step = max(places.window / 60, 1.0)
    found: dict[str, bool] = {}
    with Prometheus(places.prometheus) as prometheus:
        for panel, query in dashboards.expressions():
            rows = prometheus.query_range(query, now - places.window, now, step)
            has = any(np.isfinite(values).any() for _, _, values in rows)
            found[panel] = found.get(panel, False) or has
    return [panel.removeprefix("panel ") for panel, has in found.items() if not has]


def logs_parsed(places: Places) -> Result:
    """The share of log lines without an event: those that were not parsed."""
    name = "log lines are parsed"
    if not places.elasticsearch:
        return not_asked(name, "--elasticsearch URL")
    total = _count(places, "*")
    if not total:
        return Result(
            name,
            FAILED,
            f"no line of {PREFIX}-* in the last {places.window:.0f} s",
            "check the shipper (ragprof doctor pre --log-file)",
        )
    unparsed = total - _count(places, "_exists_:event")
    share = unparsed / total
    text = f"{unparsed} of {total} lines ({share:.2%}) have no event"
    if share <= UNPARSED_SHARE:
        return Result(name, OK, text)
    return Result(
        name, WARNING, text, "look at some (NOT _exists_:event) and send them as JSON lines"
    )


def sampling_rate(places: Places) -> Result:
    """Traces in the store against requests in Prometheus, beside the configured rate."""
    name = "the sampling rate is as configured"
    if not places.prometheus or not places.jaeger or places.sampling is None:
        return not_asked(name, "--prometheus URL, --jaeger URL and --sampling SHARE")
    window = min(places.window, 900.0)
    traces = _traces(places, window)
    with Prometheus(places.prometheus) as prometheus:
        query = f"sum(increase(rag_http_requests_total[{window:.0f}s]))"
        requests = sum(value for _, value in prometheus.query(query, time.time()))
    if not requests or not np.isfinite(requests):
        return Result(name, WARNING, "there were no requests", "send some, and ask again")
    share = len(traces) / requests
    text = f"{len(traces)} traces of about {requests:.0f} requests: {share:.1%}, configured "
    text += f"{places.sampling:.1%}"
    margin = 3 * (max(places.sampling * (1 - places.sampling), 0.01) / requests) ** 0.5 + 0.05
    if abs(share - places.sampling) <= margin:
        return Result(name, OK, text)
    step = "compare OTEL_TRACES_SAMPLER_ARG, and look for dropped spans in the exporter's log"
    return Result(name, WARNING, text, step)


def spans_with_logs(places: Places) -> Result:
    """The share of traces that have at least one log line with their id."""
    name = "traces have log lines"
    if not places.jaeger or not places.elasticsearch:
        return not_asked(name, "--jaeger URL and --elasticsearch URL")
    traces = _traces(places, places.window)[:TRACES]
    if not traces:
        return Result(
            name, FAILED, f"no trace of {places.service}", "check tracing (ragprof doctor pre)"
        )
    having = sum(bool(_count(places, f'trace_id:"{trace}"')) for trace in traces)
    share = having / len(traces)
    text = f"{having} of {len(traces)} traces of {places.service} have log lines ({share:.0%})"
    if share >= SPANS_WITH_LOGS:
        return Result(name, OK, text)
    return Result(
        name, WARNING, text, "log inside of requests through ragprof.service: it adds trace_id"
    )


def _count(places: Places, query: str) -> int:
    since = datetime.now(UTC) - timedelta(seconds=places.window)
    both = f'({query}) AND @timestamp:["{since.isoformat()}" TO *]'
    answer = get(
        "Elasticsearch",
        places.elasticsearch,
        f"/{PREFIX}-*/_count",
        {"q": both, "ignore_unavailable": "true"},
    )
    return int(answer["count"])


def _traces(places: Places, window: float) -> list[str]:
    """Ids of the service's traces in the window."""
    end = time.time()
    answer = get(
        "Jaeger",
        places.jaeger,
        "/api/traces",
        {
            "service": places.service,
            "start": round((end - window) * 1e6),
            "end": round(end * 1e6),
            "limit": 10_000,
        },
    )
    return [str(each["traceID"]) for each in answer.get("data") or []]


def _receiver(port: int, mark: str, seen: threading.Event) -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "0")
            body = self.rfile.read(min(int(length) if length.isdigit() else 0, CONTENT_LIMIT))
            if mark in _marks(body):
                seen.set()
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True).start()
    return server


def _marks(body: bytes) -> set[str]:
    try:
        alerts: list[Any] = json.loads(body)["alerts"]
        return {str(alert["labels"].get("mark", "")) for alert in alerts}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


CHECKS: tuple[tuple[str, Check], ...] = (
    ("metrics are collected without gaps", metrics_collected),
    ("an alert notification arrives", notification),
    ("dashboard panels have data", dashboard_data),
    ("log lines are parsed", logs_parsed),
    ("the sampling rate is as configured", sampling_rate),
    ("traces have log lines", spans_with_logs),
)
