"""Drives an ASGI application by hand: what no HTTP client can do at a chosen moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any


def http_scope(path: str, method: str = "GET", headers: Iterable[Any] = ()) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.7", 4711),
        "server": ("test", 80),
        "state": {},
    }


def websocket_scope(path: str) -> dict[str, Any]:
    scope = http_scope(path) | {"type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    return scope


async def call(app: Any, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """All messages that the application sends; after `received` its `receive` waits for ever."""
    incoming = list(received or [{"type": "http.request", "body": b"", "more_body": False}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    with contextlib.suppress(Exception):
        await app(scope, receive, send)
    return sent


async def cancel_when_running(app: Any, scope: dict[str, Any], running: asyncio.Event) -> None:
    """Cancel a request as soon as its endpoint runs."""
    task = asyncio.create_task(call(app, scope))
    await asyncio.wait_for(running.wait(), 30)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
