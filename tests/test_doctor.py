"""The checklists, run against real servers, and what they say when something is missing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from backends import servers
from backends.servers import Server
from catalogue_pages import whole_catalogue

from ragprof.cli import main
from ragprof.doctor import after, before, checks, page, reviews
from ragprof.doctor.checks import FAILED, OK, SKIPPED, WARNING, Places, Result
from ragprof.monitoring import export, index_template, rsyslog
from ragprof.monitoring.payload import Alert
from ragprof.reports import alert as alerts
from ragprof.slo.prometheus import Prometheus


@contextmanager
def metrics_page() -> Iterator[str]:
    """A service that emits the whole catalogue."""
    began = time.time()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = whole_catalogue(int((time.time() - began) * 10)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """A metrics page with a Prometheus that has scraped it for a while."""
    with metrics_page() as url:
        scraping = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": "rag-api",
                    "static_configs": [{"targets": [url.split("/")[2]]}],
                }
            ],
        }
        folder = tmp_path_factory.mktemp("doctor")
        with servers.start_prometheus(folder, yaml.safe_dump(scraping)) as server:
            with Prometheus(server.url) as prometheus:

                def enough() -> bool:
                    found = prometheus.query("sum(count_over_time(up[1m]))", time.time())
                    return bool(found) and found[0][1] >= 6

                assert servers.wait(enough)
            yield Places(metrics=(url,), prometheus=server.url, window=60.0)


def states(results: list[Result]) -> dict[str, str]:
    return {each.name: each.state for each in results}


def test_before_a_deployment_with_a_service_and_a_prometheus(scraped: Places) -> None:
    found = checks.run(before.CHECKS, scraped)
    assert states(found) == {
        "metrics pages hold the catalogue": OK,
        "alert rules are valid": OK,
        "unit tests of the rules pass": OK,
        "every dashboard query answers": OK,
        "a marked log line arrives in Elasticsearch": SKIPPED,
        "a marked span arrives in the trace store": SKIPPED,
        "the capture's sources can be read": SKIPPED,
    }
    assert all(each.evidence for each in found)
    assert all(each.next_step for each in found if each.state != OK)


def test_after_a_deployment_metrics_are_there(scraped: Places) -> None:
    [metrics] = list(after.metrics_collected(scraped))
    assert metrics.state in (OK, WARNING), metrics.evidence  # a loaded machine may miss a scrape
    assert "rag-api" in metrics.evidence
    panels = after.dashboard_data(scraped)
    assert panels.state == OK, panels.evidence


def test_reviews_are_reports(scraped: Places, capsys: pytest.CaptureFixture[str]) -> None:
    weekly = checks.run(reviews.CHECKS["weekly"], scraped)
    assert {each.name for each in weekly} == {"error budgets", "the report to read"}
    assert any("api_availability" in each.evidence for each in weekly)
    monthly = checks.run(reviews.CHECKS["monthly"], scraped)
    assert any(each.evidence.startswith("HighLatency: fired 0") for each in monthly)
    quarterly = states(checks.run(reviews.CHECKS["quarterly"], scraped))
    assert quarterly["panels without data"] == OK
    annual = states(checks.run(reviews.CHECKS["annual"], scraped))
    assert annual["series of the service"] == OK
    assert annual["history for the objectives"] == WARNING  # 15 days are kept
    assert main(["doctor", "weekly", "--prometheus", scraped.prometheus, "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["checklist"] == "weekly"


def test_a_metrics_page_without_the_catalogue_fails(scraped: Places) -> None:
    places = Places(metrics=(f"{scraped.prometheus}/metrics", "http://127.0.0.1:9/metrics"))
    incomplete, unreachable = before.metrics_pages(places)
    assert incomplete.state == unreachable.state == FAILED
    assert "rag_http_requests_total" in incomplete.evidence
    assert "start the service" in unreachable.next_step


def test_a_wrong_rule_fails_with_what_promtool_says(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(export.rule_file().replace("rate(", "rates(", 1))
    valid, tested = before.rule_files(Places(rules=str(tmp_path)))
    assert valid.state == FAILED
    assert "rates" in valid.evidence
    assert tested.state == WARNING


def test_sources_of_a_capture_are_checked(scraped: Places, tmp_path: Path) -> None:
    config = tmp_path / "ragprof.toml"
    config.write_text(f'[sources.prometheus]\nurl = "{scraped.prometheus}"\n')
    found = checks.run(before.CHECKS[-1:], Places(config=str(config)))
    reachable = [each for each in found if each.name == "prometheus: reachable"]
    assert [each.state for each in reachable] == [OK], found
    config.write_text("[sources.prometheus]\nurl = 3\n")
    wrong = checks.run(before.CHECKS[-1:], Places(config=str(config)))[0]
    assert wrong.state == FAILED
    assert "url" in wrong.evidence
    [missing] = checks.run(before.CHECKS[-1:], Places(config=str(tmp_path / "none.toml")))
    assert missing.state == FAILED


def test_an_alert_is_captured_from_live_sources(scraped: Places, tmp_path: Path) -> None:
    config = tmp_path / "ragprof.toml"
    config.write_text(f'[sources.prometheus]\nurl = "{scraped.prometheus}"\n')
    now = time.time()
    alert = Alert("HighLatency", {"alertname": "HighLatency"}, now - 2)
    recording = alerts.recording_of(config, alert, tmp_path)
    names = set(recording.to_pandas("series")["name"])
    assert {"rag_http_requests_total", "up"} <= names


def test_an_alert_reaches_a_receiver_on_loopback(tmp_path: Path) -> None:
    [port] = servers.free_ports(1)
    config = {
        "route": {"receiver": "doctor", "group_wait": "1s"},
        "receivers": [
            {"name": "doctor", "webhook_configs": [{"url": f"http://127.0.0.1:{port}/"}]}
        ],
    }
    with servers.start_alertmanager(tmp_path, yaml.safe_dump(config)) as manager:
        found = after.notification(Places(alertmanager=manager.url, receiver=port))
    assert found.state == OK, found.evidence


def test_no_route_to_the_receiver_is_said(
    tmp_path: Path, alertmanager: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after, "WAITS", 0.5)
    [port] = servers.free_ports(1)
    found = after.notification(Places(alertmanager=alertmanager.url, receiver=port))
    assert found.state == FAILED
    assert "webhook receiver" in found.next_step


def test_a_marked_line_and_the_share_of_parsed_lines(
    tmp_path: Path, rsyslog_of: Callable[[str], Server], elasticsearch8: Server
) -> None:
    body = index_template.template()
    body["template"]["settings"]["index"] |= {"number_of_replicas": 0}
    url = f"{elasticsearch8.url}/_index_template/{index_template.NAME}"
    assert httpx.put(url, json=body, trust_env=False, timeout=60).status_code == 200
    log = tmp_path / "service.log"
    log.touch()
    config = rsyslog.config(
        files=str(log),
        port=int(elasticsearch8.url.rpartition(":")[2]),
        spool=str(tmp_path),
        bad=str(tmp_path / "bad.txt"),
        refused=str(tmp_path / "refused.txt"),
    )
    rsyslog_of(config)
    places = Places(elasticsearch=elasticsearch8.url, log_file=str(log))
    found = before.log_aggregation(places)
    assert found.state == OK, found.evidence
    assert "rag-system-" in found.evidence
    parsed = after.logs_parsed(places)
    assert parsed.state == OK, parsed.evidence


def test_a_line_that_never_arrives_is_said(
    tmp_path: Path, elasticsearch8: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(before, "WAITS", 1.0)
    monkeypatch.setattr(before, "until", lambda look: look())
    places = Places(elasticsearch=elasticsearch8.url, log_file=str(tmp_path / "nobody.log"))
    found = before.log_aggregation(places)
    assert found.state == FAILED
    assert "shipper" in found.next_step


def test_a_marked_span_arrives_in_jaeger(jaeger: Server) -> None:
    otlp = f"http://127.0.0.1:{jaeger.ports['otlp_http']}"
    found = before.tracing(Places(jaeger=jaeger.url, otlp=otlp))
    assert found.state == OK, found.evidence
    traces = after.spans_with_logs(Places(jaeger=jaeger.url, elasticsearch=jaeger.url))
    assert traces.state == FAILED  # the service itself has sent none
    assert "check tracing" in traces.next_step


def test_exit_codes_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "doctor.html"
    assert main(["doctor", "--html", str(html)]) == 0
    assert "not asked" in capsys.readouterr().out
    assert main(["doctor", "--strict"]) == 3
    capsys.readouterr()
    assert main(["doctor", "--metrics", "http://127.0.0.1:9/metrics", "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == FAILED
    assert "default-src 'none'" in html.read_text().replace("&#x27;", "'")
    evil = [Result("<script>", FAILED, "<img src=x>", "</td>")]
    text = page.page("pre", evil)
    assert "<script>" not in text
    assert "<img" not in text
    assert main(["doctor", "post", "--sampling", "7"]) == 1
    assert "--sampling" in capsys.readouterr().err


@pytest.fixture
def rsyslog_of(rsyslog: Callable[[str], Server]) -> Callable[[str], Server]:
    """rsyslogd with a configuration; the module of that name is used above."""
    return rsyslog
