"""Rung 2: the service's own profiler (`ragprof.service`), by port-forward and with its token."""

from __future__ import annotations

import http.client
import os
import threading
import time
from typing import Any

from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileError
from ragprof.profiles.read import profiles_of
from ragprof.profiling.pods.cluster import Refused
from ragprof.profiling.pods.request import Request, RungFailed

NAME = "the service's own endpoint"
PATH = "/debug/pprof/profile"
TOKEN = "RAGPROF_PROFILING_TOKEN"  # noqa: S105 the name of a variable
_NAMED = ("ragprof", "pprof")
_PORTS = 8
_OFF = "the profiler's endpoint in the service (setup_profiling), off without a token"
_GRACE = 30.0  # seconds, beyond those of the profile, until an answer is given up


def climb(request: Request) -> Profile:
    """The Profile, or `RungFailed`."""
    ports = _ports(request)
    if not ports:
        raise RungFailed(
            "the container declares no port, so its endpoint is not known",
            "the profiler's endpoint in the service (setup_profiling), and --port",
        )
    failures: list[tuple[int, RungFailed]] = []
    for port in ports:
        try:
            return _fetch(request, port)
        except RungFailed as error:
            failures.append((port, error))
    # An answer without permission tells more than no answer.
    port, failed = next((each for each in failures if "token" in each[1].allow), failures[0])
    raise RungFailed(f"port {port}: {failed.reason}", failed.allow)


def _ports(request: Request) -> list[int]:
    """The port asked for, else the declared ones, those named for it first."""
    if request.port is not None:
        return [request.port]
    declared = [
        each
        for each in request.target.container_spec.get("ports") or ()
        if each.get("protocol", "TCP") == "TCP"
    ]
    declared.sort(key=lambda each: each.get("name") not in _NAMED)
    return [int(each["containerPort"]) for each in declared[:_PORTS]]


def _fetch(request: Request, port: int) -> Profile:
    target = request.target
    try:
        with request.cluster.forwarded(target.namespace, target.pod, port) as socket:
            status, content = _get(request, socket, port)
    except Refused as refused:
        allow = "a role with get and create on pods/portforward" if refused.status == 403 else ""
        raise RungFailed(str(refused), allow) from refused
    if status in (401, 403):
        raise RungFailed(
            f"the endpoint wants another token than {TOKEN} holds here",
            "the token of the service",
        )
    if status != 200:
        said = content[:200].decode("utf-8", "replace").strip()
        raise RungFailed(
            f"{PATH} answers {status}{': ' + said if said and status != 404 else ''}",
            _OFF,
        )
    try:
        profile = profiles_of(Content(content, "profile.pb.gz"))[0]
    except (ProfileError, IndexError) as error:
        raise RungFailed(f"{PATH} answered with something else than a profile: {error}") from error
    notes = (*profile.notes, f"the service's own sampler, by port-forward to port {port}")
    return profile._with(name=profile.name or str(target), notes=notes)


def _get(request: Request, socket: Any, port: int) -> tuple[int, bytes]:
    """Status and body, asked for in a thread, so that progress shows and Ctrl-C is heard."""
    answer: list[tuple[int, bytes]] = []
    problem: list[Exception] = []
    token = request.token or os.environ.get(TOKEN) or ""

    def ask() -> None:
        connection = http.client.HTTPConnection("pod", port)
        socket.settimeout(request.seconds + _GRACE)
        connection.sock = socket
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request("GET", f"{PATH}?seconds={request.seconds:g}", headers=headers)
            response = connection.getresponse()
            answer.append((response.status, response.read()))
        except (OSError, http.client.HTTPException) as error:
            problem.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive() and time.monotonic() - began < request.seconds + _GRACE:
        thread.join(0.2)
        request.tell(min(request.seconds, time.monotonic() - began))
    if not answer:
        why = str(problem[0]) if problem else "no answer in time"
        raise RungFailed(
            f"nothing answers at {PATH} ({why or type(problem[0]).__name__})",
            _OFF,
        )
    return answer[0]
