"""An HTTP proxy before a real server that slows, cuts, and answers 429, 500 or garbage.

    with FaultyProxy(server.url, plan=["429", "cut"]) as proxy: ...   # proxy.url

`plan` is what happens to the following requests, one by one; afterwards they pass. A callable
`plan(number, method, path)` decides for each request, counted from 0. Faults:

- "" or "pass": passes
- "slow": passes a second late
- "refuse": the connection is closed without an answer
- "cut": the headers and half of the body, then the connection is closed
- "garbage": 200 and bytes that are no format
- "empty": 200 and no body
- "429": with Retry-After: 0;  "500", "502", "503": an HTML page
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("slow", "refuse", "cut", "garbage", "empty", "429", "500", "502", "503")
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}

Plan = Callable[[int, str, str], str]


class FaultyProxy:
    """See above. `seen` lists (method, path, fault) of every request."""

    def __init__(self, target: str, plan: Sequence[str] | Plan = ()) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self._target = urlsplit(target)
        self._plan = plan if callable(plan) else list(plan)
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                owner._handle(self)

            do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{self._target.path}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def faults(self) -> list[str]:
        """The faults that happened."""
        return [fault for _, _, fault in self.seen if fault not in ("", "pass")]

    def _decide(self, method: str, path: str) -> str:
        with self._lock:
            if callable(self._plan):
                fault = self._plan(len(self.seen), method, path)
            else:
                fault = self._plan.pop(0) if self._plan else ""
            self.seen.append((method, path, fault))
            return fault

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._decide(request.command, request.path)
        if fault == "slow":
            time.sleep(1)
        elif fault == "refuse":
            _close(request)
            return
        elif fault == "garbage":
            _answer(request, 200, b"\x00\xff<html>" + bytes(range(256)))
            return
        elif fault == "empty":
            _answer(request, 200, b"")
            return
        elif fault.isdigit():
            _answer(request, int(fault), b"<html>no</html>", {"Retry-After": "0"})
            return
        status, headers, answer = self._forward(request, body)
        if fault == "cut":
            _answer(request, status, answer, headers, sent=len(answer) // 2)
            _close(request)
        else:
            _answer(request, status, answer, headers)

    def _forward(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(
            self._target.hostname or "", self._target.port, timeout=120
        )
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
        try:
            connection.request(request.command, request.path, body, headers)
            reply = connection.getresponse()
            kept = {k: v for k, v in reply.getheaders() if k.lower() not in HOP}
            return reply.status, kept, reply.read()
        finally:
            connection.close()


def now_and_then(seed: int, share: float = 0.4, faults: Sequence[str] = FAULTS) -> Plan:
    """A plan that lets a share of the requests fail, never more than three one after another."""
    dice = random.Random(seed)
    row = [0]

    def plan(number: int, method: str, path: str) -> str:
        if row[0] < 3 and dice.random() < share:
            row[0] += 1
            return dice.choice(faults)
        row[0] = 0
        return ""

    return plan


def every_third(fault: str) -> Plan:
    """A plan in which each third request meets a fault; one alone, where it costs time."""

    def plan(number: int, method: str, path: str) -> str:
        return fault if number == 1 or (number % 3 == 1 and fault != "slow") else ""

    return plan


def _answer(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    sent: int | None = None,
) -> None:
    with contextlib.suppress(OSError):
        request.send_response(status)
        for name, value in (headers or {}).items():
            if name.lower() not in ("server", "date"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body[:sent])
            request.wfile.flush()


def _close(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    with contextlib.suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)
