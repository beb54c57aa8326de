"""A service's log file by rsyslog into Elasticsearch, captured: each line is there as written."""

from __future__ import annotations

import io
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import log_shipping
from backends.servers import Server
from opentelemetry.sdk.trace import TracerProvider

import ragprof as rp
from ragprof.capturing import loglines
from ragprof.rows import conform
from ragprof.service.logging import EventLogger, setup_logging

LINES = 30


def service_lines() -> list[str]:
    """Lines as the service's own pipeline writes them, most of them within a span."""
    out, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    tracer = TracerProvider().get_tracer("test")
    try:
        setup_logging(json_logs=True, stream=out)
        events = EventLogger("ragprof.test")
        for number in range(LINES):
            with tracer.start_as_current_span("request"):
                events.log_search_performed(f"q{number}", 'why "slow"? é\n', "hybrid", 5, 0.5, 12.5)
        try:
            raise ValueError("no such document")
        except ValueError:
            logging.getLogger("ragprof.test").exception("request_failed")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    return out.getvalue().splitlines()


def test_each_line_of_the_file_is_in_the_recording(
    tmp_path: Path, rsyslog: Callable[[str], Server], elasticsearch9: Server
) -> None:
    name = f"rag-system-captured{secrets.token_hex(4)}"
    log_shipping.template(elasticsearch9, name)
    lines = service_lines()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rag-api.log").write_text("\n".join(lines) + "\n")
    rsyslog(log_shipping.config(tmp_path, elasticsearch9, name))
    log_shipping.wait_for(elasticsearch9, name, len(lines))
    settings = {"url": elasticsearch9.url, "logs": f"{name}-*", "spans": []}
    recording = rp.capture(
        {"sources": {"elasticsearch": settings}}, since="10m", out=tmp_path / "a.ragprof"
    )
    rows = recording.dataset("logs").to_table().to_pylist()
    written = [loglines.row(line, time.time_ns(), "", "stdout") for line in lines]
    wanted = conform("logs", written).to_pylist()
    assert sorted(map(log_shipping.said, rows)) == sorted(map(log_shipping.said, wanted))
    assert recording.manifest["coverage"]["logs_with_trace_id"] == LINES
