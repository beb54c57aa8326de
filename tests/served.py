"""A test application under a real server, and a receiver for the spans that it exports."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

APPS = Path(__file__).parent / "apps"
DEADLINE = 120.0


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError, OSError):
            if value := condition():
                return value
        time.sleep(0.1)
    raise AssertionError(f"after {seconds:.0f} s: no {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    folder: Path,
    *command: str,
    ready: str = "/items/ready",
    deadline: float = DEADLINE,
    **environment: str,
) -> Iterator[Any]:
    """An httpx client of a server started as `python -m COMMAND`, with `{port}` filled in.

    stdout and stderr go to FOLDER/out and FOLDER/err.
    """
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env |= {"PYTHONPATH": f"{APPS}{os.pathsep}{APPS.parent.parent}", **environment}
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        server = subprocess.Popen(
            [sys.executable, "-m", *(word.format(port=port) for word in command)],
            env=env,
            stdout=out,
            stderr=err,
            cwd=folder,
        )
    try:
        # A connection per request: workers take turns, and no server closes one under us.
        limits = httpx.Limits(max_keepalive_connections=0)
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=60, limits=limits) as client:

            def answers() -> bool:
                assert server.poll() is None, (folder / "err").read_text()[-3000:]
                return client.get(ready).status_code < 500

            wait_for(answers, f"answer of {' '.join(command)}", deadline)
            yield client
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@dataclass
class Receiver:
    """Spans that came by OTLP over HTTP, as (name, kind, trace id, attributes, resource)."""

    url: str = ""
    spans: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _values(each.resource.attributes)
                for scope in each.scope_spans:
                    for span in scope.spans:
                        receiver.spans.append(
                            {
                                "name": span.name,
                                "kind": span.kind,
                                "trace_id": span.trace_id.hex(),
                                "parent": span.parent_span_id.hex(),
                                "scope": scope.scope.name,
                                "attributes": _values(span.attributes),
                                "resource": resource,
                            }
                        )
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def _values(attributes: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }
