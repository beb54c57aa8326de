"""`/metrics`: all metrics of the process, or of all workers, in the form that the scraper asks for.

Prometheus' text form carries no exemplars; OpenMetrics does. With `PROMETHEUS_MULTIPROC_DIR` set
the numbers of all workers are joined, and exemplars are lost, because prometheus_client's shared
files have no room for them.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from ragprof.service.asgi import ASGIApp, Receive, Scope, Send

METRICS_PATH = "/metrics"
_LIVE_GAUGE = re.compile(r"gauge_live[a-z]+_(\d+)\.db")

refresh: list[Callable[[], None]] = []
"""Called before every exposition: for gauges that change without an event."""


def exposition(accept: str = "") -> tuple[bytes, str]:
    """All metrics and their content type, in the form that the `Accept` header asks for."""
    for update in refresh:
        update()
    registry = REGISTRY
    if folder := multiprocess_folder():
        forget_dead_workers(folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def multiprocess_folder() -> Path | None:
    """The folder in which the workers share their numbers; None outside of multiprocess mode."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def forget_dead_workers(folder: Path) -> None:
    """Remove the gauges of workers that are gone; their counters stay, as they must.

    gunicorn has a hook for that, uvicorn has none; so every exposition looks.
    """
    for file in folder.glob("gauge_live*.db"):
        found = _LIVE_GAUGE.fullmatch(file.name)
        if found and not _alive(int(found.group(1))):
            file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def metrics_app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/metrics` as an ASGI application, for `app.mount` or `app.add_route`."""
    accept = b",".join(value for name, value in scope.get("headers", ()) if name == b"accept")
    if multiprocess_folder():  # reads files of all workers: not in the loop
        body, content_type = await asyncio.to_thread(exposition, accept.decode("latin-1"))
    else:
        body, content_type = exposition(accept.decode("latin-1"))
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    content = b"" if scope.get("method") == "HEAD" else body
    await send({"type": "http.response.body", "body": content})


class MetricsEndpoint:
    """Answers one path with the metrics and passes everything else on.

    A middleware and not a route: it stands outside routing, tracing of endpoints and
    authentication dependencies, and works in any ASGI application.
    """

    def __init__(self, app: ASGIApp, path: str = METRICS_PATH) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self.path:
            await metrics_app(scope, receive, send)
        else:
            await self.app(scope, receive, send)
