"""How many spans a second the embedded receiver takes in, from HTTP to the journal on disk.

Clients send the batches of an ordinary SDK (512 spans of 10 attributes, protobuf, gzip or not)
from processes of their own; the receiver decodes on one thread. Prints spans per second and the
CPU seconds of this process for a million spans.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ragprof.capturing.intake import Intake
from ragprof.capturing.receiver import PROTOBUF, Receiver
from ragprof.journal import Journal
from ragprof.sources.series import SeriesDictionary

BATCH = 512


def batch() -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for number in range(7):
        item = group.resource.attributes.add()
        item.key, item.value.string_value = f"resource.{number}", "value of a resource"
    scoped = group.scope_spans.add()
    for number in range(BATCH):
        span = scoped.spans.add(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            name=f"operation {number % 20}",
            start_time_unix_nano=time.time_ns(),
            end_time_unix_nano=time.time_ns() + 1000,
        )
        for key in range(10):
            item = span.attributes.add()
            item.key, item.value.string_value = f"some.attribute.{key}", f"value {number % 50}"
    return request.SerializeToString()


def client(port: int, packed: bool, seconds: float) -> None:
    body, headers = batch(), {"Content-Type": PROTOBUF}
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.request("POST", "/v1/traces", body, headers)
        connection.getresponse().read()


def measure(clients: int, packed: bool, seconds: float, folder: Path) -> tuple[float, float]:
    """Spans per second, and CPU seconds per million spans."""
    journal = Journal(folder / f"{clients}-{packed}.ragprof")
    intake = Intake(journal, SeriesDictionary(lambda rows: journal.append("series", rows)))
    with Receiver(journal, intake) as receiver:
        client(receiver.port, packed, 2)  # first imports and buffers
        spawn = multiprocessing.get_context("spawn")
        before, cpu = intake.taken["spans"], time.process_time()
        processes = [
            spawn.Process(target=client, args=(receiver.port, packed, seconds))
            for _ in range(clients)
        ]
        for process in processes:
            process.start()
        while intake.taken["spans"] == before:
            time.sleep(0.001)
        began = time.monotonic()
        for process in processes:
            process.join()
        elapsed = time.monotonic() - began
        taken, used = intake.taken["spans"] - before, time.process_time() - cpu
    journal.close()
    return taken / elapsed, used / taken * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    seconds = parser.parse_args().seconds
    print(f"{'clients':>8} {'gzip':>6} {'spans/s':>10} {'CPU s per million':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for clients in (1, 4):
            for packed in (False, True):
                rate, cost = measure(clients, packed, seconds, Path(folder))
                print(f"{clients:>8} {packed!s:>6} {rate:>10,.0f} {cost:>18.1f}")


if __name__ == "__main__":
    main()
