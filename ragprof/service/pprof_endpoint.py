"""`/debug/pprof/…` as ASGI: profile, tasks, kept. Every request needs the token."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from ragprof.sampler import sharing, snapshot
from ragprof.service import keeping
from ragprof.service.asgi import ASGIApp, Receive, Scope, Send
from ragprof.service.identity import service_name
from ragprof.service.pprof import Pprof

if TYPE_CHECKING:
    from ragprof.service.profiling import ServiceProfiler

PREFIX = "/debug/pprof/"
MOST_AT_ONCE = 4
MOST_KEPT = 200  # requests in one answer
MOST_SAMPLES = 500_000
LAST_SAMPLES = 1.0  # seconds to wait for them at the end of a profile

TEXT, JSON, PPROF = "text/plain; charset=utf-8", "application/json", "application/octet-stream"


class _Refused(Exception):
    """An answer that is no profile: status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PprofEndpoint:
    """Answers what lies below `/debug/pprof/` and passes everything else on.

    The token comes as `Authorization: Bearer TOKEN`, or as the password of Basic, so that
    `go tool pprof http://x:TOKEN@host/debug/pprof/profile` works. A middleware and not a route: it
    stands outside routing and the application's own authentication.
    """

    def __init__(self, app: ASGIApp, profiler: ServiceProfiler, token: str) -> None:
        self.app = app
        self.profiler = profiler
        self._token = token.encode()
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {"content-type": TEXT}
        try:
            body = await self._answer(scope, headers)
            status = 200
        except _Refused as refused:
            status, body = refused.status, f"{refused}\n".encode()
            if status == 401:
                headers["www-authenticate"] = 'Bearer realm="ragprof"'
            elif status == 405:
                headers["allow"] = "GET"
        headers["content-length"] = str(len(body))
        headers["cache-control"] = "no-store"
        headers["x-content-type-options"] = "nosniff"
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, headers: dict[str, str]) -> bytes:
        if not self._allowed(scope):
            raise _Refused(401, "a token is needed: Authorization: Bearer TOKEN")
        if scope["method"] != "GET":
            raise _Refused(405, "only GET is answered here")
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        asked = {name: values[-1] for name, values in query.items()}
        answers = {"profile": self._profile, "tasks": self._tasks, "kept": self._kept}
        answer = answers.get(scope["path"].removeprefix(PREFIX))
        if answer is None:
            raise _Refused(404, f"there are {', '.join(PREFIX + name for name in answers)}")
        if self._running >= MOST_AT_ONCE:
            raise _Refused(429, f"{MOST_AT_ONCE} requests run already: try again later")
        self._running += 1
        try:
            return await answer(asked, dict(_headers(scope)), headers)
        finally:
            self._running -= 1

    def _allowed(self, scope: Scope) -> bool:
        kind, _, given = dict(_headers(scope)).get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)

    async def _profile(
        self, asked: Mapping[str, str], _: Mapping[str, str], headers: dict[str, str]
    ) -> bytes:
        profiler = self.profiler
        ring = profiler.ring
        seconds = _number(asked, "seconds", 10.0)
        if not 0 < seconds <= ring.seconds:
            raise _Refused(400, f"seconds is above 0 and at most {ring.seconds:g}")
        if not profiler.start():
            raise _Refused(503, f"nothing is sampled: {profiler.problem}")
        began = time.time_ns()
        await asyncio.sleep(seconds)
        end = time.time_ns()
        until = time.monotonic() + LAST_SAMPLES
        while ring.open and ring.written_ns <= end and time.monotonic() < until:
            sharing.flush_soon()
            await asyncio.sleep(0.01)
        if not ring.open:
            raise _Refused(503, f"sampling has ended: {ring.stats.get('disabled', '')}")
        headers["content-type"] = PPROF
        headers["content-disposition"] = 'attachment; filename="profile.pb.gz"'
        return await asyncio.to_thread(self._encoded, began, end)

    def _encoded(self, began: int, end: int) -> bytes:
        ring = self.profiler.ring
        made = Pprof()
        lines = ring.lines(began, end)
        made.take(lines, _origin(os.getpid(), service_name()))
        stats = ring.stats
        if stats:
            made.period(float(stats["asked_hz"]))
            made.comment(
                f"asked for {stats['asked_hz']:g} Hz, effective {stats['effective_hz']:g} Hz since "
                f"the start; sampling cost {stats['cost_seconds']:.3f} s of CPU in "
                f"{stats['elapsed_seconds']:.0f} s"
            )
        made.comment(f"from {_iso(began)} to {_iso(end)}")
        return made.encode()

    async def _tasks(
        self, asked: Mapping[str, str], given: Mapping[str, str], headers: dict[str, str]
    ) -> bytes:
        # Here in the loop's thread, where tasks do not move on meanwhile.
        tasks = snapshot.tasks(asyncio.get_running_loop())
        threads = snapshot.threads()
        form = asked.get("format") or ("json" if JSON in given.get("accept", "") else "text")
        if form == "json":
            headers["content-type"] = JSON
            seen = {"time": _iso(time.time_ns()), "tasks": tasks, "threads": threads}
            return json.dumps(seen).encode()
        if form != "text":
            raise _Refused(400, "format is text or json")
        return tasks_text(tasks, threads).encode("utf-8", "replace")

    async def _kept(
        self, asked: Mapping[str, str], _: Mapping[str, str], headers: dict[str, str]
    ) -> bytes:
        since = _time(asked, "since", 0)
        until = _time(asked, "until", time.time_ns())
        if until < since:
            raise _Refused(400, "until is before since")
        limit = int(_number(asked, "limit", MOST_KEPT))
        if not 1 <= limit <= MOST_KEPT:
            raise _Refused(400, f"limit is between 1 and {MOST_KEPT}")
        form = asked.get("format", "pprof")
        if form not in ("pprof", "json"):
            raise _Refused(400, "format is pprof or json")
        folder = self.profiler.folder
        body, count, left = await asyncio.to_thread(kept, folder, since, until, limit, form)
        headers["x-ragprof-requests"] = str(count)
        headers["x-ragprof-left-out"] = str(left)
        if form == "json":
            headers["content-type"] = JSON
        else:
            headers["content-type"] = PPROF
            headers["content-disposition"] = 'attachment; filename="kept.pb.gz"'
        return body


