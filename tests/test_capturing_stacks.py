"""The sampler's spool -> samples, stacks, frames and events."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ragprof import recording
from ragprof.capturing import outside
from ragprof.capturing.services import Services
from ragprof.capturing.stacks import FREE, Dictionary, Spool, free
from ragprof.journal import Journal
from ragprof.sources.series import SeriesDictionary

T = 1_700_000_000_000_000_000
TRACE, SPAN = "a" * 32, "b" * 16


class Rig:
    """A spool with two processes that use the same ids for different things."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "spool"
        self.folder.mkdir()
        self.out = folder / "r.ragprof"
        self.journal = Journal(self.out)
        self.services = Services(lambda *change: None)
        self.taken = 0
        self.spool = Spool(
            self.folder,
            self.journal,
            SeriesDictionary(lambda rows: self.journal.append("series", rows)),
            self.services,
            Dictionary(),
            threading.Lock(),
            taken=self.count,
        )

    def count(self, samples: int) -> None:
        self.taken += samples

    def write(self, pid: int, *lines: dict[str, Any] | bytes) -> None:
        with (self.folder / f"{pid}-1.jsonl").open("ab") as file:
            for line in lines:
                file.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def close(self) -> recording.Recording:
        self.spool.poll()
        self.journal.close()
        return recording.open(self.out)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def process(pid: int, service: str = "") -> dict[str, Any]:
    return {"type": "process", "pid": pid, "start_ns": T, "service": service, "hz": 100}


def frames(*rows: list[Any]) -> dict[str, Any]:
    return {"type": "frames", "rows": list(rows)}


def samples(stack_ids: list[int], **columns: list[Any]) -> dict[str, Any]:
    count = len(stack_ids)
    base: dict[str, list[Any]] = {
        "time": [T + i for i in range(count)],
        "weight_ns": [10] * count,
        "stack_id": stack_ids,
        "thread": [1] * count,
        "task": [0] * count,
        "state": ["running"] * count,
        "wait": [""] * count,
        "trace_id": [TRACE] * count,
        "span_id": [SPAN] * count,
    }
    return {"type": "samples", "columns": {**base, **columns}}


def test_ids_of_processes_are_renumbered(rig: Rig) -> None:
    shared = ["app", "shared", "/app.py", 1, "app"]
    rig.write(
        1,
        process(1, "one"),
        frames([0, *shared], [1, "app", "first", "/app.py", 5, "app"]),
        {"type": "stacks", "rows": [[0, [0, 1], [2, 6]]]},
        samples([0, 0]),
    )
    rig.write(
        2,
        process(2, "two"),
        frames([0, "lib", "second", "/lib.py", 9, "library"], [1, *shared]),
        {"type": "stacks", "rows": [[0, [1, 0], [2, 10]], [1, [1], [3]]]},
        samples([0, 1]),
    )
    rec = rig.close()
    assert rig.taken == 4
    names = dict(zip(*rec.to_pandas("frames")[["frame_id", "function"]].values.T, strict=True))
    assert sorted(names.values()) == ["app:first", "app:shared", "lib:second"]
    by_id = {row.stack_id: row for row in rec.to_pandas("stacks").itertuples()}
    seen = sorted(
        (row.service, row.process, [names[each] for each in by_id[row.stack_id].frame_ids],
         list(by_id[row.stack_id].lines))
        for row in rec.to_pandas("samples").itertuples()
    )  # fmt: skip
    assert seen == [
        ("one", 1, ["app:shared", "app:first"], [2, 6]),
        ("one", 1, ["app:shared", "app:first"], [2, 6]),
        ("two", 2, ["app:shared"], [3]),
        ("two", 2, ["app:shared", "lib:second"], [2, 10]),
    ]


def test_half_written_lines_wait_for_their_rest(rig: Rig) -> None:
    rig.write(1, process(1, "one"), frames([0, "m", "f", "/m.py", 1, "app"]))
    line = json.dumps({"type": "stacks", "rows": [[0, [0], [1]]]}).encode() + b"\n"
    for part in (line[:10], line[10:20], line[20:]):
        rig.write(1, part)
        rig.spool.poll()
    rig.write(1, samples([0]))
    rig.spool.poll()
    assert rig.taken == 1
    rig.write(1, b'{"type": "samples", "colu')
    rec = rig.close()
    assert rec.manifest["refused"] == {}


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\n",
        b"[]\n",
        b'{"type": "samples"}\n',
        b'{"type": "stacks", "rows": [[0, [99], [1]]]}\n',
        json.dumps(samples([99])).encode() + b"\n",
        json.dumps(samples([0], time=[])).encode() + b"\n",
    ],
)
def test_damaged_lines_are_counted_and_the_rest_is_read(rig: Rig, line: bytes) -> None:
    rig.write(1, process(1, "one"), frames([0, "m", "f", "/m.py", 1, "app"]))
    rig.write(1, {"type": "stacks", "rows": [[0, [0], [1]]]}, line, samples([0]))
    rec = rig.close()
    assert rig.taken == 1
    assert rec.manifest["refused"] == {"line of the sampler that cannot be read": 1}


