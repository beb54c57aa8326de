"""Before a deployment: does what we are about to ship work with what is there?"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ragprof.doctor.calls import WAITS, get, post, until
from ragprof.doctor.checks import FAILED, OK, WARNING, Check, Places, Result, not_asked
from ragprof.errors import RagprofError
from ragprof.monitoring import dashboards, export
from ragprof.monitoring.catalogue import METRICS
from ragprof.monitoring.index_template import PREFIX
from ragprof.slo.prometheus import Prometheus


def metrics_pages(places: Places) -> Iterator[Result]:
    """Every metrics page answers and holds the catalogue."""
    from ragprof.capturing.scrape import checked_url, fetch

    name = "metrics pages hold the catalogue"
    if not places.metrics:
        yield not_asked(name, "--metrics URL")
    for url in places.metrics:
        try:
            page, _ = fetch(checked_url(url))
        except (OSError, RagprofError) as error:
            said = f"{url}: {getattr(error, 'reason', error)}"
            yield Result(name, FAILED, said, "start the service and check the address")
            continue
        families = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
        families |= {f"{family}_total" for family in families}
        missing = [metric.name for metric in METRICS if metric.name not in families]
        if not missing:
            yield Result(name, OK, f"{url}: all {len(METRICS)} metrics are there")
        else:
            yield Result(
                name,
                FAILED,
                f"{url}: {len(missing)} of {len(METRICS)} are missing: {', '.join(missing[:6])}",
                "install ragprof.service in the service, in the version of this command",
            )


def rule_files(places: Places) -> Iterator[Result]:
    """Rules are valid by promtool, and their unit tests pass."""
    promtool = shutil.which("promtool")
    if promtool is None:
        yield Result(
            "alert rules are valid",
            FAILED,
            "promtool is not on the PATH",
            "install Prometheus (on Debian: apt-get install prometheus)",
        )
        return
    with tempfile.TemporaryDirectory(prefix="ragprof-doctor-") as folder:
        files = _rule_files(places, Path(folder))
        code, said = _tool([promtool, "check", "rules", *map(str, files)])
        count = said.count("SUCCESS")
        yield Result(
            "alert rules are valid",
            FAILED if code else OK,
            said if code else f"promtool takes {count} of {len(files)} files",
            "correct the rule that promtool names" if code else "",
        )
        tests = _rule_tests(places, Path(folder))
        if not tests:
            yield Result(
                "unit tests of the rules pass",
                WARNING,
                "there is no *.test.yml beside the rules",
                "write one for each alert, firing and not firing (promtool test rules)",
            )
            return
        code, said = _tool([promtool, "test", "rules", *map(str, tests)])
        yield Result(
            "unit tests of the rules pass",
            FAILED if code else OK,
            said if code else f"promtool runs {len(tests)} files of tests",
            "correct the rule or the test that promtool names" if code else "",
        )


def dashboard_queries(places: Places) -> Result:
    """Prometheus answers every query of the dashboard without an error."""
    name = "every dashboard query answers"
    if not places.prometheus:
        return not_asked(name, "--prometheus URL")
    refused, empty = [], []
    with Prometheus(places.prometheus) as prometheus:
        now = time.time()
        queries = dashboards.expressions()
        for panel, query in queries:
            try:
                if not prometheus.query(query, now):
                    empty.append(panel)
            except RagprofError as error:
                refused.append(f"{panel}: {error}")
    if refused:
        return Result(name, FAILED, "; ".join(refused[:3]), "correct the panel's query")
    with_data = len(queries) - len(empty)
    return Result(name, OK, f"{len(queries)} queries answer, {with_data} of them with data now")


def log_aggregation(places: Places) -> Result:
    """A marked line, written where the service logs, is found in Elasticsearch."""
    name = "a marked log line arrives in Elasticsearch"
    if not places.elasticsearch or not places.log_file:
        return not_asked(name, "--elasticsearch URL and --log-file PATH")
    mark = f"ragprof-doctor-{secrets.token_hex(8)}"
    line = {
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "level": "info",
        "logger": "ragprof.doctor",
        "event": "doctor_mark",
        "request_id": mark,
        "trace_id": "",
        "span_id": "",
    }
    try:
        with Path(places.log_file).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        return Result(
            name, FAILED, f"{places.log_file}: {error.strerror}", "name a log file that is shipped"
        )
    began = time.monotonic()
    found = until(lambda: _found_line(places.elasticsearch, mark))
    if found:
        return Result(name, OK, f"found in {found} after {time.monotonic() - began:.1f} s")
    return Result(
        name,
        FAILED,
        f"{mark} was written to {places.log_file} and not found within {WAITS:.0f} s",
        "look at the shipper's log and at its file of refused lines",
    )


def tracing(places: Places) -> Result:
    """A marked span, sent as the service sends them, is found in the trace store."""
    name = "a marked span arrives in the trace store"
    if not places.jaeger or not places.otlp:
        return not_asked(name, "--jaeger URL and --otlp URL")
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    now = time.time_ns()
    content = {
        "resourceSpans": [
            {
                "resource": {"attributes": [_text("service.name", "ragprof-doctor")]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": trace,
                                "spanId": span,
                                "name": "doctor_mark",
                                "kind": 1,
                                "startTimeUnixNano": str(now - 1_000_000),
                                "endTimeUnixNano": str(now),
                            }
                        ]
                    }
                ],
            }
        ]
    }
    post("OTLP", places.otlp.removesuffix("/v1/traces"), "/v1/traces", content)
    began = time.monotonic()
    if until(lambda: _found_trace(places.jaeger, trace)):
        return Result(name, OK, f"trace {trace} found after {time.monotonic() - began:.1f} s")
    return Result(
        name,
        FAILED,
        f"trace {trace} was taken by {places.otlp} and not found within {WAITS:.0f} s",
        "look at the collector's and the store's logs",
    )


def sources(places: Places) -> Iterator[Result]:
    """The backends of a capture's configuration can be reached and read."""
    name = "the capture's sources can be read"
    if not places.config:
        yield not_asked(name, "--config ragprof.toml")
        return
    from ragprof.capturing import config
    from ragprof.capturing.checks import check_sources

    for each in check_sources(config.read(places.config)):
        yield Result(f"{each.source}: {each.subject}", each.state, each.text, each.next_step)


