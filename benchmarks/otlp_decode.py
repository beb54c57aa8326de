"""How fast OTLP protobuf becomes rows: ours, and opentelemetry-proto with a walk in Python.

The same bytes are decoded both ways in one process, in turn, with the cyclic GC paused for both;
what counts is the best CPU time of several rounds. Two kinds of spans: with attributes that come
again, as instrumentation writes them, and with values that are never the same. Prints microseconds
per span or record and the ratio.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ragprof.sources import otlp
from ragprof.sources.otlp_decode import decode

BATCH = 512  # spans or records in a request, as an SDK sends them
START = 1_790_000_000_000_000_000


def attributes(rng: random.Random, number: int, distinct: bool) -> list[KeyValue]:
    """Ten attributes of an HTTP or database span; `distinct`: half of their values are new."""
    unlike = f"{rng.getrandbits(64):x}" if distinct else ""
    texts = {
        "http.request.method": ("GET", "POST")[number % 2],
        "http.route": f"/v1/items/{number % 8}",
        "url.path": f"/v1/items/{number % 8}{unlike}",
        "server.address": "rag-api.svc",
        "user_agent.original": f"agent {unlike or number % 5}",
        "db.system": "postgresql",
        "db.query.text": f"select * from documents where id = {unlike or number % 12}",
    }
    return [
        *(KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in texts.items()),
        KeyValue(key="server.port", value=AnyValue(int_value=8000)),
        KeyValue(
            key="tokens", value=AnyValue(int_value=rng.randrange(9000) if distinct else number % 40)
        ),
        KeyValue(
            key="score", value=AnyValue(double_value=rng.random() if distinct else number % 7 / 7)
        ),
    ]


def request(signal: str, rng: random.Random, distinct: bool) -> bytes:
    """One Export request of BATCH spans or records."""
    message = otlp.REQUESTS[signal]()
    traces = signal == "traces"
    group = message.resource_spans.add() if traces else message.resource_logs.add()
    for number in range(7):
        group.resource.attributes.add(
            key=f"resource.{number}", value=AnyValue(string_value="value of a resource")
        )
    scoped = group.scope_spans.add() if traces else group.scope_logs.add()
    scoped.scope.name = "opentelemetry.instrumentation.fastapi"
    for number in range(BATCH):
        ids = {"trace_id": rng.randbytes(16), "span_id": rng.randbytes(8)}
        if traces:
            scoped.spans.append(
                Span(
                    **ids,
                    parent_span_id=rng.randbytes(8),
                    flags=256,
                    name=f"operation {number % 20}",
                    kind=number % 5 + 1,
                    start_time_unix_nano=START + number,
                    end_time_unix_nano=START + number + rng.randrange(10**9),
                    attributes=attributes(rng, number, distinct),
                    status=Status(),
                )
            )
        else:
            scoped.log_records.append(
                LogRecord(
                    **ids,
                    time_unix_nano=START + number,
                    observed_time_unix_nano=START + number,
                    severity_number=9,
                    severity_text="INFO",
                    body=AnyValue(string_value=f"request {rng.getrandbits(40):x} is done"),
                    attributes=attributes(rng, number, distinct),
                )
            )
    return message.SerializeToString()


def walked(signal: str, bodies: list[bytes]) -> Any:
    """The peer: opentelemetry-proto parses, Python walks the messages into Arrow columns."""
    tables = []
    with otlp.paused_gc():
        for body in bodies:
            message = otlp.parse(signal, body)
            tables.append((otlp.spans if signal == "traces" else otlp.logs)(message)[0])
    return tables


def decoded(signal: str, bodies: list[bytes]) -> Any:
    """Ours, request by request, as the receiver has them."""
    return [decode(signal, body).rows for body in bodies]


def decoded_together(signal: str, bodies: list[bytes]) -> Any:
    """Ours, sixteen requests behind one another, as files have them."""
    return [
        decode(signal, b"".join(bodies[first : first + 16])).rows
        for first in range(0, len(bodies), 16)
    ]


def seconds(run: Callable[[str, list[bytes]], Any], signal: str, bodies: list[bytes]) -> float:
    began = time.process_time()
    run(signal, bodies)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=32, help=f"of {BATCH} spans each")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(
        f"opentelemetry-proto {version('opentelemetry-proto')}, protobuf {version('protobuf')}, "
        f"numpy {version('numpy')}, pyarrow {version('pyarrow')}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    print(f"{'':<8} {'values':<9} {'walk':>8} {'ours':>8} {'16 at once':>11}   times the walk")
    for signal in ("traces", "logs"):
        for distinct in (False, True):
            rng = random.Random(7)
            bodies = [request(signal, rng, distinct) for _ in range(options.requests)]
            best = dict.fromkeys((walked, decoded, decoded_together), 1e9)
            for _ in range(options.rounds):
                for run in best:
                    best[run] = min(best[run], seconds(run, signal, bodies))
            walk, ours, together = (
                1e6 * value / BATCH / options.requests for value in best.values()
            )
            print(
                f"{signal:<8} {'distinct' if distinct else 'repeated':<9} {walk:>5.1f} us "
                f"{ours:>5.1f} us {together:>8.1f} us   {walk / ours:.1f}, {walk / together:.1f}"
            )


if __name__ == "__main__":
    main()