def test_points_are_events_with_service_and_process(rig: Rig) -> None:
    rig.write(
        1,
        process(1, "one"),
        {"type": "points", "rows": [[T, "python.gc.pause", 0.02, {"generation": 2}]]},
        {"type": "stats", "samples": 0, "cost_seconds": 0.5, "disabled": "SIGALRM is taken"},
    )
    rig.spool.poll()
    assert rig.spool.processes()[1]["disabled"] == "SIGALRM is taken"
    rec = rig.close()
    (series,) = rec.to_pandas("series").itertuples()
    assert (series.name, series.type, series.unit) == ("python.gc.pause", "event", "s")
    assert series.labels == {"generation": "2", "process": "1", "service": "one"}
    assert rec.to_pandas("metrics").value.tolist() == [0.02]


def test_samples_take_the_name_of_their_service_as_soon_as_it_is_known(rig: Rig) -> None:
    rig.write(7, process(7), frames([0, "m", "f", "/m.py", 1, "app"]))
    rig.write(7, {"type": "stacks", "rows": [[0, [0], [1]]]}, samples([0]))
    rig.spool.poll()
    rig.services.resource_seen({"service.name": "late", "process.pid": "7"}, 0)
    rig.write(7, samples([0]))
    rig.spool.poll()
    assert rig.taken == 2
    assert sorted(rig.close().to_pandas("samples").service) == ["", "late"]


def test_services_are_told_from_resources_then_relatives_then_versions_flip() -> None:
    flips: list[tuple[Any, ...]] = []
    services = Services(lambda *flip: flips.append(flip))
    services.started(10, "")
    services.below(10, [10, 11, 12])
    assert services.of(11) == ""
    services.resource_seen({"service.name": "api", "service.version": "1"}, 11)
    assert (services.of(11), services.of(10), services.of(12)) == ("api", "api", "api")
    assert services.of(99) == ""
    services.resource_seen({"service.name": "worker"}, 12)
    assert services.of(10) == ""  # two candidates: no guess
    services.resource_seen({"service.name": "api", "service.version": "2"}, 11)
    services.resource_seen({"service.name": "api", "service.version": "2"}, 11)
    assert flips == [("api", 11, "1", "2")]


def event(kind: str, name: str, at: int, line: int = 1, file: str = "/a.py") -> dict[str, Any]:
    return {"ph": kind, "name": name, "ts": at, "pid": 1, "tid": 2,
            "args": {"filename": file, "line": line}}  # fmt: skip


def test_py_spy_events_become_intervals_that_sum_to_the_time_on_cpu() -> None:
    events = [
        event("B", "process 1", 100, file=""),
        event("B", "main", 100),
        event("B", "work", 100, 7),
        event("E", "work", 130, 7),
        event("E", "main", 150),
        event("B", "main", 500),
        event("E", "main", 510),
    ]
    found = list(outside.intervals(events))
    assert [(start, end, [name for name, _, _ in stack]) for start, end, _, _, stack in found] == [
        (100, 130, ["main", "work"]),
        (130, 150, ["main"]),
        (500, 510, ["main"]),
    ]


@pytest.mark.parametrize(
    ("file", "module", "origin"),
    [
        ("/srv/app/search.py", "search", "app"),
        ("/v/lib/python3.11/site-packages/numpy/core/__init__.py", "numpy.core", "library"),
        ("/usr/lib/python3.12/asyncio/events.py", "asyncio.events", "stdlib"),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap", "stdlib"),
    ],
)
def test_modules_are_told_from_paths(file: str, module: str, origin: str) -> None:
    assert (outside.module(file), outside.origin(file)) == (module, origin)


def test_what_was_read_takes_no_room_and_the_rest_is_read_on(rig: Rig, tmp_path: Path) -> None:
    batch = samples([0] * 10_000)
    stack = {"type": "stacks", "rows": [[0, [0], [1]]]}
    rig.write(1, process(1, "one"), frames([0, "m", "f", "/m.py", 1, "app"]), stack, batch)
    file = rig.folder / "1-1.jsonl"
    size = file.stat().st_size
    assert size > FREE
    rig.spool.poll()
    assert file.stat().st_size == size
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(FREE))
    if free(probe, FREE):
        assert file.stat().st_blocks * 512 < 1 << 16
    rig.write(1, samples([0] * 5))
    assert rig.close().table("samples").num_rows == 10_005
    assert rig.taken == 10_005
