"""The embedded receiver: what it takes, what it answers, what it counts."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import resource
import socket
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ragprof import recording
from ragprof.capturing import intake as intake_module
from ragprof.capturing.grpc_receiver import GrpcReceiver
from ragprof.capturing.intake import Intake, TooLarge, inflate
from ragprof.capturing.receiver import JSON, PROTOBUF, Receiver
from ragprof.journal import Journal
from ragprof.sources.otlp import BadPayload
from ragprof.sources.series import SeriesDictionary


class Rig:
    """A receiver with its journal; `close` gives the Recording."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.journal = Journal(out)
        series = SeriesDictionary(lambda rows: self.journal.append("series", rows))
        self.resources: list[tuple[dict[str, str], int]] = []
        self.intake = Intake(self.journal, series, lambda *seen: self.resources.append(seen))
        self.stack = contextlib.ExitStack()
        self.receiver = self.stack.enter_context(
            Receiver(self.journal, self.intake, process_of_port=lambda client, server: 7)
        )

    def post(
        self, body: bytes, path: str = "/v1/traces", method: str = "POST", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.receiver.port, timeout=30)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": PROTOBUF, **named})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, content, {key.lower(): value for key, value in reply.getheaders()}

    def close(self) -> recording.Recording:
        self.stack.close()
        self.journal.close()
        return recording.open(self.out)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "r.ragprof")
    yield rig
    rig.stack.close()
    rig.journal.close()


def spans(count: int, bad: int = 0) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    item = group.resource.attributes.add()
    item.key, item.value.string_value = "service.name", "rag"
    scoped = group.scope_spans.add()
    for number in range(count + bad):
        scoped.spans.add(
            trace_id=os.urandom(16) if number < count else b"",
            span_id=os.urandom(8),
            name=f"span {number}",
            start_time_unix_nano=10**18,
            end_time_unix_nano=10**18 + 1000,
        )
    return request


def test_protobuf_json_and_gzip_are_taken(rig: Rig) -> None:
    body = spans(3).SerializeToString()
    status, content, headers = rig.post(body)
    assert (status, content, headers["content-type"]) == (200, b"", PROTOBUF)
    assert rig.post(gzip.compress(body), Content_Encoding="gzip")[0] == 200
    empty = json.dumps({"resourceSpans": []}).encode()
    status, content, headers = rig.post(empty, Content_Type=JSON + "; charset=utf-8")
    assert (status, json.loads(content), headers["content-type"]) == (200, {}, JSON)
    rec = rig.close()
    assert rec.table("spans").num_rows == 6
    assert rec.manifest["refused"] == {}
    assert rig.resources[0] == ({"service.name": "rag"}, 7)


def test_all_signals_have_their_path(rig: Rig) -> None:
    for signal in ("traces", "logs", "metrics"):
        assert rig.post(b"", f"/v1/{signal}")[0] == 200


def test_chunked_bodies_are_taken(rig: Rig) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", rig.receiver.port, timeout=30)
    body = spans(5).SerializeToString()
    parts = iter([body[:10], body[10:11], body[11:]])
    connection.request("POST", "/v1/traces", parts, {"Content-Type": PROTOBUF})
    assert connection.getresponse().status == 200
    assert rig.close().table("spans").num_rows == 5


def test_part_of_a_request_can_be_rejected(rig: Rig) -> None:
    status, content, _ = rig.post(spans(2, bad=3).SerializeToString())
    assert status == 200
    partial = ExportTraceServiceResponse.FromString(content).partial_success
    assert partial.rejected_spans == 3
    assert "trace id" in partial.error_message
    rec = rig.close()
    assert rec.table("spans").num_rows == 2
    assert list(rec.manifest["refused"].values()) == [3]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff\xff garbage", {}, 400),
        (b"{not json", {"Content_Type": JSON}, 400),
        (b"not gzip", {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"x" * 1000, mtime=0)[:-10], {"Content_Encoding": "gzip"}, 400),
        (b"", {"Content_Type": "text/plain"}, 415),
        (b"", {"Content_Encoding": "br"}, 415),
    ],
)
def test_what_cannot_be_taken_is_answered_and_counted(
    rig: Rig, body: bytes, headers: dict[str, str], status: int
) -> None:
    answered, content, sent = rig.post(body, **headers)
    assert answered == status
    message = (
        json.loads(content)["message"]
        if sent["content-type"] == JSON
        else Status.FromString(content).message
    )
    assert message
    assert sum(rig.close().manifest["refused"].values()) == 1


def test_other_paths_and_methods(rig: Rig) -> None:
    assert rig.post(b"", "/v1/profiles")[0] == 404
    assert rig.post(b"", method="PUT")[0] == 405


