"""Logs out of Elasticsearch: ours, and `elasticsearch.helpers.scan` into pandas.

Writes documents such as a shipper makes (a log record of a Python service with Kubernetes
metadata, nested) into an index of its own on a real server and reads them three ways in one
process: as rows of the table `logs`; by `helpers.scan` into `pandas.json_normalize`, which gives
the same flat fields; by `helpers.scan` into `pandas.DataFrame`, which leaves objects as they are.
Of some rounds the best wall time counts, and the best CPU time of the reader and, apart, of the
server, which shares the machine. Starts the tests' server unless --url is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from elasticsearch import Elasticsearch as Client
from elasticsearch import helpers

from ragprof.rows import time_ns
from ragprof.sources.elasticsearch import Elasticsearch
from ragprof.sources.http import Connection
from ragprof.sources.source import Query, Window

INDEX = "ragprof-benchmark-logs"
FIRST = time_ns("2026-11-24T14:00:00Z")
STEP = 10_000_000  # ns between records
PARALLEL = 4  # pieces at once, as a capture has it by default


def documents(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(7)
    for number in range(count):
        moment = FIRST + number * STEP
        pod = number % 6
        yield {
            "@timestamp": pd.Timestamp(moment, unit="ns", tz="UTC").isoformat(),
            "level": ("info", "info", "debug", "warning")[number % 4],
            "event": f"chunk {rng.randrange(4000)} of document {rng.randrange(900)} is ranked",
            "logger": "rag.retrieval",
            "service": "rag-api",
            "trace_id": f"{rng.getrandbits(128):032x}",
            "span_id": f"{rng.getrandbits(64):016x}",
            "request_id": f"{rng.getrandbits(64):016x}",
            "duration_ms": round(rng.random() * 90, 3),
            "top_k": number % 20,
            "stream": "stdout",
            "kubernetes": {
                "namespace_name": "rag-system",
                "pod_name": f"rag-api-{pod}",
                "pod_id": f"2f0c-{pod}",
                "container_name": "rag-api",
                "container_image": "registry.local/rag-api:1.4.2",
                "host": f"node-{pod % 3}",
                "labels": {"app": "rag-api", "tier": "serving", "release": "blue"},
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"},
            },
        }


def write(client: Client, count: int) -> None:
    client.options(ignore_status=404).indices.delete(index=INDEX)
    client.indices.create(
        index=INDEX,
        settings={"number_of_shards": 1, "number_of_replicas": 0},
        mappings={
            "properties": {"@timestamp": {"type": "date_nanos"}},
            "dynamic_templates": [
                {"texts": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}}
            ],
        },
    )
    actions = ({"_index": INDEX, "_source": each} for each in documents(count))
    helpers.bulk(client, actions, chunk_size=4000)
    client.indices.refresh(index=INDEX)
    client.indices.forcemerge(index=INDEX, max_num_segments=1)


def ours(url: str, count: int) -> int:
    """As a capture fetches: some pieces at once."""
    source = Elasticsearch("elasticsearch", Connection(url), logs=INDEX, spans="")
    pieces = source.plan(Window(FIRST, FIRST + count * STEP), Query())
    with ThreadPoolExecutor(PARALLEL) as pool:
        parts = list(pool.map(list, map(source.fetch_piece, pieces)))
    table = pa.concat_tables([rows for part in parts for _, rows in part])
    source.close()
    return int(table.num_rows)


def scanned(url: str, count: int) -> int:
    with Client(url, request_timeout=300) as client:
        hits = helpers.scan(client, index=INDEX, query={"query": {"match_all": {}}})
        return len(pd.json_normalize([hit["_source"] for hit in hits]))


def scanned_whole(url: str, count: int) -> int:
    with Client(url, request_timeout=300) as client:
        hits = helpers.scan(client, index=INDEX, query={"query": {"match_all": {}}})
        return len(pd.DataFrame([hit["_source"] for hit in hits]))


@contextlib.contextmanager
def server(url: str) -> Iterator[tuple[str, int]]:
    """Its address, and the process that stands above it; 0 when it is not ours."""
    if url:
        yield url, 0
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from backends import servers

    with servers.start_elasticsearch(
        servers.ELASTICSEARCH_9, heap="1g", java_options=""
    ) as started:
        yield started.url, started.pid


def cpu_below(pid: int) -> float:
    """CPU seconds of the processes that descend from one; 0 for process 0."""
    fields = {}
    for path in Path("/proc").glob("[0-9]*/stat") if pid else ():
        with contextlib.suppress(OSError):  # it ended
            fields[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    found, ticks = [pid], 0
    for above in found:
        found += [own for own, each in fields.items() if int(each[1]) == above]
    for own in found:
        ticks += sum(map(int, fields[own][11:13])) if own in fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def seconds(run: Callable[[str, int], int], url: str, pid: int, count: int) -> list[float]:
    """Wall, CPU of this process, CPU of the server."""
    before = time.perf_counter(), time.process_time(), cpu_below(pid)
    found = run(url, count)
    after = time.perf_counter(), time.process_time(), cpu_below(pid)
    if found != count:
        raise SystemExit(f"{run.__name__} gave {found} rows instead of {count}")
    return [end - begin for begin, end in zip(before, after, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    with server(options.url) as (url, pid):
        with Client(url, request_timeout=300) as client:
            write(client, options.documents)
            sample = json.dumps(next(documents(1)))
        best = {run: [1e9] * 3 for run in (ours, scanned, scanned_whole)}
        for _ in range(options.rounds):
            for run, times in best.items():
                best[run] = list(map(min, times, seconds(run, url, pid, options.documents)))
    print(
        f"elasticsearch-py {version('elasticsearch')}, pandas {version('pandas')}, "
        f"pyarrow {version('pyarrow')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; {options.documents:,} documents of about {len(sample)} bytes"
    )
    print(f"{'':<30} {'wall':>8} {'CPU':>8} {'server':>8}   times ours: wall, CPU")
    for run, name in (
        (ours, "rows of `logs`"),
        (scanned, "helpers.scan, json_normalize"),
        (scanned_whole, "helpers.scan, DataFrame"),
    ):
        wall, own, others = best[run]
        print(
            f"{name:<30} {wall:6.2f} s {own:6.2f} s {others:6.2f} s   "
            f"{wall / best[ours][0]:.1f}, {own / best[ours][1]:.1f}"
        )


if __name__ == "__main__":
    main()
