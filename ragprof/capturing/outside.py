"""Stacks by py-spy from outside, where the in-process sampler did not start.

Only threads on a CPU are seen, and no sample knows its trace: they are unattributed, and the
manifest says so. Written from py-spy's Chrome trace format, the one that keeps times.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ragprof.capturing import processes
from ragprof.capturing.services import Services
from ragprof.capturing.stacks import Dictionary
from ragprof.journal import Journal
from ragprof.manifest import RecordingError
from ragprof.profiles.places import module, origin
from ragprof.profiling.pyspy import program
from ragprof.sources.otlp import table
from ragprof.tables import SAMPLES

CHUNK = 1  # seconds of one py-spy run, and so what kill -9 can lose

Frame = tuple[str, str, int]  # function, file, running line
Seen = tuple[int, int, int, int, list[Frame]]  # from us, to us, process, thread, stack


class OutsideSampler:
    """Samples one process and its children with py-spy, in a thread, until `stop`.

    `problem` says why nothing more comes, in a sentence, or is empty.
    """

    def __init__(
        self,
        pid: int,
        hz: float,
        journal: Journal,
        services: Services,
        dictionary: Dictionary,
        lock: threading.Lock,
        taken: Callable[[int], None] = lambda samples: None,
    ) -> None:
        self.pid, self.hz = pid, hz
        self.samples = 0
        self.problem = ""
        self._journal, self._services, self._taken = journal, services, taken
        self._dictionary, self._lock = dictionary, lock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ragprof-outside", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(CHUNK + 5)

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "kind": "py-spy",
            "pid": self.pid,
            "asked_hz": self.hz,
            "samples": self.samples,
            "attributed": False,
            "problem": self.problem,
        }

    def _run(self) -> None:
        found = program()
        if found is None:
            self.problem = "py-spy is not installed: no stacks; install ragprof[lab]"
            return
        with tempfile.TemporaryDirectory(prefix="ragprof-py-spy-") as folder:
            while not self._stop.is_set() and not self.problem:
                self._chunk(found, Path(folder) / "trace.json")

    def _chunk(self, found: str, out: Path) -> None:
        out.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                found, "record", "--pid", str(self.pid), "--rate", f"{max(1, round(self.hz))}",
                "--duration", str(CHUNK), "--format", "chrometrace", "--subprocesses",
                "--output", str(out),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # the terminal's Ctrl-C is not for it
        )  # fmt: skip
        assert process.stderr is not None
        began, said = 0, []
        for line in process.stderr:
            if not began and "Sampling process" in line:
                began = time.time_ns()
            said.append(line.strip())
        process.wait()
        if not out.exists():
            if self.samples and not processes.tree([self.pid]):
                self._stop.set()  # it has ended
                return
            message = " ".join(line for line in said if "rror" in line)[:300]
            self.problem = (
                f"py-spy could not read process {self.pid} ({message or 'it has ended'}): no "
                "stacks; it needs the same user and the right to trace (SYS_PTRACE)"
            )
            return
        try:
            self._write(began or time.time_ns(), json.loads(out.read_bytes() or b"[]"))
        except (ValueError, KeyError, TypeError):
            self._journal.refuse("py-spy chunk that cannot be read")

    def _write(self, began: int, events: list[dict[str, Any]]) -> None:
        step = max(1, round(1_000_000 / self.hz))
        columns: dict[str, list[Any]] = {
            name: [] for name in SAMPLES.names if not name.endswith(("_key", "_id"))
        }
        columns["stack_id"] = []
        with self._lock:
            for start, end, pid, thread, stack in intervals(events):
                frames = [
                    self._dictionary.frame(module(file), name, file, 0, origin(file))
                    for name, file, _ in stack
                ]
                stack_id = self._dictionary.stack(frames, [line for _, _, line in stack])
                service = self._services.of(pid)
                for at in range(start, end, step):
                    columns["time"].append(began + at * 1000)
                    columns["weight_ns"].append(min(step, end - at) * 1000)
                    columns["stack_id"].append(stack_id)
                    columns["service"].append(service)
                    columns["process"].append(pid)
                    columns["thread"].append(thread)
                    columns["task"].append(0)
                    columns["state"].append("running")
                    columns["wait"].append("")
            count = len(columns["time"])
            try:
                self._dictionary.write(self._journal)
                if count:
                    self._journal.append("samples", table(SAMPLES, columns))
            except RecordingError:
                self._journal.refuse("sample that could not be written", count)
                return
        self.samples += count
        self._taken(count)


def intervals(events: list[dict[str, Any]]) -> Iterator[Seen]:
    """Begin and end events of py-spy as intervals in which one stack stayed the same."""
    stacks: dict[tuple[int, int], list[Frame]] = {}
    since: dict[tuple[int, int], int] = {}
    for event in events:
        if event.get("ph") not in ("B", "E"):
            continue
        key, now = (int(event["pid"]), int(event["tid"])), int(event["ts"])
        stack = stacks.setdefault(key, [])
        if stack and now > since[key]:
            yield since[key], now, *key, list(stack)
        since[key] = now
        if not event["args"]["filename"]:  # the frame that py-spy adds for the process itself
            continue
        if event["ph"] == "B":
            place = event["args"]
            stack.append((str(event["name"]), str(place["filename"]), int(place["line"] or 0)))
        elif stack:
            stack.pop()
