"""The demo service with several workers, scraped by a real Prometheus under the exported rules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml
from backends import servers
from backends.servers import Server
from served import serving, wait_for

from ragprof.demo import corpus
from ragprof.demo.stage import ONE_THREAD, READY_SECONDS
from ragprof.monitoring import dashboards, rules, scraping
from ragprof.monitoring.catalogue import METRICS
from ragprof.monitoring.catalogue_alerts import ALERTS

pytestmark = pytest.mark.timeout(900)  # the first start on a machine embeds the corpus
WORKERS = 2
PATIENCE = 2.0 * READY_SECONDS
REQUESTS = "sum(rag_http_requests_total)"


@dataclass
class Observed:
    """The service, the Prometheus that scrapes it, and what was asked so far."""

    service: httpx.Client
    prometheus: Server
    asked: int = 0
    hits: int = 0
    searches: int = 0

    def ask(self, number: int) -> None:
        """Each kind of request, `number` times; the first question is the same each time."""
        for _ in range(number):
            for question in ("Why is old ice blue?", f"Who keeps bees {self.asked}?"):
                body = {"question": question}
                cached = self.service.post("/api/v1/ask", json=body).json()["cached"]
                self.asked += 1
                self.hits += cached
                self.searches += not cached
            body = {"question": f"What are tides {self.asked}?"}
            assert len(self.service.post("/api/v1/ask/stream", json=body).text.split()) > 3
            self.searches += 1
            self.service.get("/api/v1/documents/tides")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Labels and value of each series, now."""
        answer = httpx.get(
            f"{self.prometheus.url}/api/v1/query", params={"query": expression}, trust_env=False
        ).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        return sum(float(each["value"][1]) for each in self.query(expression))

    def scraped(self) -> None:
        """Wait until Prometheus has what the service has."""
        page = self.service.get("/metrics").text
        lines = [line for line in page.splitlines() if line.startswith("rag_http_requests_total{")]
        total = sum(float(line.split()[-1]) for line in lines)
        wait_for(lambda: self.value(REQUESTS) >= total, "scrape of all requests")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    for name in ("reference", "api", "shared"):
        (folder / name).mkdir()
    command = ("uvicorn", "--port", "{port}", "--factory")
    common = {"ready": "/health", "deadline": PATIENCE, **ONE_THREAD}
    with (
        servers.start_prometheus(folder / "prometheus") as prometheus,
        serving(
            folder / "reference", *command, "ragprof.demo.reference:create_app", **common
        ) as reference,
        serving(
            folder / "api",
            *(*command, "ragprof.demo.app:create_app", "--workers", str(WORKERS)),
            PROMETHEUS_MULTIPROC_DIR=str(folder / "shared"),
            RAGPROF_DEMO_REFERENCE=str(reference.base_url).rstrip("/"),
            RAGPROF_DEMO_PROMETHEUS=prometheus.url,
            **common,
        ) as service,
    ):
        # The exported configuration and rules, with shorter intervals.
        (folder / "rules.yml").write_text(yaml.safe_dump(rules.groups(interval="1s")))
        target = service.base_url.netloc.decode()
        config = scraping.prometheus_config(str(folder / "rules.yml"), target)
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (folder / "prometheus/prometheus.yml").write_text(yaml.safe_dump(config))
        httpx.post(f"{prometheus.url}/-/reload", trust_env=False).raise_for_status()
        found = Observed(service, prometheus)
        documents = WORKERS * len(corpus.documents())
        wait_for(
            lambda: found.value("sum(rag_documents_processed_total)") == documents,
            "documents of every worker",
            PATIENCE,
        )
        yield found


