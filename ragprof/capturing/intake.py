"""What both receivers do with a request: decode it, write it, say what was refused."""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ragprof.errors import RagprofError
from ragprof.journal import Journal
from ragprof.manifest import RecordingError
from ragprof.sources import otlp, otlp_decode, otlp_metrics
from ragprof.sources.series import SeriesDictionary

MAX_BODY = 32 << 20  # bytes as sent; an SDK's batch is below 1 MiB
MAX_INFLATED = 64 << 20  # bytes after gzip
MAX_PENDING = 128 << 20  # bytes of requests being read or decoded, all clients together

RESPONSES: dict[str, Any] = {
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
    "metrics": ExportMetricsServiceResponse,
}
_JSON_NAMES = {
    "traces": "rejectedSpans",
    "logs": "rejectedLogRecords",
    "metrics": "rejectedDataPoints",
}
_PROTO_NAMES = {
    "traces": "rejected_spans",
    "logs": "rejected_log_records",
    "metrics": "rejected_data_points",
}


class TooLarge(RagprofError):  # an answer to a client
    """A request above the limits; the client must send smaller ones (413)."""


class Unavailable(RagprofError):  # an answer to a client
    """Not now: the client may send the same request again (503)."""


class Intake:
    """Takes OTLP requests of all signals from any number of threads.

    `resource_seen(resource, process)` is told each resource and the process id of its sender
    (0: unknown).
    """

    def __init__(
        self,
        journal: Journal,
        series: SeriesDictionary,
        resource_seen: Callable[[dict[str, str], int], None] = lambda resource, process: None,
    ) -> None:
        self.taken: Counter[str] = Counter()  # rows by table
        self._journal = journal
        self._series = series
        self._resource_seen = resource_seen
        self._pending = 0
        self._lock = threading.Lock()

    def reserve(self, size: int) -> None:
        """Claim memory for a request of `size` bytes; raises TooLarge or Unavailable."""
        if size > MAX_BODY:
            self._journal.refuse("request larger than the receiver takes")
            raise TooLarge(f"The request is larger than {MAX_BODY} bytes; send smaller batches.")
        with self._lock:
            fits = self._pending + size <= MAX_PENDING
            if fits:
                self._pending += size
        if not fits:
            self._journal.refuse("request answered 503 under load, to be sent again")
            raise Unavailable("The recorder is busy; send the request again in a second.")

    def release(self, size: int) -> None:
        with self._lock:
            self._pending -= size

    def export(
        self, signal: str, body: bytes, *, is_json: bool = False, process: int = 0
    ) -> tuple[int, str]:
        """Decode and write one request: (rows rejected, why).

        Raises BadPayload for garbage and Unavailable when the journal cannot write.
        """
        try:
            if signal == "metrics":
                message = otlp.parse(signal, body, is_json=is_json)
                rows, refused = otlp_metrics.metrics(
                    message, self._series, str(process) if process else ""
                )
                resources = list(otlp.resources(message))
            else:
                rows, refused, resources = otlp_decode.decode(signal, body, is_json=is_json)
        except otlp.BadPayload:
            self._journal.refuse(f"request that is not OTLP {signal}")
            raise
        except RecordingError as error:
            raise self._unwritable(error) from error
        for resource in resources:
            self._resource_seen(resource, process)
        table = "spans" if signal == "traces" else signal
        try:
            if rows.num_rows:
                self._journal.append(table, rows)
        except RecordingError as error:
            raise self._unwritable(error) from error
        self.taken[table] += rows.num_rows
        for reason, count in refused.items():
            self._journal.refuse(reason, count)
        rejected = {why: count for why, count in refused.items() if "(kept" not in why}
        return sum(rejected.values()), "; ".join(
            f"{count} x {why}" for why, count in rejected.items()
        )

    def _unwritable(self, error: RecordingError) -> Unavailable:
        self._journal.refuse("request answered 503, the recording could not be written")
        return Unavailable(f"The recording cannot be written: {error}")


def response(signal: str, rejected: int, why: str, *, is_json: bool = False) -> bytes:
    """The body of a success, with `partial_success` when something was rejected."""
    if is_json:
        partial = {_JSON_NAMES[signal]: str(rejected), "errorMessage": why}
        return json.dumps({"partialSuccess": partial} if rejected else {}).encode()
    message = RESPONSES[signal]()
    if rejected:
        setattr(message.partial_success, _PROTO_NAMES[signal], rejected)
        message.partial_success.error_message = why
    return bytes(message.SerializeToString())


def inflate(body: bytes, limit: int = MAX_INFLATED) -> bytes:
    """Gzip members unpacked, never more than `limit` bytes in memory.

    Raises TooLarge beyond the limit and BadPayload for what is not whole gzip.
    """
    parts: list[bytes] = []
    size = 0
    rest = body
    while rest:
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(rest, limit - size + 1)
        except zlib.error as error:
            raise otlp.BadPayload(f"The body is not gzip ({error}); check Content-Encoding.") from (
                None
            )
        size += len(part)
        if size > limit:
            raise TooLarge(f"The body unpacks to more than {limit} bytes; send smaller batches.")
        if not stream.eof:
            raise otlp.BadPayload("The gzip body ends too early; send it whole.")
        parts.append(part)
        rest = stream.unused_data
    return b"".join(parts)
