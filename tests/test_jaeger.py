"""Jaeger: both APIs of a real server, and searches that give no more than N traces."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import httpx
import pyarrow as pa
import pytest
from backends.proxy import FAULTS, FaultyProxy, every_third, now_and_then
from backends.servers import Server, wait
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.rows import conform
from ragprof.sources import jaeger as jaeger_source
from ragprof.sources import otlp, trace_search
from ragprof.sources.http import Client, Connection
from ragprof.sources.jaeger import Jaeger, connect
from ragprof.sources.settings import ConfigError, Settings
from ragprof.sources.source import FAILED, OK, WARNING, Query, SourceError, Window, fetch

ONLY_MICROSECONDS = "ui"
TRACES = 40


def span(trace: int, number: int, start: int, length: int, **changes: Any) -> dict[str, Any]:
    return {
        "traceId": f"{trace:032x}",
        "spanId": f"{trace * 16 + number:016x}",
        "name": f"step {number}",
        "kind": 2 if number == 1 else 3,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + length),
        "attributes": [
            {"key": "n", "value": {"intValue": str(number)}},
            {"key": "half", "value": {"stringValue": "odd" if trace % 2 else "even"}},
        ],
        **changes,
    }


def request(service: str, spans: list[dict[str, Any]]) -> dict[str, Any]:
    resource = {
        "attributes": [
            {"key": "service.name", "value": {"stringValue": service}},
            {"key": "host.name", "value": {"stringValue": "node-1"}},
        ]
    }
    scoped = {"scope": {"name": "scope"}, "spans": spans}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scoped]}]}


@pytest.fixture(scope="module")
def sent(jaeger: Server) -> tuple[str, Window, list[dict[str, Any]]]:
    """Traces of two services in Jaeger: its address, their window, the rows as they were sent.

    The window begins and ends on a span, and more spans lie just outside of it.
    """
    first = time.time_ns() // 1_000_000 * 1_000_000 - 200_000_000_000
    base = first // 1000 % 10**9 * 1000
    requests = []
    for number in range(TRACES + 1):  # the last begins at the window's end
        start = first + number * 2_000_000_000 + (0 if number in (0, TRACES) else 123)
        trace = base + number
        root = span(trace, 1, start, 900_000_000 + number)
        links = [{"traceId": "f" * 32, "spanId": "e" * 16}]
        events = [{"timeUnixNano": str(start + 5000), "name": "exception", "attributes": []}]
        child = span(
            trace, 2, start + 1_500_000_000, 5_000_000,
            parentSpanId=root["spanId"], links=links, events=events,
            status={"code": 2, "message": "bad"},
        )  # fmt: skip
        requests.append(request("jaeger-front", [root]))
        requests.append(request("jaeger-back", [child]))
    port = jaeger.ports["otlp_http"]
    for content in requests:
        body = json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        url = f"http://127.0.0.1:{port}/v1/traces"
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).close()
    source = Jaeger("jaeger", Connection(jaeger.url))
    last = f"{base + TRACES:032x}"
    assert wait(lambda: source.trace(last).num_rows == 2)
    source.close()
    window = Window(first, first + TRACES * 2_000_000_000)
    rows = [
        row
        for content in requests
        for row in otlp.spans(otlp.filled("traces", content))[0].to_pylist()
        if row["trace_id"] != last
    ]
    return jaeger.url, window, rows


def comparable(rows: list[dict[str, Any]], *, coarse: bool) -> list[Any]:
    """Rows in one order, with maps in one order; `coarse`: as an API of microseconds has them."""
    found = []
    for row in rows:
        kept = {**row, "attributes": sorted(row["attributes"]), "resource": sorted(row["resource"])}
        kept["start"] = row["start"].value // (1000 if coarse else 1)
        kept["duration_ns"] = row["duration_ns"] // (1000 if coarse else 1)
        events = json.loads(row["events"])
        kept["events"] = [{**e, "time": e["time"] // (1000 if coarse else 1)} for e in events]
        found.append(kept)
    return sorted(found, key=lambda row: (row["trace_id"], row["span_id"]))


def fetched(source: Jaeger, window: Window, query: Query | None = None) -> list[dict[str, Any]]:
    rows = []
    for name, table in fetch(source, window, query):
        assert name == "spans"
        conform(name, table)
        rows += table.to_pylist()
    return rows


@pytest.mark.parametrize("api", ["v3", "ui"])
@pytest.mark.parametrize("limit", [500, 4])
def test_all_spans_of_a_window_come_once(
    sent: tuple[str, Window, list[Any]], api: str, limit: int
) -> None:
    url, window, expected = sent
    source = connect(Settings("jaeger", {"url": url, "api": api, "limit": limit}))
    rows = fetched(source, window)
    coarse = api == ONLY_MICROSECONDS
    mine = {row["trace_id"] for row in expected}
    rows = [row for row in rows if row["trace_id"] in mine]  # others use the same server
    assert comparable(rows, coarse=coarse) == comparable(expected, coarse=coarse)
    assert not source.refused


@pytest.mark.parametrize("api", ["v3", "ui"])
def test_queries(sent: tuple[str, Window, list[Any]], api: str) -> None:
    url, window, expected = sent
    source = Jaeger("jaeger", Connection(url), api=api, limit=7)
    everything = {row["trace_id"] for row in expected}
    by_trace = sorted(everything)

    def traces(query: Query) -> set[str]:
        rows = fetched(source, window, query)
        spans = [(row["trace_id"], row["span_id"]) for row in rows]
        assert len(spans) == len(set(spans)) == 2 * len({trace for trace, _ in spans})
        return {trace for trace, _ in spans}

    service = ("jaeger-back",)
    assert traces(Query(services=service)) == everything
    assert traces(Query(services=("jaeger-front", *service))) == everything
    assert traces(Query(services=service, operations=("step 2",))) == everything
    assert traces(Query(services=service, operations=("step 1",))) == set()
    even = {trace for trace in everything if int(trace, 16) % 2 == 0}
    assert traces(Query(services=service, tags={"half": "even"})) == even
    long = Query(services=("jaeger-front",), min_duration=900_000_000 + 1000)
    assert traces(long) == set()
    assert traces(Query(services=("jaeger-front",), min_duration=900_000_000)) == everything
    assert traces(Query(trace_ids=(by_trace[3], "a" * 32))) == {by_trace[3]}


def through(url: str, **how: Any) -> Jaeger:
    """A source that does not wait between its tries."""
    source = Jaeger("jaeger", Connection(url), **how)
    source.client._wait = lambda seconds: None
    return source


@pytest.mark.parametrize("api", ["v3", "ui"])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_the_way_leaves_the_same_table(
    sent: tuple[str, Window, list[Any]], api: str, fault: str
) -> None:
    url, window, expected = sent
    query = Query(services=("jaeger-front", "jaeger-back"))
    coarse = api == ONLY_MICROSECONDS
    with FaultyProxy(url, every_third(fault)) as proxy:
        rows = fetched(through(proxy.url, api=api, limit=15), window, query)
        assert proxy.faults()
    assert comparable(rows, coarse=coarse) == comparable(expected, coarse=coarse)


def test_faults_at_random_leave_the_same_table(sent: tuple[str, Window, list[Any]]) -> None:
    url, window, expected = sent
    traces = tuple(sorted({row["trace_id"] for row in expected}))
    with FaultyProxy(
        url, now_and_then(3, 0.5, [each for each in FAULTS if each != "slow"])
    ) as proxy:
        source = through(proxy.url)  # which of the two APIs there is, it asks, too
        by_service = fetched(source, window, Query(services=("jaeger-front", "jaeger-back")))
        by_id = fetched(source, window, Query(trace_ids=traces))
        roots = source.roots(window, Query(services=("jaeger-front",)))
        assert len(set(proxy.faults())) > 5
    assert source.describe()["api"] == "v3"
    for rows in (by_service, by_id):
        assert comparable(rows, coarse=False) == comparable(expected, coarse=False)
    assert sorted(roots["trace_id"].to_pylist()) == list(traces)


def test_roots_are_listed(sent: tuple[str, Window, list[Any]]) -> None:
    url, window, expected = sent
    source = Jaeger("jaeger", Connection(url))
    rows = source.roots(window, Query(services=("jaeger-front",))).to_pylist()
    assert sorted(row["trace_id"] for row in rows) == sorted({r["trace_id"] for r in expected})
    assert {(row["service"], row["name"]) for row in rows} == {("jaeger-front", "step 1")}


def test_checks(sent: tuple[str, Window, list[Any]]) -> None:
    url, window, _ = sent
    source = Jaeger("jaeger", Connection(url))
    assert {check.state for check in source.check(window)} == {OK}
    nowhere = Jaeger("jaeger", Connection("http://127.0.0.1:9", retries=0))
    (check,) = nowhere.check(window)
    assert check.state == FAILED
    assert "cannot be reached" in check.text


def offline(answer: Any, **how: Any) -> Jaeger:
    source = Jaeger("jaeger", Connection("http://jaeger"), **how)
    source.client = Client(
        "jaeger",
        Connection("http://jaeger", retries=1),
        transport=httpx.MockTransport(answer),
        wait=lambda _: None,
    )
    return source


def test_the_uis_api_is_asked_where_there_is_no_v3() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "/v3/" in request.url.path:
            return httpx.Response(404)
        return httpx.Response(200, json={"data": ["a"]})

    source = offline(answer)
    assert source.services() == ["a"]
    assert source.describe()["api"] == "ui"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b'{"result": 1}', b'{"result": {"resourceSpans": 5}}', b"\xff"],
)
def test_garbage_is_said_and_not_taken_for_an_empty_answer(body: bytes) -> None:
    source = offline(lambda request: httpx.Response(200, content=body), api="v3")
    with pytest.raises(SourceError, match="garbage"):
        source.search(Window(1, 10**9), Query(services=("a",)), 5)


def test_a_server_without_services_is_a_warning() -> None:
    source = offline(lambda request: httpx.Response(200, json={"services": []}), api="v3")
    assert source.check(Window(1, 2))[-1].state == WARNING


def test_the_api_must_be_one_of_two() -> None:
    with pytest.raises(ConfigError, match="api"):
        connect(Settings("jaeger", {"api": "v4"}))


def test_forms_of_jaegers_json() -> None:
    content = [
        {
            "spans": [
                {
                    "traceID": "ABCDEF0123456789",  # 64 bits
                    "spanID": "1f",
                    "parentSpanID": "",
                    "operationName": "get",
                    "startTime": "1790000000000000",
                    "duration": 1500,
                    "references": [
                        {"refType": "CHILD_OF", "traceID": "abcdef0123456789", "spanID": "1e"},
                        {"refType": "FOLLOWS_FROM", "traceID": "1", "spanID": "2"},
                    ],
                    "tags": [
                        {"key": "span.kind", "type": "string", "value": "client"},
                        {"key": "error", "type": "bool", "value": True},
                        {"key": "raw", "type": "binary", "value": "00ff"},
                        {"key": "n", "type": "int64", "value": 5},
                    ],
                    "logs": [
                        {"timestamp": 1790000000000001, "fields": [{"key": "event", "value": "e"}]}
                    ],
                    "process": {"serviceName": "s", "tags": [{"key": "pid", "value": 7}]},
                },
                {"traceID": "1"},
                "nothing",
            ]
        }
    ]
    rows, refused = jaeger_source.read_ui(content)
    (row,) = rows.to_pylist()
    assert row["trace_id"] == "0000000000000000abcdef0123456789"
    assert (row["span_id"], row["parent_span_id"]) == (f"{0x1F:016x}", f"{0x1E:016x}")
    assert (row["kind"], row["status"], row["service"]) == ("client", "error", "s")
    assert (row["start"].value, row["duration_ns"]) == (1_790_000_000_000_000_000, 1_500_000)
    assert dict(row["attributes"]) == {"error": "true", "raw": "AP8=", "n": "5"}
    assert dict(row["resource"]) == {"service.name": "s", "pid": "7"}
    assert json.loads(row["events"])[0]["name"] == "e"
    assert json.loads(row["links"])[0]["trace_id"] == f"{1:032x}"
    assert refused == {"span that is not in Jaeger's form": 2}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 5000), max_size=30, unique=True),
    st.integers(2, 6),
    st.integers(0, 3000),
    st.integers(1, 3000),
)
def test_halving_finds_every_trace_once(
    starts: list[int], limit: int, first: int, length: int
) -> None:
    """A backend that gives N traces at most, and counts both edges of a window as within it."""
    window = Window(1 + first * 1000, 1 + (first + length) * 1000)
    stored = [
        {"trace_id": f"{number + 1:032x}", "start": 1 + start * 1000}
        for number, start in enumerate(starts)
    ]

    def search(part: Window, most: int) -> pa.Table:
        low, high = part.start // 1000, -(-part.end // 1000)
        inside = [row for row in stored if low <= row["start"] // 1000 <= high][:most]
        return pa.table(
            {
                "trace_id": pa.array([row["trace_id"] for row in inside], pa.string()),
                "start": pa.array([row["start"] for row in inside], pa.int64()),
            }
        )

    wanted = [row for row in stored if window.start <= row["start"] < window.end]
    try:
        taken: set[str] = set()
        found = [
            trace
            for rows in trace_search.complete(search, window, limit, "test")
            for trace in trace_search.new_traces(
                trace_search.anchored(rows, window, Query()), taken
            )["trace_id"].to_pylist()
        ]
    except SourceError:
        # neighbours on both edges of one microsecond are more than the limit: said, not lost
        assert limit <= 3
        return
    assert sorted(found) == sorted(row["trace_id"] for row in wanted)
