"""The demo on stage: its two services started, a healthy window of load, the fault, another window.

The processes are started by a function, so that the same play runs recorded or on its own.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import httpx

from ragprof.demo import faults
from ragprof.demo.load import MIXES
from ragprof.errors import RagprofError

READY_SECONDS = 180  # the first start on a machine embeds the corpus
LEAD_SECONDS = 3.0  # from the load's start to its first request: imports and warm-up
ASKED_BEFORE_SECONDS = 0.4  # for each question that was asked before the load begins
DEPLOY_SECONDS = 4.0  # from the mark of a healthy deploy to the fault
# One BLAS thread: more would compete with the event loop for the machine's cores.
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Process(Protocol):
    """What the stage needs of a started process."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...


Start = Callable[[Sequence[str], Mapping[str, str], str], Process]
"""Starts (command, additional environment, service name)."""

Mark = Callable[[str, str, str], None]
"""Notes a change (text, kind, service)."""


@dataclass(frozen=True)
class Stage:
    """The running demo: base URLs, the token of the admin calls, the process id of rag-api."""

    api: str
    reference: str
    token: str
    pid: int


@dataclass(frozen=True)
class Played:
    """What happened: the truth, and each request as the load saw it."""

    truth: dict[str, Any]
    requests: list[dict[str, Any]]


@contextmanager
def plain_start() -> Iterator[Start]:
    """Start processes without recording them; they end with the context."""
    children: list[subprocess.Popen[bytes]] = []

    def start(command: Sequence[str], env: Mapping[str, str], service: str) -> Process:
        child = subprocess.Popen(
            list(command),
            env={**os.environ, **env, "OTEL_SERVICE_NAME": service},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        children.append(child)
        return child

    try:
        yield start
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(20)


def open_stage(start: Start) -> Stage:
    """Start rag-reference and rag-api and wait until both answer."""
    token = secrets.token_hex(16)
    ports = _free_ports(2)
    reference, api = (f"http://127.0.0.1:{port}" for port in ports)
    env = {**ONE_THREAD, "RAGPROF_DEMO_TOKEN": token, "RAGPROF_DEMO_REFERENCE": reference}
    children = [
        start(_uvicorn(application, port), env, service)
        for application, port, service in (
            ("ragprof.demo.reference:create_app", ports[0], "rag-reference"),
            ("ragprof.demo.app:create_app", ports[1], "rag-api"),
        )
    ]
    for url, child, service in zip(
        (reference, api), children, ("rag-reference", "rag-api"), strict=True
    ):
        _wait_until_ready(url, child, service)
    return Stage(api, reference, token, children[1].pid)


def _uvicorn(application: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", application),
        *("--host", "127.0.0.1", "--port", str(port), "--no-access-log"),
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait_until_ready(url: str, child: Process, service: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if child.returncode is not None or getattr(child, "poll", lambda: None)() is not None:
            raise RagprofError(
                f"{service} ended with code {child.returncode} while starting; its last log "
                "lines say why."
            )
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RagprofError(f"{service} was not ready within {READY_SECONDS} s; see its log lines.")


def play(
    stage: Stage,
    fault: faults.Fault,
    seed: int,
    seconds: float,
    module: tuple[Path, str] | None = None,
    say: Callable[[str], None] = lambda text: None,
    mark: Mark = lambda text, kind, service: None,
) -> Played:
    """Two windows of `seconds`: healthy, then with the fault (or somebody's own, `module`)."""
    told = _start_fault(stage, fault, module) if fault.standing else None
    asked_before = MIXES[fault.healthy_load].popular
    begin = time.time() + LEAD_SECONDS + ASKED_BEFORE_SECONDS * asked_before
    command = [
        *(sys.executable, "-m", "ragprof.demo.load", stage.api),
        *("--seed", str(seed), "--healthy", str(seconds), "--faulty", str(seconds)),
        *("--healthy-mix", fault.healthy_load, "--mix", fault.load, "--begin", repr(begin)),
    ]
    beside = fault.beside(stage.pid) if fault.beside else nullcontext(lambda: None)
    load = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **ONE_THREAD})
    try:
        with beside as start_beside:
            say(f"healthy for {seconds:g} s")
            if fault.deploy:
                _sleep_until(begin + seconds - DEPLOY_SECONDS)
                mark(fault.deploy, "deploy", "rag-api")
            _sleep_until(begin + seconds)
            if not fault.standing:
                told = _start_fault(stage, fault, module)
            start_beside()
            changed = time.time()
            say(f"{fault.name} for {seconds:g} s")
            output, _ = load.communicate(timeout=seconds + 90)
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()
    if load.returncode != 0:
        raise RagprofError(f"The load ended with code {load.returncode}; its error is above.")
    truth = _truth(fault, told, module is not None) | {
        "fault": fault.name,
        "seed": seed,
        "windows": {
            "healthy": [_iso(begin), _iso(begin + seconds)],
            "faulty": [_iso(changed), _iso(time.time())],
        },
    }
    requests = json.loads(output)
    return Played(truth | {"effect": effect(requests, seconds)}, requests)


def _truth(fault: faults.Fault, told: dict[str, Any] | None, foreign: bool) -> dict[str, Any]:
    """The truth of a fault as plain data; that which the fault returned itself wins."""
    known = asdict(fault.truth or faults.Truth("", ""))
    known["verdict"] = "" if foreign else "cause_found" if fault.truth else "no_cause_found"
    return {**known, **(told or {})}


def _start_fault(
    stage: Stage, fault: faults.Fault, module: tuple[Path, str] | None
) -> dict[str, Any] | None:
    asked = (
        {"path": str(module[0].resolve()), "function": module[1]}
        if module
        else {"name": fault.name}
    )
    response = httpx.post(
        f"{stage.api}/admin/fault",
        json=asked,
        headers={"Authorization": f"Bearer {stage.token}"},
        timeout=30,
    )
    if response.status_code != 200:
        raise RagprofError(f"The fault was not started: {response.json().get('detail')}")
    told: dict[str, Any] | None = response.json()["truth"]
    return told


def effect(requests: Sequence[Mapping[str, Any]], boundary: float) -> dict[str, float | int]:
    """p50 and p95 in ms of `/api/v1/ask` before and after `boundary` (s), as the load saw it."""
    result: dict[str, float | int] = {}
    for name, group in (
        ("healthy", [r for r in requests if r["at"] < boundary]),
        ("faulty", [r for r in requests if r["at"] >= boundary]),
    ):
        times = [r["milliseconds"] for r in group if r["path"] == "/api/v1/ask"]
        cuts = statistics.quantiles(times, n=20) if len(times) > 1 else [0.0] * 19
        result |= {
            f"{name}_requests": len(times),
            f"{name}_p50_ms": round(cuts[9], 1),
            f"{name}_p95_ms": round(cuts[18], 1),
            f"{name}_failed": sum(r["status"] not in (200, 404) for r in group),
        }
    return result


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
