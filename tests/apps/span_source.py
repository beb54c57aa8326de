"""Sends numbered spans for ever: one a millisecond or so, through the ordinary exporter."""

import time

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=100))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("span_source")
print("ready", flush=True)
for number in range(10_000_000):
    with tracer.start_as_current_span("tick") as span:
        span.set_attribute("number", number)
    if number % 10 == 0:
        time.sleep(0.01)
