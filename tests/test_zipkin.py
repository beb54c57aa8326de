"""Zipkin: its JSON as rows, and the API by what a server answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from backends.proxy import FAULTS, FaultyProxy, every_third, now_and_then
from backends.standin import StandIn

from ragprof.rows import conform
from ragprof.sources import zipkin
from ragprof.sources.http import Client, Connection, Garbled
from ragprof.sources.settings import Settings
from ragprof.sources.source import FAILED, OK, Query, Window, fetch
from ragprof.sources.zipkin import Zipkin, connect

START = 1_790_000_000_000_000  # us
TRACE = "463ac35c9f6413ad"


def span(number: int, start: int, trace: str = TRACE, **changes: Any) -> dict[str, Any]:
    return {
        "traceId": trace,
        "id": f"{number:016x}",
        "name": f"step {number}",
        "timestamp": start,
        "duration": 1500,
        "localEndpoint": {"serviceName": "front"},
        **changes,
    }


def test_a_span_becomes_a_row() -> None:
    content = span(
        1,
        START,
        kind="CLIENT",
        parentId="000000000000000f",
        remoteEndpoint={"serviceName": "db"},
        tags={"http.path": "/a", "error": "timeout"},
        annotations=[{"timestamp": START + 1, "value": "retry"}],
    )
    rows, refused = zipkin.read([content, {"id": "1"}, 5, span(2, 0)])
    conform("spans", rows)
    (row,) = rows.to_pylist()
    assert (row["trace_id"], row["parent_span_id"]) == (f"{'0' * 16}{TRACE}", f"{15:016x}")
    assert (row["start"].value, row["duration_ns"]) == (START * 1000, 1_500_000)
    assert (row["kind"], row["status"], row["status_message"]) == ("client", "error", "timeout")
    assert dict(row["attributes"]) == {"http.path": "/a", "peer.service": "db"}
    assert json.loads(row["events"]) == [
        {"time": (START + 1) * 1000, "name": "retry", "attributes": {}}
    ]
    assert refused == {"span that is not in Zipkin's form": 2, "span without a usable start": 1}


def test_ids_that_client_and_server_share_are_told_apart() -> None:
    back = {"serviceName": "back"}
    rows, _ = zipkin.read(
        [
            span(1, START, kind="CLIENT"),
            span(1, START + 100, kind="SERVER", shared=True, localEndpoint=back),
            span(2, START + 200, parentId=f"{1:016x}", localEndpoint=back),
            span(3, START + 200, parentId=f"{1:016x}"),
        ]
    )
    client, server, below, beside = rows.to_pylist()
    assert len({row["span_id"] for row in rows.to_pylist()}) == 4
    assert server["parent_span_id"] == client["span_id"]
    assert below["parent_span_id"] == server["span_id"]
    assert beside["parent_span_id"] == client["span_id"]


def backend(stored: list[dict[str, Any]]) -> Any:
    """A Zipkin that holds some spans, gives whole traces, and no more than asked for."""

    def answer(request: httpx.Request) -> httpx.Response:
        path, params = request.url.path, request.url.params
        if path.endswith("/services"):
            return httpx.Response(200, json=sorted({_service(each) for each in stored}))
        if "/trace/" in path:
            found = [each for each in stored if each["traceId"] == path.rpartition("/")[2][16:]]
            return httpx.Response(200 if found else 404, json=found)
        last, back = int(params["endTs"]), int(params["lookback"])
        chosen: dict[str, None] = {}
        for each in stored:
            at = each["timestamp"] // 1000
            service = params.get("serviceName")
            if last - back <= at <= last and service in (None, _service(each)):
                chosen.setdefault(each["traceId"])
        wanted = list(chosen)[: int(params["limit"])]
        return httpx.Response(
            200, json=[[each for each in stored if each["traceId"] == trace] for trace in wanted]
        )

    return answer


def offline(stored: list[dict[str, Any]], limit: int = 3) -> Zipkin:
    source = connect(Settings("zipkin", {"url": "http://zipkin", "limit": limit}))
    source.client = Client(
        "zipkin", Connection("http://zipkin"), transport=httpx.MockTransport(backend(stored))
    )
    return source


def _service(each: dict[str, Any]) -> str:
    return str(each["localEndpoint"]["serviceName"])


def two_each(count: int) -> tuple[list[dict[str, Any]], Window]:
    """Traces of two spans, and a window at whose end the last of them begins."""
    stored = [
        span(2 * number + side + 1, START + number * 7000 + side * 3000, trace=f"{number + 1:016x}")
        for number in range(count)
        for side in (0, 1)
    ]
    return stored, Window(START * 1000, (START + (count - 1) * 7000) * 1000)


def test_all_traces_of_a_window_come_once() -> None:
    stored, window = two_each(40)
    source = offline(stored)
    found = [each for _, rows in fetch(source, window) for each in rows["span_id"].to_pylist()]
    assert sorted(found) == sorted(each["id"] for each in stored[:-2])
    rows = source.roots(window, Query()).to_pylist()
    assert len(rows) == 39
    only = Query(trace_ids=(f"{3:032x}", "f" * 32))
    assert sum(rows.num_rows for _, rows in fetch(source, window, only)) == 2
    none = Query(services=("other",))
    assert sum(rows.num_rows for _, rows in fetch(source, window, none)) == 0
    assert source.check(window)[0].state == OK


@pytest.mark.parametrize("fault", [*FAULTS, "at random"])
def test_faults_of_the_way_leave_the_same_table(fault: str) -> None:
    stored, window = two_each(12)
    random = now_and_then(5, 0.5, [each for each in FAULTS if each != "slow"])
    plan = random if fault == "at random" else every_third(fault)
    with StandIn(backend(stored)) as server, FaultyProxy(server.url, plan) as proxy:
        source = Zipkin("zipkin", Connection(proxy.url), limit=4)
        source.client._wait = lambda seconds: None
        queries = [Query(), Query(trace_ids=tuple(f"{number:032x}" for number in range(1, 12)))]
        for query in queries:
            tables = [rows for _, rows in fetch(source, window, query)]
            found = [each for rows in tables for each in rows["span_id"].to_pylist()]
            assert sorted(found) == sorted(each["id"] for each in stored[:-2])
        assert proxy.faults()


def test_garbage_and_absence() -> None:
    for content in ({}, "x", None):
        with pytest.raises(Garbled):
            zipkin.read(content)
    nowhere = Zipkin("zipkin", Connection("http://127.0.0.1:9", retries=0))
    assert nowhere.check(Window(1, 2))[0].state == FAILED
