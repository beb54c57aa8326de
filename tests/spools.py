"""Runs programs under the sampler and reads the spool files that they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / "ragprof" / "sampler" / "bootstrap"

# Every program of these tests can burn CPU and open spans.
PRELUDE = """
import asyncio, json, os, sys, threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    n = 0
    while time.thread_time() < end:
        for _ in range(500):
            n += 1
    return n
def tracer():
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
    return trace.get_tracer("test")
def run(main):
    if os.environ.get("LOOP") == "uvloop":
        import uvloop
        uvloop.run(main)
    else:
        asyncio.run(main)
"""


@dataclass
class Sample:
    time: int
    weight: float  # seconds
    functions: list[str]  # the outermost first
    thread: int
    task: int
    state: str
    wait: str
    label: tuple[str, str]


@dataclass
class SpoolFile:
    process: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    points: list[list[Any]] = field(default_factory=list)
    frames: dict[int, list[Any]] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)

    def of(self, function: str) -> list[Sample]:
        return [sample for sample in self.samples if function in sample.functions]

    def seconds(self, function: str, state: str = "", wait: str | None = None) -> float:
        return sum(
            sample.weight
            for sample in self.of(function)
            if (not state or sample.state == state) and (wait is None or sample.wait == wait)
        )

    def point(self, name: str) -> list[list[Any]]:
        return [point for point in self.points if point[1] == name]


def environment(spool: Path, **more: str) -> dict[str, str]:
    """The variables that a recorder sets, and nothing that a recorder around the tests set."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAGPROF_", "OTEL_")) and name != "PYTHONPATH"
    }
    return (
        mine
        | {
            "PYTHONPATH": str(BOOTSTRAP),
            "RAGPROF_SPOOL": str(spool),
            "RAGPROF_SAMPLER_BUDGET": "0.2",  # a busy machine must not thin the samples out
        }
        | more
    )


def run_program(
    folder: Path, source: str, *, arguments: Sequence[str] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a program under the sampler; its spool is `folder/spool`."""
    program = folder / "program.py"
    program.write_text(PRELUDE + source)
    return subprocess.run(
        [sys.executable, str(program), *arguments],
        env=environment(folder / "spool", **more),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def sampled(folder: Path, source: str, **more: str) -> SpoolFile:
    """The one spool file of a program that must end well and say nothing."""
    done = run_program(folder, source, **more)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (file,) = read_spools(folder / "spool")
    return file


def read_spools(spool: Path) -> list[SpoolFile]:
    """All spool files of a folder in the order of their starts."""
    files = [read_spool(path) for path in spool.glob("*.jsonl")]
    return sorted(files, key=lambda file: file.process["start_ns"])


def read_spool(path: Path) -> SpoolFile:
    lines = list(_lines(path))
    file = SpoolFile(lines[0])
    stacks: dict[int, list[int]] = {}
    for line in lines:
        if line["type"] == "frames":
            file.frames.update({row[0]: row for row in line["rows"]})
        elif line["type"] == "stacks":
            stacks.update({row[0]: row[1] for row in line["rows"]})
        elif line["type"] == "samples":
            file.samples.extend(_samples(line["columns"], stacks, file.frames))
        elif line["type"] == "points":
            file.points.extend(line["rows"])
        elif line["type"] == "stats":
            file.stats = line
    return file


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text().split("\n")[:-1]:  # the last line may be half-written
        yield json.loads(text)


def _samples(
    columns: Mapping[str, list[Any]], stacks: dict[int, list[int]], frames: dict[int, list[Any]]
) -> Iterator[Sample]:
    assert len({len(column) for column in columns.values()}) == 1
    for row in zip(*columns.values(), strict=True):
        value = dict(zip(columns, row, strict=True))
        yield Sample(
            time=value["time"],
            weight=value["weight_ns"] / 1e9,
            functions=[frames[frame][2] for frame in stacks[value["stack_id"]]],
            thread=value["thread"],
            task=value["task"],
            state=value["state"],
            wait=value["wait"],
            label=(value["trace_id"], value["span_id"]),
        )
