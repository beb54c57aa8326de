"""The light core's wheel in a bare environment: it serves metrics, logs and traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import receiving, wait_for

ROOT = Path(__file__).parent.parent
UV = Path(sys.prefix) / "bin" / "uv"
ABSENT = (
    "pandas", "pyarrow", "duckdb", "numpy", "IPython", "matplotlib", "fastapi", "starlette",
    "uvicorn", "httpx", "grpc",
)  # fmt: skip

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SERVICE = """
import asyncio, pkgutil, sys
from ragprof.service import instrument
from ragprof.service.metrics import BusinessMetrics
from ragprof.service.operations import retrieval

async def app(scope, receive, send):
    with retrieval("why was it slow?", "hybrid", 5) as search:
        search.results(3, [0.9, 0.8, 0.7])
    BusinessMetrics.record_search_performed("hybrid", "small", 0.1, results=3, relevance=0.8)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"found"})

app = instrument(app, "bare-service", endpoint=lambda scope: "/search")

async def get(path, accept=b""):
    body = b""
    async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        nonlocal body
        body += message.get("body", b"")
    await app({"type": "http", "method": "GET", "path": path, "query_string": b"", "root_path": "",
        "headers": [(b"accept", accept)], "client": ("192.0.2.1", 1), "server": ("x", 80),
        "scheme": "http"}, receive, send)
    return body.decode()

async def main():
    await get("/search")
    print(await get("/metrics", b"application/openmetrics-text; version=1.0.0"))
asyncio.run(main())
absent = %r
print("PRESENT", [m.name for m in pkgutil.iter_modules() if m.name in absent])
"""


def test_the_light_core_serves_metrics_logs_and_traces(tmp_path: Path) -> None:
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith("OTEL_")
    }

    def run(*words: object, **environment: str) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=tmp_path,
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{words[:3]}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    run(UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", ROOT)
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "bare")
    python = tmp_path / "bare" / "bin" / "python"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    pins = ROOT / "requirements" / "dev.txt"
    run(UV, "pip", "install", "--quiet", "--python", python, "-c", pins, wheel)
    with receiving() as receiver:
        said = run(python, "-c", SERVICE % (ABSENT,), OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        spans = wait_for(lambda: len(receiver.spans) >= 2 and receiver.spans, "two spans")
    assert "PRESENT []" in said

    search = next(span for span in spans if span["name"] == "rag.retrieval.search")
    server = next(span for span in spans if span["kind"] == 2)
    assert server["trace_id"] == search["trace_id"]
    assert server["resource"]["service.name"] == "bare-service"

    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["request_started", "request_completed"]
    assert {line["trace_id"] for line in lines} == {search["trace_id"]}

    counted = 'rag_http_requests_total{endpoint="/search",method="GET",status_code="200"} 1.0'
    assert counted in said
    assert 'rag_search_queries_total{strategy="hybrid",user_type="api"} 1.0' in said
    assert f'trace_id="{search["trace_id"]}"' in said  # an exemplar