def kept(
    folder: keeping.KeptFolder, since_ns: int, until_ns: int, limit: int, form: str
) -> tuple[bytes, int, int]:
    """Kept requests that overlap a window, the newest `limit`: content, how many, how many not.

    As JSON a list of requests. As pprof all their samples, each with the labels `trace_id`,
    `span_id`, `endpoint`, `service`, `process`, and a comment `ragprof.request {JSON}` for each
    request.
    """
    paths = folder.find(since_ns, until_ns)
    made = Pprof()
    requests: list[dict[str, Any]] = []
    for path in paths:
        if len(requests) == limit or made.samples >= MOST_SAMPLES:
            break
        found = keeping.read(path)
        if found is None:
            continue
        request, lines = found
        described = _described(request)
        requests.append(described)
        if form == "pprof":
            made.comment(f"ragprof.request {json.dumps(described)}")
            labels = _origin(request.pid, request.service)
            made.take(lines, {**labels, "endpoint": request.endpoint})
    left = max(len(paths) - len(requests), 0)
    if form == "json":
        return json.dumps({"requests": requests, "left_out": left}).encode(), len(requests), left
    return made.encode(), len(requests), left


def tasks_text(tasks: list[dict[str, Any]], threads: list[dict[str, Any]]) -> str:
    """Tasks and threads for people; the innermost frame first."""
    blocks = []
    for task in tasks:
        wait = f" {task['wait']}" if task["wait"] else ""
        blocks.append(
            f"task {task['task']} {task['name']}: {task['state']}{wait}{_span(task)}"
            + _stack(task["stack"])
        )
    for thread in threads:
        main = ", main" if thread["main"] else ""
        blocks.append(
            f"thread {thread['thread']} {thread['name']}{main}:{_span(thread)}"
            + _stack(thread["stack"])
        )
    return "\n\n".join(blocks) + "\n"


def _span(one: Mapping[str, Any]) -> str:
    return f" trace {one['trace_id']} span {one['span_id']}" if one["trace_id"] else ""


def _stack(places: list[dict[str, Any]]) -> str:
    return "".join(
        f"\n    {place['function']} ({place['file']}:{place['line']})" for place in reversed(places)
    )


def _described(request: keeping.Request) -> dict[str, Any]:
    return {
        "trace_id": request.trace_id,
        "endpoint": request.endpoint,
        "service": request.service,
        "process": request.pid,
        "start": _iso(request.start_ns),
        "start_ns": request.start_ns,
        "duration_ns": request.end_ns - request.start_ns,
        "threshold_seconds": request.threshold_seconds,
    }


def _origin(pid: int, service: str) -> dict[str, str]:
    return {"process": str(pid), "service": service}


def _headers(scope: Scope) -> list[tuple[str, str]]:
    return [
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in scope.get("headers", ())
    ]


def _number(asked: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(asked.get(name, default))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _Refused(400, f"{name} is a number, such as {name}={default:g}")
    return number


def _time(asked: Mapping[str, str], name: str, default: int) -> int:
    """ISO 8601 with a zone, or seconds since 1970; in ns."""
    text = asked.get(name, "")
    if not text:
        return default
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        pass
    try:
        # A plus sign that was not encoded comes as a space.
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise _Refused(
            400, f"{name} is a time with a zone, such as {name}=2026-01-31T09:00:00Z, or seconds"
        )
    return int(at.timestamp() * 1e6) * 1000


def _iso(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")
