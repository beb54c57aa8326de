"""The OTLP receiver over gRPC, for clients that insist on it; on port 4317 when that is free."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from ragprof.capturing.intake import MAX_INFLATED, Intake, TooLarge, Unavailable, response
from ragprof.sources.otlp import BadPayload

DEFAULT_PORT = 4317
HOST = "127.0.0.1"
SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
}
OPTIONS = [
    ("grpc.so_reuseport", 0),  # two recorders must not share a port
    ("grpc.max_receive_message_length", MAX_INFLATED),
]


class GrpcReceiver:
    """Context manager; `port` is the one listened on, 4317 or any free one, 0 when none is."""

    def __init__(
        self,
        intake: Intake,
        *,
        process_of_port: Callable[[int, int], int] = lambda client, server: 0,
    ) -> None:
        self.port = 0
        self._intake, self._process_of_port = intake, process_of_port
        self._server: Any = None

    def __enter__(self) -> GrpcReceiver:
        for port in (DEFAULT_PORT, 0):
            if port and not _free(port):  # asked first, because gRPC logs a failure on stderr
                continue
            pool = ThreadPoolExecutor(2, thread_name_prefix="ragprof-grpc")
            server = grpc.server(pool, options=OPTIONS, maximum_concurrent_rpcs=64)
            for service, signal in SERVICES.items():
                handler = grpc.unary_unary_rpc_method_handler(
                    lambda body, context, signal=signal: self._export(signal, body, context)
                )
                server.add_generic_rpc_handlers(
                    (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
                )
            try:
                self.port = server.add_insecure_port(f"{HOST}:{port}")
            except RuntimeError:  # taken
                server.stop(None)
                continue
            server.start()
            self._server = server
            break
        return self

    def __exit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.stop(grace=2).wait(5)

    def _export(self, signal: str, body: bytes, context: Any) -> bytes:
        size = len(body)
        try:
            self._intake.reserve(size)
        except Unavailable as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except TooLarge as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        try:
            client = context.peer().rpartition(":")[2]
            process = self._process_of_port(int(client), self.port) if client.isdigit() else 0
            rejected, why = self._intake.export(signal, body, process=process)
            return response(signal, rejected, why)
        except BadPayload as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Unavailable as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            self._intake.release(size)
        raise AssertionError("abort raises")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
