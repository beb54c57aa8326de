"""`instrument`: everything in one line, under a real server, alone and with several workers."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from served import Receiver, receiving, serving, wait_for

SERVER, INTERNAL = 2, 1
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class Served:
    """One running `observed_app`, its log lines and the spans that it sent."""

    def __init__(self, client: httpx.Client, folder: Path, received: Receiver) -> None:
        self.client, self.folder, self.received = client, folder, received

    def lines(self, **wanted: Any) -> list[dict[str, Any]]:
        text = (self.folder / "out").read_text()
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in found if all(line.get(k) == v for k, v in wanted.items())]

    def spans(self, trace_id: str, kind: int = SERVER) -> list[dict[str, Any]]:
        return [
            span
            for span in list(self.received.spans)
            if span["trace_id"] == trace_id and span["kind"] == kind
        ]

    def metric(self, name: str, **labels: str) -> float:
        return sample(self.client.get("/metrics").text, name, **labels)


def sample(page: str, name: str, **labels: str) -> float:
    return sum(
        each.value
        for family in plain(page)
        for each in family.samples
        if each.name == name and labels.items() <= each.labels.items()
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with (
        receiving() as received,
        serving(
            folder,
            "uvicorn",
            "observed_app:app",
            "--port",
            "{port}",
            OTEL_EXPORTER_OTLP_ENDPOINT=received.url,
            OTEL_BSP_SCHEDULE_DELAY="100",
            ENVIRONMENT="staging",
        ) as client,
    ):
        yield Served(client, folder, received)


@pytest.mark.parametrize("path", ["/items/7", "/sync/7"])
def test_metrics_lines_and_spans_of_a_request_join(served: Served, path: str) -> None:
    response = served.client.get(path, headers={"X-Request-ID": f"from-caller{path}"})
    assert response.headers["x-request-id"] == f"from-caller{path}"
    route = path.replace("7", "{item}")
    inside, completed = (
        wait_for(lambda: served.lines(request_id=f"from-caller{path}", event=event), event)  # noqa: B023
        for event in ("item_read", "request_completed")
    )
    trace_id = inside[0]["trace_id"]
    assert completed[0]["trace_id"] == trace_id
    assert (completed[0]["status_code"], completed[0]["path"]) == (200, path)
    assert completed[0]["service"] == "observed-app"
    (span,) = wait_for(lambda: served.spans(trace_id), "server span")
    assert (span["name"], span["scope"]) == (f"GET {route}", "fastapi")
    assert span["attributes"]["request.id"] == f"from-caller{path}"
    resource = span["resource"]
    assert (resource["service.name"], resource["service.version"]) == ("observed-app", "1.2.3")
    assert resource["deployment.environment"] == "staging"
    exemplars = [
        each.exemplar.labels["trace_id"]
        for family in openmetrics(served.client.get("/metrics", headers=OPENMETRICS).text)
        for each in family.samples
        if each.exemplar and each.labels.get("endpoint") == route
    ]
    assert trace_id in exemplars


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/tenants/acme/documents/7", "/tenants/{tenant}/documents/{document}"),
        ("/api/v1/ask/why", "/api/v1/ask/{question}"),
        ("/api/v7/ask/why", "/api/{version}/ask/{question}"),
        ("/stream", "/stream"),
        ("/background", "/background"),
        ("/broken", "/broken"),
    ],
)
def test_every_kind_of_endpoint_counts_once_and_has_one_server_span(
    served: Served, path: str, endpoint: str
) -> None:
    before = served.metric("rag_http_requests_total", endpoint=endpoint)
    request_id = f"once{path}"
    served.client.get(path, headers={"X-Request-ID": request_id})
    assert served.metric("rag_http_requests_total", endpoint=endpoint) == before + 1
    served.client.get("/items/last", headers={"X-Request-ID": f"after{path}"})
    traces = [
        wait_for(lambda: served.lines(request_id=each, event="request_started"), "line")  # noqa: B023
        for each in (request_id, f"after{path}")
    ]
    own, after = (lines[0]["trace_id"] for lines in traces)
    for each in (own, after):  # a second span of the first would leave before the next one's
        wait_for(lambda: served.spans(each), "server span")  # noqa: B023
    assert len(served.spans(own)) == 1


def test_a_background_task_that_fails_changes_no_answer_and_says_where_it_came_from(
    served: Served,
) -> None:
    ids = {"X-Request-ID": "fails-later"}
    assert served.client.get("/background?fail=1", headers=ids).status_code == 200
    (failed,) = wait_for(
        lambda: served.lines(request_id="fails-later", event="background_task_failed"), "line"
    )
    (completed,) = served.lines(request_id="fails-later", event="request_completed")
    assert completed["status_code"] == 200
    assert failed["trace_id"] == completed["trace_id"]
    assert failed["exception"][0]["exc_value"] == "in the background"


@pytest.mark.parametrize(("room", "status"), [("open", 101), ("closed", 403)])
def test_a_web_socket_under_a_server(served: Served, room: str, status: int) -> None:
    address = served.client.base_url
    asked = (
        f"GET /socket/{room} HTTP/1.1\r\nHost: {address.host}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-Request-ID: room-{room}\r\n\r\n"
    )
    with socket.create_connection((address.host, address.port), timeout=60) as connection:
        connection.sendall(asked.encode())
        answer = connection.recv(4096).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert (f"x-request-id: room-{room}" in answer.lower()) == (status == 101)
    (line,) = wait_for(
        lambda: served.lines(request_id=f"room-{room}", event="request_completed"), "its end"
    )
    assert (line["method"], line["status_code"]) == ("WEBSOCKET", status)
    labels = {"endpoint": "/socket/{room}", "status_code": str(status)}
    assert served.metric("rag_http_requests_total", **labels) == 1


@pytest.mark.parametrize(
    ("path", "status", "counted", "event"),
    [
        ("/refused", 409, 409, "request_completed"),
        ("/returned", 202, 202, "request_completed"),
        ("/broken", 500, 500, "request_failed"),
        ("/special", 503, 503, "request_failed"),
        ("/stream?fail=1", 200, 500, "request_failed"),
    ],
)
def test_the_status_is_the_one_that_was_sent(
    served: Served, path: str, status: int, counted: int, event: str
) -> None:
    endpoint = path.split("?")[0]
    labels = {"endpoint": endpoint, "status_code": str(counted)}
    before = served.metric("rag_http_requests_total", **labels)
    request_id = f"status-of-{path}"
    try:
        response = served.client.get(path, headers={"X-Request-ID": request_id})
        assert response.status_code == status
        # Also on the page of an unhandled error, where it is needed most.
        assert response.headers["x-request-id"] == request_id
    except httpx.RemoteProtocolError:
        assert "stream" in path  # torn
    assert served.metric("rag_http_requests_total", **labels) == before + 1
    (line,) = wait_for(lambda: served.lines(request_id=request_id, event=event), event)
    assert line["status_code"] == counted
    if event == "request_failed":
        assert line["exception"][0]["frames"]
        assert "locals" not in line["exception"][0]["frames"][0]


def test_the_servers_own_lines_are_json_and_join_with_the_request(served: Served) -> None:
    served.client.get("/broken", headers={"X-Request-ID": "told-by-uvicorn"})
    (line,) = wait_for(
        lambda: served.lines(request_id="told-by-uvicorn", logger="uvicorn.error"),
        "line of uvicorn",
    )
    assert "Exception in ASGI application" in line["event"]
    assert len(line["trace_id"]) == 32
    assert served.lines(logger="uvicorn.error", event="Application startup complete.")
    assert not served.lines(logger="uvicorn.access")


def test_scrapes_are_neither_traced_nor_logged_nor_counted(served: Served) -> None:
    page = served.client.get("/metrics").text
    assert sample(page, "rag_http_requests_total", endpoint="/metrics") == 0
    assert not served.lines(path="/metrics")
    served.client.get("/items/flush")
    wait_for(
        lambda: any(
            s["attributes"].get("url.path") == "/items/flush" for s in served.received.spans
        ),
        "spans",
    )
    assert not [s for s in served.received.spans if s["attributes"].get("url.path") == "/metrics"]


def test_the_loop_and_streams_are_measured(served: Served) -> None:
    before = served.metric("rag_time_to_first_token_seconds_count", model="small-model")
    served.client.get("/stream")
    assert served.metric("rag_time_to_first_token_seconds_count", model="small-model") == before + 1
    wait_for(lambda: served.metric("rag_event_loop_lag_seconds_count") > 5, "measured lag")


def test_no_request_is_active_when_all_have_ended(served: Served) -> None:
    assert wait_for(lambda: served.metric("rag_active_requests") == 0, "end of all requests")


def workers(server: str) -> list[str]:
    if server == "uvicorn":
        return ["uvicorn", "observed_app:app", "--port", "{port}", "--workers", "2"]
    worker = ["-k", "uvicorn.workers.UvicornWorker", "-w", "2", "-b", "127.0.0.1:{port}"]
    return ["gunicorn", "observed_app:app", *worker]


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_several_workers_answer_with_one_page(tmp_path: Path, server: str) -> None:
    shared = tmp_path / "metrics"
    shared.mkdir()
    command = workers(server)
    with serving(tmp_path, *command, PROMETHEUS_MULTIPROC_DIR=str(shared)) as client:
        seen: dict[int, int] = {}

        def both() -> bool:
            pid = client.get("/worker").json()["pid"]
            seen[pid] = seen.get(pid, 0) + 1
            return len(seen) == 2

        wait_for(both, "second worker")
        page = client.get("/metrics").text
        total = sum(seen.values())
        assert sample(page, "rag_http_requests_total", endpoint="/worker") == total
        assert sample(page, "rag_search_queries_total", strategy="hybrid") == total
        assert sample(page, "rag_search_relevance_score_count", strategy="hybrid") == total
        # prometheus_client has no place for exemplars in the files that the workers share.
        families = list(openmetrics(client.get("/metrics", headers=OPENMETRICS).text))
        assert not [s for family in families for s in family.samples if s.exemplar]

        # A worker that dies takes its gauges with it, and its counters stay.
        victim = next(iter(seen))
        os.kill(victim, signal.SIGKILL)

        def forgotten() -> bool:
            client.get("/metrics")
            return not list(shared.glob(f"gauge_live*_{victim}.db"))

        wait_for(forgotten, "end of the dead worker's gauges")
        page = client.get("/metrics").text
        assert sample(page, "rag_search_queries_total", strategy="hybrid") == total
