"""Elasticsearch: real servers of both majors, both majors of the client, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import elastic_transport
import elasticsearch
import elasticsearch_reading as reading
import pytest
from backends.proxy import FAULTS, FaultyProxy, every_third, now_and_then
from backends.servers import CACHE, Server

from ragprof.manifest import iso
from ragprof.rows import conform
from ragprof.sources.elasticsearch import Elasticsearch, connect
from ragprof.sources.elasticsearch_client import Elastic
from ragprof.sources.http import Connection
from ragprof.sources.settings import ConfigError, Settings
from ragprof.sources.source import FAILED, WARNING, Query, SourceError, Window, fetch

WINDOW = Window(reading.FIRST, reading.LAST)
HERE = Path(__file__).parent
CLIENT_8 = CACHE / "elasticsearch-py-8"


def source(url: str, **how: Any) -> Elasticsearch:
    how.setdefault("spans", "")
    return Elasticsearch("es", Connection(url, retries=2), **how)


def with_client_8(url: str) -> subprocess.CompletedProcess[str]:
    if not (CLIENT_8 / "elasticsearch").is_dir():
        raise FileNotFoundError(f"{CLIENT_8} is missing: run tests/backends/install.sh")
    path = os.pathsep.join([str(CLIENT_8), str(HERE), str(HERE.parent)])
    return subprocess.run(
        [sys.executable, str(HERE / "elasticsearch_reading.py"), url],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=540,
    )


@pytest.mark.timeout(600)  # a server starts first
def test_client_9_reads_server_9(elasticsearch9: Server) -> None:
    assert elasticsearch.__version__[0] == 9
    reading.main(elasticsearch9.url)


@pytest.mark.timeout(600)  # a server starts first
def test_client_8_reads_server_8(elasticsearch8: Server) -> None:
    ran = with_client_8(elasticsearch8.url)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.timeout(600)  # a server starts first
def test_a_client_newer_than_the_server_is_said_in_one_sentence(elasticsearch8: Server) -> None:
    with pytest.raises(SourceError) as caught:
        source(elasticsearch8.url, logs="any").plan(WINDOW, Query())
    assert "older Elasticsearch than the installed elasticsearch-py" in str(caught.value)
    assert 'pip install "elasticsearch>=8.15,<9"' in str(caught.value)


def test_missing_index_and_field(elasticsearch9: Server) -> None:
    url = elasticsearch9.url
    with pytest.raises(SourceError, match=r"has no index ragprof-nowhere.*_cat/indices"):
        source(url, logs="ragprof-nowhere").plan(WINDOW, Query())
    with pytest.raises(SourceError, match=r"no index of .* matches ragprof-nowhere-\*"):
        source(url, logs="ragprof-nowhere-*").plan(WINDOW, Query())
    reading.fill(url, "ragprof-test-fields")
    with pytest.raises(SourceError, match=r"no field when; set time to one .*@timestamp"):
        source(url, logs="ragprof-test-fields", time="when").plan(WINDOW, Query())
    with pytest.raises(SourceError, match=r"mapped as keyword, not as a date"):
        source(url, logs="ragprof-test-fields", time="message").plan(WINDOW, Query())
    states = {c.state for c in source(url, logs="ragprof-nowhere-*").check(WINDOW)}
    assert WARNING in states
    gone = source("http://127.0.0.1:9", logs="x")
    gone.client._wait = lambda _: None
    (check,) = gone.check(WINDOW)
    assert check.state == FAILED
    assert "cannot be reached" in check.text


def test_a_point_in_time_that_expires_is_read_anew(
    elasticsearch9: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = elasticsearch9.url
    moments = reading.fill(url, "ragprof-test-expiry")
    read = source(url, logs="ragprof-test-expiry", parallel=1)
    monkeypatch.setattr("ragprof.sources.elasticsearch.page_size", lambda _: 500)
    search, calls = Elastic.search, []

    def closing(self: Elastic, body: Any, index: str = "", **how: Any) -> Any:
        calls.append(body)
        if "pit" in body and sum("pit" in call for call in calls) == 3:
            given_back = json.dumps({"id": body["pit"]["id"]}).encode()
            reading.ask(url, "DELETE", "/_pit", given_back)
        return search(self, body, index, **how)

    monkeypatch.setattr(Elastic, "search", closing)
    assert reading.read(read, WINDOW) == reading.within(moments, WINDOW)
    assert sum("pit" in call and "search_after" not in call for call in calls) == 2


@pytest.fixture(scope="module")
def filled(elasticsearch9: Server) -> tuple[str, dict[str, int]]:
    """An index of log records, and their times (ns) by message."""
    return "ragprof-test-faults", reading.fill(elasticsearch9.url, "ragprof-test-faults")


@pytest.mark.parametrize("fault", [*FAULTS, "at random"])
def test_faults_of_the_way_leave_the_same_table(
    elasticsearch9: Server, filled: tuple[str, dict[str, int]], fault: str
) -> None:
    index, moments = filled
    random = now_and_then(5, 0.5, [each for each in FAULTS if each != "slow"])
    plan = random if fault == "at random" else every_third(fault)
    with FaultyProxy(elasticsearch9.url, plan) as proxy:
        read = source(proxy.url, logs=index, piece=400)
        read.client._to = Connection(proxy.url, retries=20)  # slices share the proxy's bad luck
        read.client._wait = lambda seconds: None
        found = reading.read(read, WINDOW)
        read.close()
        assert proxy.faults()
    assert found == reading.within(moments, WINDOW)


def test_spans_out_of_elasticsearch(elasticsearch9: Server) -> None:
    url, index = elasticsearch9.url, "ragprof-test-traces"
    reading.with_quiet_absence(url, index)
    keyword = {"type": "keyword"}
    texts = {"match_mapping_type": "string", "mapping": keyword}
    mappings = {
        "properties": {"@timestamp": {"type": "date_nanos"}},
        "dynamic_templates": [{"texts": texts}],
    }
    reading.ask(url, "PUT", f"/{index}", json.dumps({"mappings": mappings}).encode())
    lines: list[Any] = []
    for number in range(60):
        trace = number // 2
        start = reading.FIRST + number * 100_000_000
        lines += [
            {"create": {"_index": index}},
            {
                "@timestamp": iso(start),
                "trace_id": f"{trace + 1:032x}",
                "span_id": f"{number + 1:016x}",
                **({"parent_span_id": f"{number:016x}"} if number % 2 else {}),
                "name": "root" if number % 2 == 0 else "child",
                "kind": "Server",
                "duration": 1_000_000 * (number + 1),
                "attributes": {"half": "odd" if trace % 2 else "even"},
                "resource": {
                    "attributes": {"service.name": "front" if number % 2 == 0 else "back"}
                },
            },
        ]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert not reading.ask(url, "POST", "/_bulk?refresh=true", body)["errors"]
    read = source(url, logs="", spans=index, piece=7)

    def spans(query: Query | None = None) -> list[int]:
        found = []
        for table, rows in fetch(read, WINDOW, query):
            assert table == "spans"
            conform(table, rows)
            found += [int(each, 16) - 1 for each in rows["span_id"].to_pylist()]
        return sorted(found)

    def traces(*numbers: int) -> list[int]:
        return sorted(2 * number + side for number in numbers for side in (0, 1))

    assert spans() == list(range(60))
    assert spans(Query(trace_ids=(f"{5:032x}",))) == traces(4)
    assert spans(Query(services=("back",))) == list(range(60))
    assert spans(Query(operations=("root",), tags={"half": "odd"})) == traces(*range(1, 30, 2))
    assert spans(Query(min_duration=59_000_000)) == traces(29)
    assert spans(Query(tags={"none": "x"})) == []
    roots = read.roots(WINDOW, Query()).to_pylist()
    assert sorted(int(row["trace_id"], 16) for row in roots) == list(range(1, 31))
    assert {(row["service"], row["name"]) for row in roots} == {("front", "root")}


def answers(source: Elasticsearch, *replies: Any) -> list[str]:
    """Give a source an Elasticsearch that answers thus, one after the other; its requests."""
    asked: list[str] = []
    rest = list(replies)

    def once(method: str, path: str, body: Any, params: Any) -> bytes:
        asked.append(f"{method} {path}")
        reply = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(reply, Exception):
            raise reply
        return bytes(reply)

    source.client._once = once  # type: ignore[method-assign]
    source.client._wait = lambda _: None
    return asked


def refusal(status: int, body: bytes) -> elasticsearch.ApiError:
    node = elastic_transport.NodeConfig("http", "es", 9200)
    meta = elastic_transport.ApiResponseMeta(
        status, "1.1", elastic_transport.HttpHeaders(), 0.1, node
    )
    return elasticsearch.ApiError("no", meta, body)


def test_what_passes_is_tried_again() -> None:
    read = source("http://es:9200", logs="x")
    asked = answers(
        read,
        elastic_transport.ConnectionError("cut"),
        refusal(429, b'{"error": "busy"}'),
        b'{"took": 1, "hits": {"hits": []}}',
    )
    assert read.client.search({}).hits.hits == []
    assert len(asked) == 3
    assert read.client.repeated == 2


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"<html>", "answers garbage"),
        (b"{}", "answers garbage"),
        (refusal(401, b'{"error": "no"}'), "give api_key"),
        (refusal(403, b'{"error": {"reason": "denied"}}'), r"denied.*privilege read"),
        (refusal(500, b"oops"), "oops"),
        (elastic_transport.ConnectionTimeout("late"), "does not answer within"),
        (
            b'{"took": 1, "_shards": {"failed": 1, "failures": [{"reason": {"reason": "lost"}}]}}',
            r"1 shards .*lost.*rows would be missing",
        ),
        (b'{"took": 1, "timed_out": true}', "rows would be missing"),
        (elasticsearch.UnsupportedProductError("x", None, None), "not as Elasticsearch"),
    ],
)
def test_what_does_not_pass_is_one_clear_sentence(reply: Any, says: str) -> None:
    read = source("http://es:9200", logs="x")
    answers(read, reply)
    with pytest.raises(SourceError, match=says):
        read.client.search({})


def test_too_large_pages_get_smaller() -> None:
    read = source("http://es:9200", logs="x")
    answers(
        read,
        b'{"id": "p"}',
        refusal(429, b'{"error": {"type": "circuit_breaking_exception", "reason": "heap"}}'),
        b'{"took": 1, "hits": {"hits": [{"_source": {"a": 1}, "sort": [1]}]}}',
        b'{"took": 1}',
    )
    (page,) = read.client.pages("x", {"match_all": {}}, 400)
    assert len(page) == 1


def test_settings_are_checked_and_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ES_KEY", "c2VjcmV0")
    fields = {
        "url": "http://es:9200",
        "api_key": {"env": "ES_KEY"},
        "fields": {"service": ["app"]},
        "logs": ["a-*", "b-*"],
    }
    read = connect(Settings("es", fields))
    assert (read.logs, read.fields.roles["service"]) == ("a-*,b-*", ("app",))
    assert "c2VjcmV0" not in json.dumps(read.describe())
    with pytest.raises(ConfigError, match=r"fields\.wrong"):
        connect(Settings("es", {**fields, "fields": {"wrong": "x"}}))
    with pytest.raises(ConfigError, match="api_key"):
        connect(Settings("es", {**fields, "token": {"env": "ES_KEY"}}))