def test_one_scrape_holds_what_all_workers_did(observed: Observed) -> None:
    assert observed.value("up") == 1
    observed.ask(3)
    observed.scraped()
    asked = 'rag_http_requests_total{endpoint="/api/v1/ask",method="POST",status_code="200"}'
    assert observed.value(asked) == observed.asked
    timed = 'rag_http_request_duration_seconds_count{endpoint="/api/v1/ask"}'
    assert observed.value(timed) == observed.asked
    assert observed.value("rag_database_connection_pool_max") == 8 * WORKERS
    assert observed.value('rag_active_requests{endpoint="/api/v1/ask"}') == 0
    assert {each["metric"]["endpoint"] for each in observed.query("rag_http_requests_total")} <= {
        "/api/v1/ask",
        "/api/v1/ask/stream",
        "/api/v1/documents/{slug}",
        "/api/v1/analytics/dashboard/summary",
        "/api/v1/analytics/dashboard/realtime",
    }
    page = {each["metric"]["__name__"] for each in observed.query('{__name__=~"rag_.+"}')}
    optional = {"rag_active_users"}  # off unless the application turns it on
    missing = {
        metric.name
        for metric in METRICS
        if not {name for name, _ in metric.samples()} <= page and metric.name not in optional
    }
    assert missing == set()


def test_every_dashboard_query_answers(observed: Observed) -> None:
    observed.ask(2)
    observed.scraped()
    observed.ask(2)  # a rate needs what happened between two scrapes
    observed.scraped()
    silent = [
        (panel, query)
        for panel, query in dashboards.expressions()
        if not any(math.isfinite(float(row["value"][1])) for row in observed.query(query))
    ]
    assert silent == []


def test_every_rule_is_evaluated_and_a_healthy_service_raises_no_alarm(observed: Observed) -> None:
    def known() -> list[dict[str, Any]]:
        answer = httpx.get(f"{observed.prometheus.url}/api/v1/rules", trust_env=False).json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    wait_for(lambda: all(rule["health"] != "unknown" for rule in known()), "evaluation")
    assert [rule["name"] for rule in known()] == [alert.name for alert in ALERTS]
    assert {rule["health"] for rule in known()} == {"ok"}, [
        each.get("lastError") for each in known()
    ]
    assert {rule["state"] for rule in known()} <= {"inactive", "pending"}


def test_the_running_service_answers_its_own_analytics(observed: Observed) -> None:
    observed.ask(1)
    while not observed.hits:  # until the worker that is asked has the answer
        observed.ask(1)
    observed.scraped()
    start, hits, searches = datetime.now(UTC), observed.hits, observed.searches
    wait_for(lambda: observed.value("timestamp(up)") > start.timestamp(), "scrape")
    observed.ask(4)
    observed.scraped()
    hits, searches = observed.hits - hits, observed.searches - searches
    answer = observed.service.get(
        "/api/v1/analytics/dashboard/summary",
        params={"start_date": start.isoformat(), "end_date": datetime.now(UTC).isoformat()},
    ).json()
    assert answer["requests"]["total"] >= 16
    assert answer["requests"]["error_rate"] == 0
    assert answer["requests"]["avg_latency_ms"] > 0
    assert answer["retrieval"]["total_searches"] >= searches
    assert set(answer["retrieval"]["strategy_breakdown"]) == {"hybrid"}
    # Ratios are exact, however far Prometheus extrapolates: all series have the same times.
    assert answer["retrieval"]["avg_results_per_search"] == pytest.approx(5)
    assert answer["system"]["cache_hit_rate"] == pytest.approx(hits / (hits + searches))
    assert answer["system"]["database_connections"] >= 0
    # The corpus was taken in before, and nobody counts users.
    assert set(answer["missing"]) == {
        "documents.success_rate",
        "documents.avg_processing_time_s",
        "system.active_users",
    }
    now = observed.service.get("/api/v1/analytics/dashboard/realtime").json()
    assert now["missing"] == {}
    assert now["requests_per_second"] > 0
    assert now["error_rate_5m"] == 0
    assert now["avg_latency_1m"] > 0
    assert now["queue_depth"] >= 0
    assert 0 < now["system_health"] <= 1
    assert set(now["health_parts"]) == {
        "HighErrorRate",
        "HighLatency",
        "DatabaseConnectionPoolExhausted",
        "BackgroundJobQueueGrowing",
    }
