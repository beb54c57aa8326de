"""Logs out of Elasticsearch: ours, and `elasticsearch.helpers.scan` into pandas.

Writes documents such as a shipper makes (a log record of a Python service with Kubernetes
metadata, nested) into an index of its own on a real server and reads them three ways in one
process: as rows of the table `logs`; by `helpers.scan` into `pandas.json_normalize`, which gives
the same flat fields; by `helpers.scan` into `pandas.DataFrame`, which leaves objects as they are.
The best wall time of some rounds counts; reader and server share the machine. Starts the tests'
server unless --url is given.
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
from ragprof.sources.source import Query, Window, fetch

INDEX = "ragprof-benchmark-logs"
FIRST = time_ns("2026-11-24T14:00:00Z")
STEP = 10_000_000  # ns between records


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
    source = Elasticsearch("elasticsearch", Connection(url), logs=INDEX, spans="")
    window = Window(FIRST, FIRST + count * STEP)
    table = pa.concat_tables([rows for _, rows in fetch(source, window, Query())])
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
def server(url: str) -> Iterator[str]:
    if url:
        yield url
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from backends import servers

    with servers.start_elasticsearch(servers.ELASTICSEARCH_9, heap="1g") as started:
        yield started.url


def seconds(run: Callable[[str, int], int], url: str, count: int) -> float:
    began = time.perf_counter()
    found = run(url, count)
    if found != count:
        raise SystemExit(f"{run.__name__} gave {found} rows instead of {count}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    with server(options.url) as url:
        with Client(url, request_timeout=300) as client:
            write(client, options.documents)
            sample = json.dumps(next(documents(1)))
        best = dict.fromkeys((ours, scanned, scanned_whole), 1e9)
        for _ in range(options.rounds):
            for run in best:
                best[run] = min(best[run], seconds(run, url, options.documents))
    print(
        f"elasticsearch-py {version('elasticsearch')}, pandas {version('pandas')}, "
        f"pyarrow {version('pyarrow')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; {options.documents:,} documents of about {len(sample)} bytes"
    )
    for run, name in (
        (ours, "rows of `logs`"),
        (scanned, "helpers.scan, json_normalize"),
        (scanned_whole, "helpers.scan, DataFrame"),
    ):
        rate = options.documents / best[run]
        print(f"{name:<30} {best[run]:6.2f} s {rate:>9,.0f} /s   {best[run] / best[ours]:.1f}")


if __name__ == "__main__":
    main()
