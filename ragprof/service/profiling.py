"""Continuous profiling of a service: the last minutes in memory, slow requests kept, endpoints.

Off unless there is a token. `setup_profiling(app)` in the main thread is all that a service needs;
the endpoints are then

- `GET /debug/pprof/profile?seconds=N`: the next N seconds, in pprof form;
- `GET /debug/pprof/tasks`: every task and thread with its stack and span, as text or JSON;
- `GET /debug/pprof/kept?since=…&until=…`: what slow requests did, in pprof form or listed as JSON.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError
from ragprof.sampler import sharing
from ragprof.sampler.ring import Ring
from ragprof.service.asgi import ASGIApp, Outcome, Receive, Scope, Send, follow
from ragprof.service.identity import current_trace, service_name
from ragprof.service.keeping import Keeper, KeptFolder, Request
from ragprof.service.pprof_endpoint import PREFIX, PprofEndpoint
from ragprof.service.routes import RouteTable

TOKEN, TOKEN_FILE = "RAGPROF_PROFILING_TOKEN", "RAGPROF_PROFILING_TOKEN_FILE"
SHORTEST_TOKEN = 16
log = logging.getLogger("ragprof.service.profiling")


class ProfilingError(RagprofError):
    """Profiling that cannot be set up: says what to change."""


@dataclass
class ServiceProfiler:
    """The sampler, the ring and the keeper of one process."""

    ring: Ring
    keeper: Keeper
    folder: KeptFolder
    hz: float
    budget: float
    problem: str = ""
    """Why nothing is sampled; empty when it is."""

    def start(self) -> bool:
        """Begin to sample, unless that runs already; False when it cannot (`problem`)."""
        if self.ring.open:
            return True
        try:
            sharing.share(self.ring, self.hz, self.budget)
        except sharing.CannotSample as error:
            self.problem = str(error)
            return False
        self.problem = ""
        return True

    def stop(self) -> None:
        """End; the keeper finishes what it was asked for."""
        sampler = sharing.running()
        if sampler is not None and self.ring in sampler.sinks:
            sharing.unshare(sampler, self.ring)
        self.ring.open = False
        self.keeper.wait(5)

    def ended(
        self, endpoint: str, trace_id: str, start_ns: int, end_ns: int, threshold: float
    ) -> bool:
        """A request has ended: keep its samples when it was slower than `threshold` seconds.

        Needs the trace id only, and not that the trace was sampled. Returns whether it is kept.
        """
        if end_ns - start_ns < threshold * 1e9 or not trace_id or not self.ring.open:
            return False
        request = Request(
            trace_id, endpoint, start_ns, end_ns, threshold, os.getpid(), service_name()
        )
        return self.keeper.keep(request)


class ProfilingMiddleware:
    """Tells the profiler when a request ends; install it with `app.add_middleware`.

    `slow` is the threshold in seconds, `slow_by_endpoint` that of single route templates.
    """

    def __init__(
        self,
        app: ASGIApp,
        profiler: ServiceProfiler,
        slow: float = 1.0,
        slow_by_endpoint: Mapping[str, float] | None = None,
    ) -> None:
        self.app = app
        self.profiler = profiler
        self.slow = slow
        self.slow_by_endpoint = dict(slow_by_endpoint or {})
        self._least = min([slow, *self.slow_by_endpoint.values()])
        self._routes = RouteTable()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        started = time.time_ns()
        trace_id = current_trace()

        def ended(outcome: Outcome) -> None:
            if outcome.seconds < self._least:
                return
            endpoint = self._routes.taken(scope, self._routes.expected(scope))
            threshold = self.slow_by_endpoint.get(endpoint, self.slow)
            end = started + int(outcome.seconds * 1e9)
            self.profiler.ended(endpoint, trace_id or current_trace(), started, end, threshold)

        await follow(self.app, scope, receive, send, ended)


def setup_profiling(
    app: Any,
    token: str | None = None,
    *,
    slow: float = 1.0,
    slow_by_endpoint: Mapping[str, float] | None = None,
    minutes: float = 5.0,
    folder: str | os.PathLike[str] | None = None,
    folder_bytes: int = 64 << 20,
    kept_per_minute: int = 30,
    hz: float = 100.0,
    budget: float = 0.01,
) -> ServiceProfiler | None:
    """Sample this service all the time, keep what slow requests did, and answer below /debug/pprof.

    Off, and None, without a token: the argument, else the variable RAGPROF_PROFILING_TOKEN, else
    the file that RAGPROF_PROFILING_TOKEN_FILE names; at least 16 characters. `slow` is the
    threshold in seconds, `slow_by_endpoint` one for single route templates. `minutes` of samples
    stay in memory (at most 100,000 samples). Kept requests lie in `folder` (a private one in the
    temporary folder), at most `folder_bytes` of them. `budget` is the share of one core that
    sampling may take. Call it after `setup_tracing`, in the main thread. Raises ProfilingError.
    """
    token = token or _configured_token()
    if not token:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii():
        raise ProfilingError(
            f"the profiling token is shorter than {SHORTEST_TOKEN} ASCII characters: make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
        )
    limits = [slow, minutes, hz, budget, *(slow_by_endpoint or {}).values()]
    if not all(math.isfinite(limit) and limit > 0 for limit in limits) or kept_per_minute < 1:
        raise ProfilingError(
            "slow, minutes, hz, budget and kept_per_minute are numbers above 0; correct them"
        )
    try:
        kept = KeptFolder(None if folder is None else Path(folder), folder_bytes)
    except OSError as error:
        raise ProfilingError(
            f"{folder}: cannot be used for kept requests ({error.strerror}); choose another folder"
        ) from None
    ring = Ring(minutes * 60)
    profiler = ServiceProfiler(ring, Keeper(ring, kept, kept_per_minute), kept, hz, budget)
    if not profiler.start():
        log.warning("continuous profiling does not sample: %s", profiler.problem)
    app.add_middleware(
        ProfilingMiddleware, profiler=profiler, slow=slow, slow_by_endpoint=slow_by_endpoint
    )
    app.add_middleware(PprofEndpoint, profiler=profiler, token=token)
    return profiler


def _configured_token() -> str:
    if token := os.environ.get(TOKEN, ""):
        return token
    file = os.environ.get(TOKEN_FILE, "")
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ProfilingError(
            f"{TOKEN_FILE} names {file}, which cannot be read ({error}); correct it or unset it"
        ) from None
