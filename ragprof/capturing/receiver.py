"""The embedded OTLP receiver over HTTP: /v1/traces, /v1/logs, /v1/metrics.

Answers as the OTLP specification 1.x says: 200 (with partial success), 400 for garbage, 413,
415, and 503 with Retry-After for what may be sent again.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from google.rpc.status_pb2 import Status

from ragprof.capturing.intake import MAX_BODY, Intake, TooLarge, Unavailable, inflate, response
from ragprof.capturing.marks import MARK_PATH
from ragprof.errors import RagprofError
from ragprof.journal import Journal
from ragprof.sources.otlp import BadPayload

HOST = "127.0.0.1"
DEFAULT_PORT = 4318  # where code with a hard-coded endpoint sends
SIGNALS = {"/v1/traces": "traces", "/v1/logs": "logs", "/v1/metrics": "metrics"}
MAX_DRAIN = 1 << 30  # bytes read and thrown away so that a client can read our 413
PROTOBUF, JSON = "application/x-protobuf", "application/json"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Answer(Exception):  # ends the handling of a request with this status
    def __init__(self, status: int, message: str, retry: bool = False) -> None:
        super().__init__(message)
        self.status, self.retry = status, retry


class Receiver:
    """Context manager: listens in its own thread from entry to exit.

    `process_of_port` tells the process id behind a client's port (0: unknown). `mark` takes the
    JSON object of a posted mark that carries the right token.
    """

    def __init__(
        self,
        journal: Journal,
        intake: Intake,
        *,
        process_of_port: Callable[[int, int], int] = lambda client, server: 0,
        mark: Callable[[dict[str, Any]], None] | None = None,
        token: str = "",
    ) -> None:
        self.port = 0
        self.ports: list[int] = []
        self._journal, self._intake = journal, intake
        self._process_of_port, self._mark, self._token = process_of_port, mark, token
        # One decoder: decoding holds the GIL, and the table writes stay in order.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="ragprof-otlp")
        self._sockets: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Receiver:
        free = _listen(HOST, 0)
        if free is None:
            raise RagprofError(
                f"No port of {HOST} can be listened on; allow loopback sockets for this user."
            )
        self._sockets = [free]
        for host in (HOST, "::1"):
            default = _listen(host, DEFAULT_PORT)
            if default is not None:
                self._sockets.append(default)
        self.ports = [each.getsockname()[1] for each in self._sockets]
        self.port = self.ports[0]
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            loop="asyncio",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
            timeout_keep_alive=60,
        )
        logging.getLogger("uvicorn.error").addFilter(_quiet)
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=self._sockets)),
            name="ragprof-receiver",
            daemon=True,
        )
        self._thread.start()
        while not server.started and self._thread.is_alive():
            self._thread.join(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
            logging.getLogger("uvicorn.error").removeFilter(_quiet)
        self._decoder.shutdown(wait=True)
        for each in self._sockets:
            each.close()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        is_json = _media_type(headers) == JSON
        try:
            body = await self._handle(scope, headers, receive)
            status, more = 200, []
        except _Answer as answer:
            status, body = answer.status, _status_body(answer, is_json)
            more = [(b"retry-after", b"1")] if answer.retry else []
        except Exception as error:  # noqa: BLE001  # one bad request must not end the recording
            self._journal.refuse(f"request that failed inside the receiver: {type(error).__name__}")
            status, more = 500, []
            body = _status_body(_Answer(500, f"internal error: {type(error).__name__}"), is_json)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", (JSON if is_json else PROTOBUF).encode()),
                    (b"content-length", str(len(body)).encode()),
                    *more,
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _handle(self, scope: Scope, headers: dict[str, str], receive: Receive) -> bytes:
        path = scope["path"].rstrip("/")
        if path == MARK_PATH and self._mark is not None:
            return await self._take_mark(scope, headers, receive)
        signal = SIGNALS.get(path)
        if signal is None:
            self._journal.refuse("request to a path that is not OTLP's")
            raise _Answer(404, f"{path} is not one of {', '.join(SIGNALS)}")
        if scope["method"] != "POST":
            raise _Answer(405, "OTLP requests are POST")
        media_type = _media_type(headers)
        if media_type not in (PROTOBUF, JSON):
            self._journal.refuse("request of an unsupported Content-Type")
            raise _Answer(415, f"Content-Type must be {PROTOBUF} or {JSON}, not {media_type!r}")
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", ""):
            self._journal.refuse("request of an unsupported Content-Encoding")
            raise _Answer(415, f"Content-Encoding must be gzip or identity, not {encoding!r}")
        reserved = 0
        try:
            claimed = headers.get("content-length", "")
            size = int(claimed) if claimed.isdigit() else MAX_BODY // 4
            self._intake.reserve(size)
            reserved = size
            loop = asyncio.get_running_loop()
            # Asked while the rest is read: a client that gives up or ends takes its socket along.
            sender = loop.run_in_executor(None, self._sender, scope)
            raw = await self._read(receive, MAX_BODY if not claimed else size)
            return await loop.run_in_executor(
                self._decoder,
                self._export,
                signal,
                raw,
                encoding,
                media_type == JSON,
                await sender,
            )
        except TooLarge as error:
            if not reserved:
                await _drain(receive)
            raise _Answer(413, str(error)) from None
        except Unavailable as error:
            if not reserved:
                await _drain(receive)
            raise _Answer(503, str(error), retry=True) from None
        except BadPayload as error:
            raise _Answer(400, str(error)) from None
        finally:
            if reserved:
                self._intake.release(reserved)

    def _sender(self, scope: Scope) -> int:
        client, server = scope.get("client"), scope.get("server")
        return self._process_of_port(client[1], server[1]) if client and server else 0

    def _export(self, signal: str, raw: bytes, encoding: str, is_json: bool, process: int) -> bytes:
        if encoding == "gzip":
            try:
                raw = inflate(raw)
            except TooLarge:
                self._journal.refuse("request that unpacks to more than the receiver takes")
                raise
            except BadPayload:
                self._journal.refuse("request whose gzip is damaged")
                raise
        rejected, why = self._intake.export(signal, raw, is_json=is_json, process=process)
        return response(signal, rejected, why, is_json=is_json)

    async def _read(self, receive: Receive, limit: int) -> bytes:
        body = bytearray()
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                self._journal.refuse("request that its client broke off")
                raise _Answer(400, "the client went away")
            body += event.get("body", b"")
            if len(body) > limit:
                body.clear()
                await _drain(receive)
                self._journal.refuse("request larger than the receiver takes")
                raise TooLarge(f"The request is larger than {limit} bytes; send smaller batches.")
            if not event.get("more_body"):
                return bytes(body)

    async def _take_mark(self, scope: Scope, headers: dict[str, str], receive: Receive) -> bytes:
        if scope["method"] != "POST" or not hmac.compare_digest(
            headers.get("x-ragprof-token", "").encode(), self._token.encode()
        ):
            raise _Answer(403, "a mark needs the recorder's token; use `ragprof mark`")
        raw = await self._read(receive, 1 << 16)
        try:
            fields = json.loads(raw)
            if not isinstance(fields, dict):
                raise ValueError("not an object")
            assert self._mark is not None
            self._mark(fields)
        except (ValueError, RagprofError) as error:
            raise _Answer(400, str(error)) from None
        return b"{}"


def _listen(host: str, port: int) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except OSError:
        listener.close()
        return None
    return listener


async def _drain(receive: Receive) -> None:
    left = MAX_DRAIN
    while left > 0:
        event = await receive()
        left -= len(event.get("body", b"")) + 1
        if event["type"] == "http.disconnect" or not event.get("more_body"):
            return


def _media_type(headers: dict[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _status_body(answer: _Answer, is_json: bool) -> bytes:
    # google.rpc.Code: INVALID_ARGUMENT 3, PERMISSION_DENIED 7, RESOURCE_EXHAUSTED 8,
    # UNIMPLEMENTED 12, INTERNAL 13, UNAVAILABLE 14
    code = {403: 7, 413: 8, 404: 12, 405: 12, 500: 13, 503: 14}.get(answer.status, 3)
    message = str(answer)[:2000]
    if is_json:
        return json.dumps({"code": code, "message": message}).encode()
    return bytes(Status(code=code, message=message).SerializeToString())


def _quiet(record: logging.LogRecord) -> bool:
    """Keep the server's own notes (invalid requests, cancelled tasks) off the child's terminal."""
    return False
