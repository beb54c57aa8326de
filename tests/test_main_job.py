"""The main job as people run it: a service, a fault, a Recording, a finding, a report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from foreign import measure

import ragprof as rp

ROOT = Path(__file__).parent.parent
BIN = Path(sys.prefix) / "bin"
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


# The third fault, blocking_call, is recorded from the wheel in test_wheel.py.
@pytest.mark.parametrize("fault", ["padded_batch", "slow_downstream"])
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
    demo(out, "--fault-module", f"{measure.FOLDER / 'own_faults.py'}:near_duplicates")
    assert_first(findings(out), json.loads((out / "truth.json").read_text()))


def test_foreign_service(tmp_path: Path) -> None:
    """An ordinary FastAPI application, which does not know ragprof, with a mistake of its own."""
    recording = measure.record_shop("reparse", tmp_path)
    assert rp.open(recording).verify() == []
    found = measure.investigate(recording, tmp_path / "found")
    assert findings(tmp_path / "found") == found
    assert found["verdict"] == "cause_found"
    first = found["findings"][0]
    # Parsing in the event loop computes and blocks: both names for it are right.
    assert first["kind"] in ("cpu", "blocked_loop")
    assert first["function"] in ("bookshop:load_books", "bookshop:matching")
    assert first["service"] == "bookshop"
