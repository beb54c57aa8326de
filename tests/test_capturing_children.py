"""Real services under the recorder: every way of starting them that people use."""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from ragprof import recording
from ragprof.capturing.recorder import Recorder

APPS = Path(__file__).parent / "apps"
BIN = Path(sys.executable).parent
REQUESTS = 8

COMMANDS = {
    "script": "{python} traced_app.py {port}",
    "script-uvloop": "{python} traced_app.py {port} uvloop",
    "module": "{python} -m uvicorn traced_app:app --port {port}",
    "instrumented": "{bin}/opentelemetry-instrument {bin}/uvicorn traced_app:app --port {port}",
    "workers": "{bin}/uvicorn traced_app:app --port {port} --workers 2",
    "reload": "{bin}/uvicorn traced_app:app --port {port} --reload --loop asyncio",
    "gunicorn": "{bin}/gunicorn traced_app:app -b 127.0.0.1:{port} -w 2 "
    "-k uvicorn.workers.UvicornWorker",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
        return json.loads(reply.read())


def wait_until_up(port: int, seconds: float = 150) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """All commands recorded at once: the Recording, exit codes, and who answered."""
    out = tmp_path_factory.mktemp("children") / "all.ragprof"
    ports = {name: free_port() for name in COMMANDS}
    answered: dict[str, set[int]] = {name: set() for name in COMMANDS}
    with Recorder(out, progress=False, echo=False) as recorder:
        children = {
            name: recorder.start(
                text.format(python=sys.executable, bin=BIN, port=ports[name]).split(),
                service=name,
                cwd=APPS,
            )
            for name, text in COMMANDS.items()
        }
        for port in ports.values():
            wait_until_up(port)
        recorder.scrape(f"http://127.0.0.1:{ports['script']}/metrics")
        for _ in range(REQUESTS):
            for name, port in ports.items():
                answered[name].add(get(port, "/work")["pid"])
                answered[name].add(get(port, "/threaded")["pid"])
        time.sleep(1.2)  # one more scrape
        codes = {name: child.stop() for name, child in children.items()}
    return {"recording": recording.open(out), "codes": codes, "answered": answered}


@pytest.mark.parametrize("name", COMMANDS)
def test_spans_of_every_request_arrive(recorded: dict[str, object], name: str) -> None:
    spans = recorded["recording"].to_pandas("spans")
    own = spans[spans.service == name]
    assert (own.name == "work").sum() == REQUESTS
    assert (own.name == "threaded").sum() == REQUESTS


@pytest.mark.parametrize("name", COMMANDS)
def test_log_lines_carry_their_trace(recorded: dict[str, object], name: str) -> None:
    rec = recorded["recording"]
    spans, logs = rec.to_pandas("spans"), rec.to_pandas("logs")
    worked = logs[(logs.service == name) & (logs.body == "worked")]
    assert len(worked) == REQUESTS
    assert set(worked.severity) == {"warn"}
    assert set(worked.trace_key) <= set(spans[spans.service == name].trace_key)


@pytest.mark.parametrize("name", COMMANDS)
def test_stacks_come_from_the_processes_that_answered(
    recorded: dict[str, object], name: str
) -> None:
    samples = recorded["recording"].to_pandas("samples")
    own = samples[samples.service == name]
    assert recorded["answered"][name] <= set(own.process)


@pytest.mark.parametrize("name", COMMANDS)
def test_running_samples_name_the_span_that_ran(recorded: dict[str, object], name: str) -> None:
    rec = recorded["recording"]
    spans, samples = rec.to_pandas("spans"), rec.to_pandas("samples")
    stacks, frames = rec.to_pandas("stacks"), rec.to_pandas("frames")
    compute = set(frames[frames.function.astype(str).str.endswith(":compute")].frame_id)
    in_compute = {
        row.stack_id for row in stacks.itertuples() if compute.intersection(row.frame_ids)
    }
    own = samples[(samples.service == name) & samples.stack_id.isin(in_compute)]
    labelled = own[own.span_id != ""]
    assert len(labelled) >= 3
    joined = labelled.merge(
        spans[["span_key", "start", "duration_ns"]], on="span_key", how="left"
    ).dropna()
    assert len(joined) == len(labelled)
    slack = pd.Timedelta("20ms")
    assert (joined.time >= joined.start - slack).all()
    ends = joined.start + pd.to_timedelta(joined.duration_ns, "ns")
    assert (joined.time <= ends + slack).all()


@pytest.mark.parametrize("name", COMMANDS)
def test_metrics_and_process_facts_are_labelled(recorded: dict[str, object], name: str) -> None:
    series = recorded["recording"].to_pandas("series")
    own = series[[labels.get("service") == name for labels in series.labels]]
    assert {"app.handled", "process.cpu.time", "process.memory.usage"} <= set(own.name)
    handled = own[own.name == "app.handled"]
    answered = {str(pid) for pid in recorded["answered"][name]}
    assert {labels["process"] for labels in handled.labels} == answered


def test_starts_and_ends_are_changes(recorded: dict[str, object]) -> None:
    changes = recorded["recording"].to_pandas("changes")
    for name, pids in recorded["answered"].items():
        events = {
            (row.attributes["process"], row.attributes["event"])
            for row in changes.itertuples()
            if "event" in row.attributes
        }
        for pid in pids:
            assert {(str(pid), "start"), (str(pid), "end")} <= events, name


def test_scraped_histogram_has_buckets_and_exemplars(recorded: dict[str, object]) -> None:
    rec = recorded["recording"]
    series, metrics = rec.to_pandas("series"), rec.to_pandas("metrics")
    own = series[series.name == "app_work_seconds"]
    assert len(own) == 1
    assert own.labels.iloc[0]["service"] == "script"
    points = metrics[metrics.series_id == own.series_id.iloc[0]]
    last = points.iloc[-1].histogram
    assert last["count"] == REQUESTS
    assert sum(last["counts"]) == REQUESTS
    exemplars = [each for row in points.exemplars if row is not None for each in row]
    spans = rec.to_pandas("spans")
    traces = set(spans[spans.service == "script"].trace_id)
    assert exemplars
    assert {each["trace_id"] for each in exemplars} <= traces


def test_they_end_as_asked(recorded: dict[str, object]) -> None:
    for name, code in recorded["codes"].items():
        assert code in (0, -2, 130, -15), (name, code)


def test_nothing_was_refused(recorded: dict[str, object]) -> None:
    # On a busy machine an exporter gives up waiting and sends again.
    refused = set(recorded["recording"].manifest["refused"])
    assert refused <= {"request that its client broke off"}