def test_a_request_above_the_limit_is_413_declared_or_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "MAX_BODY", 100_000)
    monkeypatch.setattr("ragprof.capturing.receiver.MAX_BODY", 100_000)
    assert rig.post(b"x" * 100_001)[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", rig.receiver.port, timeout=30)
    parts = iter([b"x" * 60_000] * 4)
    connection.request("POST", "/v1/traces", parts, {"Content-Type": PROTOBUF})
    assert connection.getresponse().status == 413
    assert rig.post(spans(1).SerializeToString())[0] == 200
    assert rig.close().manifest["refused"] == {"request larger than the receiver takes": 2}


def test_a_gzip_bomb_is_413_and_costs_no_memory(rig: Rig) -> None:
    packer = zlib.compressobj(9, wbits=31)
    zeros = b"\0" * (1 << 20)
    first, again = (packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = first + again * 1023  # a whole flush makes blocks that may be repeated
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert rig.post(bomb, Content_Encoding="gzip")[0] == 413
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 << 10  # KiB; the bomb unpacks to 1 GiB


def test_inflation_stops_at_the_limit_also_over_members() -> None:
    member = gzip.compress(b"a" * 600)
    assert inflate(member * 2, 1200) == b"a" * 1200
    with pytest.raises(TooLarge):
        inflate(member * 3, 1200)
    with pytest.raises(BadPayload):
        inflate(member + b"tail", 1200)


@given(st.binary(max_size=2000), st.integers(1, 9))
def test_inflate_is_the_inverse_of_gzip(body: bytes, level: int) -> None:
    assert inflate(gzip.compress(body, level), len(body)) == body


def test_under_load_it_answers_503_with_retry_after(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "MAX_PENDING", 10)
    status, _, headers = rig.post(spans(1).SerializeToString())
    assert (status, headers["retry-after"]) == (503, "1")
    monkeypatch.undo()
    assert rig.post(spans(1).SerializeToString())[0] == 200
    (reason,) = rig.close().manifest["refused"]
    assert "503" in reason


def test_concurrent_requests_all_arrive(rig: Rig) -> None:
    def send(number: int) -> int:
        if number % 4 == 3:
            return rig.post(os.urandom(50))[0]
        return rig.post(spans(20).SerializeToString())[0]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(80)))
    assert answers.count(200) == 60
    rec = rig.close()
    assert rec.table("spans").num_rows == 60 * 20
    assert sum(rec.manifest["refused"].values()) == 20


def test_clients_that_break_off_or_send_no_http_do_no_harm(rig: Rig) -> None:
    for data in (
        b"\0" * 1000,
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 1000\r\n\r\nabc",
        b"GET " + b"/" * 100_000,
    ):
        with socket.create_connection(("127.0.0.1", rig.receiver.port)) as client:
            client.sendall(data)
    assert rig.post(spans(1).SerializeToString())[0] == 200
    assert rig.intake._pending == 0
    assert rig.close().table("spans").num_rows == 1


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=200),
    st.sampled_from([PROTOBUF, JSON]),
    st.sampled_from(["gzip", "identity"]),
    st.sampled_from(["traces", "logs", "metrics"]),
)
def test_any_body_is_answered(
    rig: Rig, body: bytes, content_type: str, encoding: str, signal: str
) -> None:
    status, _, _ = rig.post(
        body, f"/v1/{signal}", Content_Type=content_type, Content_Encoding=encoding
    )
    assert status in (200, 400)


def export(port: int, request: Any, compression: Any = None) -> ExportTraceServiceResponse:
    with grpc.insecure_channel(f"127.0.0.1:{port}", compression=compression) as channel:
        call = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=lambda message: (
                message if isinstance(message, bytes) else message.SerializeToString()
            ),
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        return call(request, timeout=20)


def test_grpc_clients_are_served(rig: Rig) -> None:
    with GrpcReceiver(rig.intake, process_of_port=lambda client, server: 9) as receiver:
        assert not export(receiver.port, spans(2)).HasField("partial_success")
        export(receiver.port, spans(2), grpc.Compression.Gzip)
        assert export(receiver.port, spans(1, bad=1)).partial_success.rejected_spans == 1
        with pytest.raises(grpc.RpcError) as raised:
            export(receiver.port, b"\xff\xff\xff garbage")
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        intake_module_limit = intake_module.MAX_PENDING
        try:
            intake_module.MAX_PENDING = 1
            with pytest.raises(grpc.RpcError) as raised:
                export(receiver.port, spans(1))
            assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        finally:
            intake_module.MAX_PENDING = intake_module_limit
    assert rig.resources[0][1] == 9
    assert rig.intake._pending == 0
    assert rig.close().table("spans").num_rows == 5


def test_two_grpc_receivers_do_not_share_a_port(rig: Rig) -> None:
    with GrpcReceiver(rig.intake) as first, GrpcReceiver(rig.intake) as second:
        assert first.port
        assert second.port
        assert first.port != second.port


def test_two_receivers_have_ports_of_their_own(rig: Rig, tmp_path: Path) -> None:
    other = Rig(tmp_path / "other.ragprof")
    try:
        assert not set(rig.receiver.ports) & set(other.receiver.ports) - {4318}
        assert rig.receiver.port != other.receiver.port
        assert other.post(spans(1).SerializeToString())[0] == 200
        assert rig.post(spans(1).SerializeToString())[0] == 200
    finally:
        assert other.close().table("spans").num_rows == 1


def test_an_exception_while_decoding_is_500_and_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(rig.intake, "export", broken)
    assert rig.post(b"")[0] == 500
    (reason,) = rig.close().manifest["refused"]
    assert "KeyError" in reason


def test_closing_waits_for_the_request_in_progress(rig: Rig) -> None:
    results: list[int] = []
    request = spans(3000).SerializeToString()
    thread = threading.Thread(target=lambda: results.append(rig.post(request)[0]))
    thread.start()
    while not rig.intake._pending and thread.is_alive():
        pass
    rec = rig.close()
    thread.join()
    assert results == [200]
    assert rec.table("spans").num_rows == 3000
