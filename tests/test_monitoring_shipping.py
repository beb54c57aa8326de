"""The log line's way: a file, the exported rsyslog configuration, a real Elasticsearch."""

from __future__ import annotations

import io
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import log_shipping
import pytest
from backends import servers
from backends.servers import Server

LINES = 40
LONG = "x" * 30_000


def asked(server: Server, method: str, path: str, content: Any = None) -> Any:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        answer = client.request(method, path, json=content)
    assert answer.status_code < 300, answer.text
    return answer.json()


def service_lines() -> list[str]:
    """Lines as the service's own pipeline writes them."""
    from ragprof.service.logging import EventLogger, setup_logging

    out = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        setup_logging(json_logs=True, stream=out)
        events = EventLogger("ragprof.test")
        for number in range(LINES):
            events.log_search_performed(f"q{number}", "why?", "hybrid", 5, 0.5, 12.5)
        try:
            raise ValueError("no such document")
        except ValueError:
            logging.getLogger("ragprof.test").exception("request_failed")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("version", ["elasticsearch8", "elasticsearch9"])
def test_elasticsearch_takes_the_index_template(
    version: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(version)
    log_shipping.template(server, "rag-system-typed")
    document = {
        "timestamp": "2026-11-24T10:00:00.123456789Z",
        "@timestamp": "2026-11-24T10:00:00.123456789Z",
        "trace_id": "0" * 32,
        "status_code": "not a number",
        "duration_ms": 1.5,
        "new_field": "kept",
        "exception": [{"exc_type": "ValueError", "exc_value": "x", "frames": [{"a": 1}]}],
    }
    index = "rag-system-typed-2026.11.24"
    made = asked(server, "POST", f"/{index}/_doc?refresh=true", document)
    assert made["result"] == "created"
    fields = asked(server, "GET", f"/{index}/_mapping")[index]["mappings"]["properties"]
    assert fields["timestamp"]["type"] == "date_nanos"
    assert fields["trace_id"]["type"] == "keyword"
    assert fields["new_field"]["type"] == "keyword"
    hit = asked(server, "POST", f"/{index}/_search", {"docvalue_fields": ["timestamp"]})
    [found] = hit["hits"]["hits"]
    assert found["fields"]["timestamp"] == ["2026-11-24T10:00:00.123456789Z"]
    asked(server, "DELETE", f"/{index}")


def test_lines_of_every_form_arrive_and_bad_ones_are_kept(
    tmp_path: Path, rsyslog: Callable[[str], Server], elasticsearch8: Server
) -> None:
    name = f"rag-system-shipped-{secrets.token_hex(4)}"
    log_shipping.template(elasticsearch8, name)
    plain = service_lines()
    joined = json.dumps({"timestamp": "2026-11-24T10:00:00Z", "event": "long", "blob": LONG})
    cut = [joined[at : at + 16_000] for at in range(0, len(joined), 16_000)]
    stamp = "2026-11-24T10:00:00.5Z stdout"
    cri = [f"{stamp} F {json.dumps({'timestamp': '2026-11-24T10:00:00Z', 'event': 'cri'})}"]
    cri += [f"{stamp} P {part}" for part in cut[:-1]] + [f"{stamp} F {cut[-1]}"]
    cri += [f"{stamp} F this is not JSON"]
    log = json.dumps({"timestamp": "2026-11-24T10:00:00Z", "event": "docker"}) + "\n"
    docker = [json.dumps({"log": log, "stream": "stdout", "time": "2026-11-24T10:00:00.5Z"})]
    bad = ["neither JSON nor anything else", '{"broken": ', '{"event": "no time"}']
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "service.log").write_text("\n".join([*plain, *docker, *bad]) + "\n")
    (logs / "container.log").write_text("\n".join(cri) + "\n")
    server = rsyslog(log_shipping.config(tmp_path, elasticsearch8, name))
    wanted = len(plain) + 3
    unparsed = tmp_path / "unparsed.txt"
    servers.wait(
        lambda: (
            log_shipping.arrived(elasticsearch8, name, wanted)
            and unparsed.exists()
            and len(_lines(unparsed)) >= 4
        ),
        60,
    )
    found = asked(
        elasticsearch8, "POST", f"/{name}-*/_search", {"size": 1000, "query": {"match_all": {}}}
    )["hits"]["hits"]
    refused = tmp_path / "refused.txt"
    assert len(found) == wanted, (
        f"{[hit['_source'].get('event') for hit in found]} {server.log()} "
        f"{refused.read_text()[:2000] if refused.exists() else ''} {_lines(unparsed)}"
    )
    events = [hit["_source"]["event"] for hit in found]
    assert events.count("search_performed") == LINES
    assert {"cri", "docker", "long", "request_failed"} <= set(events)
    [long] = [hit["_source"] for hit in found if hit["_source"]["event"] == "long"]
    assert long["blob"] == LONG
    assert {hit["_index"] for hit in found} == {
        f"{name}-{hit['_source']['timestamp'][:10].replace('-', '.')}" for hit in found
    }
    kept = "\n".join(_lines(unparsed))
    assert all(line in kept for line in [*bad, "this is not JSON"])
    for index in {hit["_index"] for hit in found}:
        asked(elasticsearch8, "DELETE", f"/{index}")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