def _rule_files(places: Places, folder: Path) -> list[Path]:
    """The rules of the user, or those of the catalogue written into `folder`."""
    if not places.rules:
        export.write_texts({folder / "rag-system-alerts.yml": export.rule_file()})
        return [folder / "rag-system-alerts.yml"]
    where = Path(places.rules)
    if where.is_dir():
        found = sorted(file for ending in ("*.yml", "*.yaml") for file in where.rglob(ending))
        found = [file for file in found if not file.name.endswith((".test.yml", ".test.yaml"))]
    else:
        found = [where] if where.is_file() else []
    if not found:
        raise RagprofError(f"{where} has no rule file; name the file itself")
    return found


def _rule_tests(places: Places, folder: Path) -> list[Path]:
    from ragprof.monitoring import rule_tests

    if not places.rules:
        export.write_texts({folder / "rag.test.yml": rule_tests.text("rag-system-alerts.yml")})
        return [folder / "rag.test.yml"]
    where = Path(places.rules)
    beside = where if where.is_dir() else where.parent
    return sorted(file for ending in ("*.test.yml", "*.test.yaml") for file in beside.glob(ending))


def _tool(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    return done.returncode, said[-800:]


def _found_line(url: str, mark: str) -> str | None:
    """The index that has the marked line; None when none has."""
    try:
        post("Elasticsearch", url, f"/{PREFIX}-*/_refresh", None)
        answer = get(
            "Elasticsearch",
            url,
            f"/{PREFIX}-*/_search",
            {"q": f'request_id:"{mark}"', "size": 1, "ignore_unavailable": "true"},
        )
        hits = answer["hits"]["hits"]
    except RagprofError:
        return None
    return str(hits[0]["_index"]) if hits else None


def _found_trace(url: str, trace: str) -> bool | None:
    try:
        return bool(get("Jaeger", url, f"/api/traces/{trace}").get("data")) or None
    except RagprofError:
        return None


def _text(key: str, value: str) -> dict[str, object]:
    return {"key": key, "value": {"stringValue": value}}


CHECKS: tuple[tuple[str, Check], ...] = (
    ("metrics pages hold the catalogue", metrics_pages),
    ("alert rules are valid", rule_files),
    ("every dashboard query answers", dashboard_queries),
    ("a marked log line arrives in Elasticsearch", log_aggregation),
    ("a marked span arrives in the trace store", tracing),
    ("the capture's sources can be read", sources),
)
