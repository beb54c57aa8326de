"""ASGI in types, and one HTTP exchange followed from its first to its last byte."""

from __future__ import annotations

import asyncio
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

    `status` is what was sent; 500 for an error that left the application, also in the middle of an
    answer; 499 when the client left, or the request was cancelled, before any answer. `seconds`
    runs to the last byte, so background tasks are not in it.
    """

    end: End
    status: int
    seconds: float
    error: BaseException | None = None


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
    started = time.perf_counter()

    def finish(end: End, code: int, error: BaseException | None = None) -> None:
        nonlocal ended
        if not ended:
            ended = True
            on_end(Outcome(end, code, time.perf_counter() - started, error))

    async def followed_receive() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.disconnect":
            left = True
        return message

    async def followed_send(message: Message) -> None:
        nonlocal status, trailers
        kind = message["type"]
        if kind == "http.response.start":
            status = message["status"]
            trailers = message.get("trailers", False)
            if header is not None:
                message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)
        if (
            (kind == "http.response.body" and not trailers and not message.get("more_body"))
            or (kind == "http.response.trailers" and not message.get("more_trailers"))
            or kind == "http.response.pathsend"
        ):
            finish("completed", status)

    try:
        await app(scope, followed_receive, followed_send)
    except asyncio.CancelledError as error:
        finish("cancelled", status or CLIENT_CLOSED, error)
        raise
    except Exception as error:
        finish("failed", 500, error)
        raise
    except BaseException as error:  # the process ends
        finish("cancelled", status or CLIENT_CLOSED, error)
        raise
    if left or status:
        finish("disconnected", status or CLIENT_CLOSED)
    else:  # returned without any answer: the server sends 500
        finish("failed", 500)
