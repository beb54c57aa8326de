"""The exported traces pipeline of the OpenTelemetry Collector, run by one, into a real Jaeger."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import yaml
from backends import servers
from backends.servers import Server
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from ragprof.monitoring import collector


def test_log_files_have_the_paths_that_the_container_operator_takes() -> None:
    receiver = collector.config()["receivers"]["filelog"]
    [pattern] = receiver["include"]
    # The kubelet's layout: NAMESPACE_POD_UID/CONTAINER/RESTARTS.log
    uid = "0b0c34e4-3b3e-4d8a-9a35-6f1f1d0c8f11"
    assert fnmatch(f"/var/log/pods/rag-system_rag-api-0_{uid}/rag-api/0.log", pattern)
    assert receiver["include_file_path"]


def test_the_traces_pipeline_carries_spans_to_jaeger(tmp_path: Path, jaeger: Server) -> None:
    exported = collector.config(jaeger=f"127.0.0.1:{jaeger.ports.get('otlp_grpc', 4317)}")
    pipeline = exported["service"]["pipelines"]["traces"]

    def config(ports: Mapping[str, int]) -> str:
        """The components of the pipeline as exported, but for their addresses."""
        part: dict[str, Any] = {
            kind: {name: exported[kind][name] for name in names} for kind, names in pipeline.items()
        }
        for protocol, content in part["receivers"]["otlp"]["protocols"].items():
            content["endpoint"] = f"127.0.0.1:{ports[f'otlp_{protocol}']}"
        # Its own metrics would take a port.
        service = {"pipelines": {"traces": pipeline}, "telemetry": {"metrics": {"level": "none"}}}
        return str(yaml.safe_dump({**part, "service": service}))

    name = f"carried-{secrets.token_hex(4)}"
    with servers.start_collector(tmp_path / "collector", config) as server:
        url = f"http://127.0.0.1:{server.ports['otlp_http']}/v1/traces"
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=url)))
        with provider.get_tracer("test").start_as_current_span("carried"):
            pass
        provider.shutdown()

        def found() -> list[Any]:
            path = f"{jaeger.url}/api/traces?service={name}"
            answer = httpx.get(path, trust_env=False, timeout=60)
            traces: list[Any] = answer.json()["data"] if answer.status_code == 200 else []
            return traces

        # The batch processor waits for 10 s.
        assert servers.wait(lambda: bool(found()), 120), server.log()
        [trace] = found()
    assert [span["operationName"] for span in trace["spans"]] == ["carried"]
