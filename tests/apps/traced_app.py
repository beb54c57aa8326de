"""An ordinary FastAPI service, traced by itself or by `opentelemetry-instrument`."""

import asyncio
import json
import logging
import os
import sys
import time

import uvicorn
from fastapi import FastAPI, Response
from opentelemetry import metrics, trace
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

if type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider":
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))

tracer = trace.get_tracer("traced_app")
handled = metrics.get_meter("traced_app").create_counter("app.handled", unit="{request}")
registry = CollectorRegistry()
seconds = Histogram("app_work_seconds", "time of /work", registry=registry)
app = FastAPI()


@app.get("/work")
async def work() -> dict[str, int]:
    began = time.perf_counter()
    with tracer.start_as_current_span("work") as span:
        ids = span.get_span_context()
        trace_id = f"{ids.trace_id:032x}"
        await asyncio.sleep(0.01)
        compute(0.04)
        handled.add(1)
        seconds.observe(
            time.perf_counter() - began, {"trace_id": trace_id, "span_id": f"{ids.span_id:016x}"}
        )
        line = {"event": "worked", "level": "warning", "trace_id": trace_id, "n": 1}
        print(json.dumps(line), flush=True)
    return {"pid": os.getpid()}


@app.get("/threaded")
def threaded() -> dict[str, int]:
    with tracer.start_as_current_span("threaded"):
        compute(0.02)
        handled.add(1)
    return {"pid": os.getpid()}


@app.get("/metrics")
def exposed() -> Response:
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def compute(cpu_seconds: float) -> int:
    """CPU time, so that a busy machine changes nothing of what there is to sample."""
    end, total = time.thread_time() + cpu_seconds, 0
    while time.thread_time() < end:
        total += sum(range(200))
    return total


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app, port=int(sys.argv[1]), loop=sys.argv[2] if len(sys.argv) > 2 else "asyncio")
