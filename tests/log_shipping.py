"""Log files into a real Elasticsearch by the exported configuration, in indices of a test alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from backends import servers
from backends.servers import Server

from ragprof.monitoring import index_template, rsyslog

ADDED = {"log.iostream", "timestamp", "@timestamp"}
"""Attributes of where a line came from: a pipe, a shipper."""


def said(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of `logs` by all that its line says, whoever brought it.

    Shippers write arrays with other spaces, and leave out what is empty.
    """
    names = ("time", "severity", "body", "trace_id", "span_id", "request_id")
    own = {
        key: json.dumps(json.loads(text)) if text.startswith("[") else text
        for key, text in dict(row["attributes"]).items()
        if key not in ADDED and text
    }
    return (*(str(row[name]) for name in names), str(sorted(own.items())))


def template(server: Server, name: str) -> None:
    """The exported index template, for indices NAME-… alone; what is written is found at once."""
    body: dict[str, Any] = index_template.template()
    body["index_patterns"] = [f"{name}-*"]
    body["priority"] = 300
    body["template"]["settings"]["index"] |= {"number_of_replicas": 0, "refresh_interval": "1s"}
    url = f"{server.url}/_index_template/{name}"
    answer = httpx.put(url, json=body, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text


def config(folder: Path, server: Server, name: str) -> str:
    """rsyslog's configuration: FOLDER/logs/*.log into indices NAME-DAY.

    What is not JSON goes to FOLDER/unparsed.txt, what Elasticsearch refuses to FOLDER/refused.txt.
    """
    text = rsyslog.config(
        files=f"{folder}/logs/*.log",
        port=int(server.url.rpartition(":")[2]),
        spool=str(folder),
        bad=str(folder / "unparsed.txt"),
        refused=str(folder / "refused.txt"),
    )
    assert 'string="rag-system-%' in text
    return text.replace('string="rag-system-%', f'string="{name}-%')


def arrived(server: Server, name: str, count: int) -> bool:
    """Whether indices NAME-… hold so many documents."""
    url = f"{server.url}/{name}-*/_count?ignore_unavailable=true"
    answer = httpx.get(url, trust_env=False, timeout=60)
    # A shard that has just been made is not there at once.
    return answer.status_code == 200 and int(answer.json()["count"]) >= count


def wait_for(server: Server, name: str, count: int) -> None:
    assert servers.wait(lambda: arrived(server, name, count)), f"{count} lines did not all arrive"
