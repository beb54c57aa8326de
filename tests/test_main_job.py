"""The main job as people run it: a service, a fault, a Recording, a finding, a report."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jsonschema
import pytest

import ragprof as rp

ROOT = Path(__file__).parent.parent
BIN = Path(sys.prefix) / "bin"
FOREIGN = Path(__file__).parent / "foreign"
PRODUCTS = (
    "recording.ragprof",
    "findings.json",
    "report.ipynb",
    "report.html",
    "summary.md",
    "truth.json",
)
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def demo(out: Path, *words: str) -> str:
    done = subprocess.run(
        [BIN / "ragprof", "demo", "--seed", "1", "--out", out, *words],
        cwd=out.parent,
        capture_output=True,
        text=True,
        timeout=360,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert all((out / name).exists() for name in PRODUCTS)
    assert (out / "report.html").stat().st_size < 3 * 2**20
    assert rp.open(out / "recording.ragprof").verify() == []
    return done.stdout


def findings(out: Path) -> dict:
    found = json.loads((out / "findings.json").read_text())
    schema = ROOT / "ragprof" / "investigation" / "findings.schema.json"
    jsonschema.validate(found, json.loads(schema.read_text()))
    return found


def assert_first(found: dict, truth: dict) -> None:
    assert found["verdict"] == "cause_found"
    first = found["findings"][0]
    assert (first["stage"], first["kind"]) == (truth["stage"], truth["kind"])
    assert first["function"] in truth["functions"] or (
        truth.get("resource") and first["resource"] == truth["resource"]
    )
    assert first["added_ms"] > 0


@pytest.mark.parametrize("fault", ["blocking_call", "padded_batch", "slow_downstream"])
def test_fault_is_named(fault: str, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo(out, "--fault", fault)
    assert_first(findings(out), json.loads((out / "truth.json").read_text()))


def test_no_fault_no_cause(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = demo(out, "--fault", "none")
    assert findings(out)["verdict"] == "no_cause_found"
    assert "no cause found" in said.lower()


def test_somebody_elses_fault(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo(out, "--fault-module", f"{FOREIGN / 'own_faults.py'}:near_duplicates")
    assert_first(findings(out), json.loads((out / "truth.json").read_text()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_answering(url: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_foreign_service(tmp_path: Path) -> None:
    """An ordinary FastAPI application, which does not know ragprof, with a mistake of its own."""
    port, fault, out = free_port(), tmp_path / "fault.txt", tmp_path / "shop.ragprof"
    url = f"http://127.0.0.1:{port}"
    serve = ["uvicorn", "bookshop:app", "--port", str(port), "--app-dir", str(FOREIGN)]
    recorder = subprocess.Popen(
        [BIN / "ragprof", "record", "--out", out, "--service", "bookshop", "--"]
        + [str(BIN / "opentelemetry-instrument"), *serve],
        cwd=tmp_path,
        env={
            **os.environ,
            "BOOKSHOP_FAULT": str(fault),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_answering(f"{url}/buy/1")
        visit = [sys.executable, str(FOREIGN / "visitors.py"), url, "15"]
        subprocess.run([*visit, "1"], check=True, timeout=60)
        fault.write_text("reparse")
        subprocess.run([*visit, "2"], check=True, timeout=60)
    finally:
        recorder.send_signal(signal.SIGINT)
        _, said = recorder.communicate(timeout=60)
    assert rp.open(out).verify() == [], said
    subprocess.run(
        [BIN / "ragprof", "investigate", out, "--out", tmp_path / "found"], check=True, timeout=120
    )
    found = findings(tmp_path / "found")
    assert found["verdict"] == "cause_found"
    first = found["findings"][0]
    # The parser runs in the event loop: both names for that are right.
    assert first["kind"] in ("cpu", "blocked_loop")
    assert first["function"] in ("bookshop:load_books", "bookshop:matching")
    assert first["service"] == "bookshop"
