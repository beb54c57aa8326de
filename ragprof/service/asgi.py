"""ASGI in types, and one HTTP exchange followed from its first to its last byte."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

End = Literal["completed", "failed", "cancelled", "disconnected"]

CLIENT_CLOSED = 499
"""The status of a request whose client left before any answer (nginx's code)."""


@dataclass(slots=True)
class Outcome:
    """How an exchange ended.

    `status` is what was sent; 500 for an error that left the application without an error page,
    also in the middle of an answer; 499 when the client left, or the request was cancelled, before
    any answer. `seconds` runs to the last byte, so background tasks are not in it.
    """

    end: End
    status: int
    seconds: float
    error: BaseException | None = None
    close_code: int | None = None
    """Why a web socket was closed; None for a request."""


async def follow(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    on_end: Callable[[Outcome], None],
    header: tuple[bytes, bytes] | None = None,
) -> None:
    """Run `app` and call `on_end` exactly once, when the last byte was sent or nothing more comes.

    No task is started, so context variables keep their meaning. `header` is added to the answer.
    What the application raises is raised on; what it raises after its last byte (a background
    task) does not change the outcome.
    """
    status = 0  # nothing was sent
    ended = left = trailers = False
    answered = 0.0  # when the last byte of an error page was sent
    started = time.perf_counter()

    def finish(end: End, code: int, error: BaseException | None = None) -> None:
        nonlocal ended
        if not ended:
            ended = True
            on_end(Outcome(end, code, (answered or time.perf_counter()) - started, error))

    async def followed_receive() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.disconnect":
            left = True
        return message

    async def followed_send(message: Message) -> None:
        nonlocal status, trailers, answered
        kind = message["type"]
        if kind == "http.response.start":
            status = message["status"]
            trailers = message.get("trailers", False)
            message = _with_header(message, header)
        await send(message)
        if (
            (kind == "http.response.body" and not trailers and not message.get("more_body"))
            or (kind == "http.response.trailers" and not message.get("more_trailers"))
            or kind == "http.response.pathsend"
        ):
            # An answer that is sent while an exception is handled may be the page of an error that
            # is raised on after it (Starlette does so): only the end tells.
            if status >= 500 and sys.exc_info()[1] is not None:
                answered = time.perf_counter()
            else:
                finish("completed", status)

    try:
        await app(scope, followed_receive, followed_send)
    except asyncio.CancelledError as error:
        finish("cancelled", status or CLIENT_CLOSED, error)
        raise
    except Exception as error:
        finish("failed", status if answered else 500, error)
        raise
    except BaseException as error:  # the process ends
        finish("cancelled", status or CLIENT_CLOSED, error)
        raise
    if answered:
        finish("completed", status)
    elif left or status:
        finish("disconnected", status or CLIENT_CLOSED)
    else:  # returned without any answer: the server sends 500
        finish("failed", 500)


async def follow_websocket(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    on_handshake: Callable[[int], None] | None = None,
    on_end: Callable[[Outcome], None] | None = None,
    header: tuple[bytes, bytes] | None = None,
) -> None:
    """`follow` for a web socket.

    `on_handshake` is called once with the status of the handshake: 101, that of a refusal (403
    when the application closes before it accepts, as servers answer then), 500 or 499. `on_end` is
    called once, when the application returns; that the other side left is an ordinary end.
    """
    status = 0
    close_code: int | None = None
    started = time.perf_counter()

    def handshake(code: int) -> None:
        nonlocal status
        if not status:
            status = code
            if on_handshake is not None:
                on_handshake(code)

    def finish(end: End, error: BaseException | None = None) -> None:
        if on_end is not None:
            on_end(Outcome(end, status, time.perf_counter() - started, error, close_code))

    async def followed_receive() -> Message:
        nonlocal close_code
        message = await receive()
        if message["type"] == "websocket.disconnect":
            close_code = message.get("code", 1005)
        return message

    async def followed_send(message: Message) -> None:
        nonlocal close_code
        kind = message["type"]
        if kind == "websocket.accept":
            handshake(101)
            message = _with_header(message, header)
        elif kind == "websocket.http.response.start":
            handshake(message["status"])
            message = _with_header(message, header)
        elif kind == "websocket.close":
            handshake(403)
            close_code = message.get("code", 1000)
        await send(message)

    try:
        await app(scope, followed_receive, followed_send)
    except Exception as error:
        handshake(500)
        # Starlette's way to say that the other side left.
        left = type(error).__name__ == "WebSocketDisconnect" and close_code is not None
        finish("completed" if left else "failed", None if left else error)
        raise
    except BaseException as error:
        handshake(CLIENT_CLOSED)
        finish("cancelled", error)
        raise
    handshake(500)
    finish("completed" if status != 500 else "failed")


def _with_header(message: Message, header: tuple[bytes, bytes] | None) -> Message:
    """The start of an answer with one more header, unless the application set it itself."""
    headers = list(message.get("headers", ()))
    if header is None or any(name.lower() == header[0] for name, _ in headers):
        return message
    return {**message, "headers": [*headers, header]}
