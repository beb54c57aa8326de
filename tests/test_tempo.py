"""Tempo by recorded answers: forms of traces, listings made complete, the slowest by halving."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import httpx
import pytest
from backends.proxy import FAULTS, FaultyProxy, every_third, now_and_then
from backends.standin import StandIn
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.rows import conform
from ragprof.sources.http import Client, Connection
from ragprof.sources.settings import Settings
from ragprof.sources.source import FAILED, OK, Query, SourceError, Window, fetch
from ragprof.sources.tempo import SECOND, Tempo, connect, traceql

FIRST = 1_790_000_000 * SECOND
MS = 1_000_000

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = {
    "traceId": base64.b64encode(bytes.fromhex(TRACE)).decode(),  # as Tempo's JSON has ids
    "spanId": base64.b64encode(b"12345678").decode(),
    "name": "GET /v1/search",
    "kind": "SPAN_KIND_SERVER",
    "startTimeUnixNano": str(FIRST),
    "endTimeUnixNano": str(FIRST + 5 * MS),
    "attributes": [{"key": "http.route", "value": {"stringValue": "/v1/search"}}],
    "status": {"code": "STATUS_CODE_ERROR", "message": "m"},
}
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "rag"}}]}
SCOPED = {"scope": {"name": "sc"}, "spans": [SPAN]}
ANSWERS = {
    "v1": {"batches": [{"resource": RESOURCE, "scopeSpans": [SCOPED]}]},
    "v2": {"trace": {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [SCOPED]}]}},
    "old": {
        "batches": [
            {
                "resource": RESOURCE,
                "instrumentationLibrarySpans": [
                    {"instrumentationLibrary": {"name": "sc"}, "spans": [SPAN]}
                ],
            }
        ]
    },
}


def offline(answer: Any, limit: int = 500) -> Tempo:
    source = connect(Settings("tempo", {"url": "http://tempo", "limit": limit}))
    source.client = Client(
        "tempo",
        Connection("http://tempo", retries=1),
        transport=httpx.MockTransport(answer),
        wait=lambda _: None,
    )
    return source


@pytest.mark.parametrize("form", ["v1", "v2", "old"])
def test_a_trace_by_id(form: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        is_v2 = "/v2/" in request.url.path
        found = is_v2 == (form == "v2") and request.url.path.endswith(TRACE)
        return httpx.Response(200 if found else 404, json=ANSWERS[form])

    source = offline(answer)
    query = Query(trace_ids=(TRACE, "f" * 32))
    [(table, rows)] = list(fetch(source, Window(1, 2), query))
    conform(table, rows)
    (row,) = rows.to_pylist()
    assert (row["trace_id"], row["span_id"]) == (TRACE, b"12345678".hex())
    assert (row["service"], row["scope"], row["kind"]) == ("rag", "sc", "server")
    assert (row["status"], row["start"].value, row["duration_ns"]) == ("error", FIRST, 5 * MS)


def backend(stored: list[tuple[int, int]], searches: list[str]) -> Any:
    """A Tempo with traces of (start, duration) in ns: gives the first N that fit."""

    def answer(request: httpx.Request) -> httpx.Response:
        params = request.url.params
        searches.append(params["q"])
        low, high = int(params["start"]), int(params["end"])
        least = re.search(r"traceDuration >= (\d+)ns", params["q"])
        most = re.search(r"traceDuration < (\d+)ns", params["q"])
        traces = [
            {
                "traceID": f"{number + 1:x}",  # without leading zeros, as Tempo writes them
                "rootServiceName": "rag",
                "rootTraceName": "GET",
                "startTimeUnixNano": str(start),
                "durationMs": duration // MS,
            }
            for number, (start, duration) in enumerate(stored)
            if low * SECOND <= start <= high * SECOND
            and (not least or duration >= int(least[1]))
            and (not most or duration < int(most[1]))
        ]
        return httpx.Response(200, json={"traces": traces[: int(params["limit"])]})

    return answer


moments = st.integers(0, 20 * SECOND)
lengths = st.integers(0, 4000).map(lambda ms: ms * MS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(moments, lengths), max_size=40, unique=True), st.integers(12, 30))
def test_listings_are_complete_and_the_slowest_are_found(
    stored: list[tuple[int, int]], limit: int
) -> None:
    stored = [(FIRST + start, length) for start, length in stored]
    window = Window(FIRST, FIRST + 20 * SECOND)
    inside = [(n, start, length) for n, (start, length) in enumerate(stored) if start < window.end]
    searches: list[str] = []
    source = offline(backend(stored, searches), limit)
    rows = source.roots(window, Query()).to_pylist()
    ties = max((sum(1 for _, _, b in inside if a == b) for _, _, a in inside), default=0)
    if ties < limit:
        assert sorted(row["trace_id"] for row in rows) == [f"{n + 1:032x}" for n, _, _ in inside]
    searches.clear()
    slow = source.slowest(window, Query(), 5).to_pylist()
    assert len(searches) < 60
    wanted = sorted((length for _, _, length in inside), reverse=True)[:5]
    if ties < 5 and len(inside) == len(stored):
        assert [row["duration_ns"] for row in slow][: len(wanted)] == wanted


def test_more_than_can_be_listed_still_gives_the_slowest() -> None:
    stored = [(FIRST + number % 3, MS * (number % 7)) for number in range(300)]
    stored.append((FIRST + 5, 900 * MS))
    source = offline(backend(stored, []), limit=10)
    rows = source.roots(Window(FIRST, FIRST + SECOND), Query()).to_pylist()
    assert max(row["duration_ns"] for row in rows) == 900 * MS
    assert len({row["trace_id"] for row in rows}) == len(rows)


def whole(stored: list[tuple[int, int]]) -> Any:
    """A Tempo that has the traces, too: each a span that says its number."""
    searched = backend(stored, [])

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/api/search":
            return searched(request)
        number = int(path.rpartition("/")[2], 16)
        if "/v2/" not in path or number > len(stored):
            return httpx.Response(404)
        start, length = stored[number - 1]
        own = {
            **SPAN,
            "traceId": f"{number:032x}",
            "spanId": f"{number:016x}",
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + length),
        }
        scoped = {"resource": RESOURCE, "scopeSpans": [{"spans": [own]}]}
        return httpx.Response(200, json={"trace": {"resourceSpans": [scoped]}})

    return answer


STORED = [(FIRST + number * SECOND // 3, (number * 37 % 90 + 1) * MS) for number in range(50)]
SOON = Window(FIRST, FIRST + 10 * SECOND)


def read_through(url: str) -> tuple[list[Any], list[Any]]:
    """All rows of a window, and its slowest traces, without waiting between tries."""
    source = Tempo("tempo", Connection(url), limit=12)
    source.client._wait = lambda seconds: None
    rows = [row for _, table in fetch(source, SOON) for row in table.to_pylist()]
    slow = source.slowest(SOON, Query(), 5).to_pylist()
    source.close()
    return sorted(rows, key=lambda row: row["span_id"]), slow


@pytest.mark.parametrize("fault", [*FAULTS, "at random"])
def test_faults_of_the_way_leave_the_same_table(fault: str) -> None:
    random = now_and_then(5, 0.5, [each for each in FAULTS if each != "slow"])
    plan = random if fault == "at random" else every_third(fault)
    with StandIn(whole(STORED)) as server, FaultyProxy(server.url, plan) as proxy:
        rows, slow = read_through(proxy.url)
        assert proxy.faults()
        assert (rows, slow) == read_through(server.url)
    inside = [number for number, (start, _) in enumerate(STORED) if start < SOON.end]
    assert [int(row["span_id"], 16) - 1 for row in rows] == inside
    assert [row["duration_ns"] // MS for row in slow[:5]] == sorted(
        (STORED[number][1] // MS for number in inside), reverse=True
    )[:5]


def test_queries_in_traceql() -> None:
    query = Query(
        services=("a", 'b"'), operations=("GET /",), tags={"http.route": "/x"}, min_duration=5
    )
    assert traceql(query, (1, 2)) == (
        '{ (resource.service.name = "a" || resource.service.name = "b\\"") && name = "GET /" && '
        '.http.route = "/x" && duration >= 5ns && traceDuration >= 1ns && traceDuration < 2ns }'
    )
    assert traceql(Query()) == "{ }"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"traces": 5}', b'{"traces": [5]}'])
def test_garbage_is_said(body: bytes) -> None:
    source = offline(lambda request: httpx.Response(200, content=body))
    with pytest.raises(SourceError, match="garbage"):
        source.search(Window(FIRST, FIRST + 1), Query(), 5)


def test_checks() -> None:
    window = Window(FIRST, FIRST + SECOND)
    source = offline(lambda request: httpx.Response(200, content=json.dumps({}).encode()))
    assert source.check(window)[0].state == OK
    refused = offline(lambda request: httpx.Response(401))
    assert refused.check(window)[0].state == FAILED
