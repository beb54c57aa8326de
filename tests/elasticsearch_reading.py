"""What reading from a real Elasticsearch must give: run by the tests, with either client.

`python elasticsearch_reading.py URL` exits with 0 when all of it holds.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ragprof.manifest import iso
from ragprof.rows import conform
from ragprof.sources.elasticsearch import Elasticsearch
from ragprof.sources.http import Connection
from ragprof.sources.source import OK, Query, SourceError, Window, fetch

FIRST = 1_795_528_800_000_000_000
LAST = FIRST + 10_000_000_000
COUNT = 2000


def ask(url: str, method: str, path: str, body: bytes | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}{path}", body, headers, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def fill(url: str, index: str) -> dict[str, int]:
    """Log records at the edges of a window, in crowds, and spread; message -> time (ns)."""
    with_quiet_absence(url, index)
    mappings = {
        "properties": {"@timestamp": {"type": "date_nanos"}},
        "dynamic_templates": [
            {"texts": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}}
        ],
    }
    settings = {"number_of_shards": 3, "number_of_replicas": 0}
    content = json.dumps({"mappings": mappings, "settings": settings}).encode()
    ask(url, "PUT", f"/{index}", content)
    rng = random.Random(3)
    edges = [FIRST - 1, FIRST, FIRST + 1, LAST - 1, LAST, LAST + 1]
    crowd = [FIRST + 5_000_000_000 + number for number in range(700)]  # within one microsecond
    spread = [rng.randrange(FIRST, LAST) for _ in range(COUNT - len(edges) - len(crowd))]
    moments = {f"m{n}": moment for n, moment in enumerate([*edges, *crowd, *spread])}
    lines = []
    for number, (message, moment) in enumerate(moments.items()):
        lines.append({"create": {"_index": index}})
        lines.append(
            {
                "@timestamp": iso(moment),
                "message": message,
                "trace_id": f"{number % 50 + 1:032x}",
                "service": {"name": f"s{number % 3}"},
                "kubernetes": {"labels": {"app": "a"}},
            }
        )
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert not ask(url, "POST", "/_bulk?refresh=true", body)["errors"]
    return moments


def with_quiet_absence(url: str, index: str) -> None:
    try:
        ask(url, "DELETE", f"/{index}")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise


def read(source: Elasticsearch, window: Window, query: Query | None = None) -> dict[str, int]:
    found: dict[str, int] = {}
    for table, rows in fetch(source, window, query):
        conform(table, rows)
        times = rows["time"].cast("int64").to_pylist()
        for message, moment in zip(rows["body"].to_pylist(), times, strict=True):
            assert message not in found, f"{message} is there twice"
            found[message] = moment
    return found


def within(moments: dict[str, int], window: Window) -> dict[str, int]:
    return {key: at for key, at in moments.items() if window.start <= at < window.end}


def reading(url: str, index: str) -> None:
    """Everything once, at any size of pieces and pages; queries; checks."""
    moments = fill(url, index)
    windows = [
        Window(FIRST, LAST),
        Window(FIRST - 1, LAST + 2),
        Window(FIRST + 1, LAST - 1),
        Window(FIRST + 5_000_000_100, FIRST + 5_000_000_600),
    ]
    for piece, parallel in ((50_000, 1), (400, 3), (150, 2)):
        source = Elasticsearch(
            "es", Connection(url), logs=index, spans="", piece=piece, parallel=parallel
        )
        for window in windows:
            assert read(source, window) == within(moments, window), (piece, window)
        with ThreadPoolExecutor(4) as pool:  # as a capture does
            pieces = source.plan(windows[0], Query())
            assert sum(part.rows or 0 for part in pieces) >= COUNT - 6
            keys = [part.key for part in pieces]
            assert len(keys) == len(set(keys))
            fetched = pool.map(list, map(source.fetch_piece, pieces))
            count = sum(rows.num_rows for tables in fetched for _, rows in tables)
            assert count == len(within(moments, windows[0]))
        names = list(moments)
        traced = Query(trace_ids=(f"{7:032x}",))
        expected = {name for n, name in enumerate(names) if n % 50 == 6}
        assert set(read(source, windows[1], traced)) == expected
        served = Query(services=("s1",))
        expected = {name for n, name in enumerate(names) if n % 3 == 1}
        assert set(read(source, windows[1], served)) == expected
        assert all(check.state == OK for check in source.check(windows[0]))
        assert not source.refused
        source.close()


def changing(url: str, index: str) -> None:
    """While others write, what was there before is read once."""
    moments = fill(url, index)
    source = Elasticsearch("es", Connection(url), logs=index, spans="", piece=500, parallel=2)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            line = {"@timestamp": iso(FIRST + number * 1_000_000), "message": f"late{number}"}
            ask(url, "POST", f"/{index}/_doc?refresh=true", json.dumps(line).encode())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = read(source, Window(FIRST, LAST))
    finally:
        stop.set()
        writer.join()
    assert {key: at for key, at in found.items() if not key.startswith("late")} == within(
        moments, Window(FIRST, LAST)
    )


def main(url: str) -> None:
    reading(url, "ragprof-test-reading")
    changing(url, "ragprof-test-changing")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except SourceError as error:
        print(error)
        sys.exit(3)
