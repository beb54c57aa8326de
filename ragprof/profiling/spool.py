"""Lines of the in-process sampler, from memory or from spool files, as one Profile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ragprof.profiles.model import Frame, Label, Profile, ProfileBuilder
from ragprof.profiling.trimming import is_ours

LABELS = ("service", "process", "state", "wait", "trace_id", "span_id")
_TEXTS = ("state", "wait", "trace_id", "span_id")
_NUMBERS = ("time", "weight_ns", "stack_id", "thread", "task")


class SpoolProfile:
    """Collects lines of any number of processes; `build` makes the Profile of wall nanoseconds.

    Samples carry time, thread, task and the labels `LABELS`. Weight before ``since`` (ns since
    1970) is cut off: the first sample of a session reaches back to the look before it.
    """

    def __init__(self, name: str = "", since: int = 0) -> None:
        self._builder = ProfileBuilder(name=name)
        self._since = since
        self._files: dict[str, _Process] = {}
        self._ours: set[int] = set()  # frames of sessions
        self.bad_lines = 0

    def take(self, lines: Iterable[dict[str, Any]], file: str = "") -> None:
        """Lines of one process, in their order; ``file`` tells processes apart.

        A line that cannot be read is left out and counted in ``bad_lines``.
        """
        process = self._files.setdefault(file, _Process())
        for line in lines:
            try:
                self._take(process, line)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                self.bad_lines += 1

    def read(self, folder: Path) -> None:
        """All spool files of a folder; a last line that was cut off is left out."""
        for path in sorted(folder.glob("*.jsonl")):
            with path.open(encoding="utf-8", errors="replace") as stream:
                for text in stream:
                    if not text.endswith("\n"):
                        break
                    try:
                        line = json.loads(text)
                    except ValueError:
                        self.bad_lines += 1
                        continue
                    self.take([line], path.name)

    def build(self) -> Profile:
        """The Profile, with notes on rates, on what was missed and what sampling cost."""
        for process in self._files.values():
            self._add(process)
        for text in self._notes():
            self._builder.note(text)
        return self._builder.build()

    def _take(self, process: _Process, line: dict[str, Any]) -> None:
        kind = line["type"]
        if kind == "samples":
            columns = line["columns"]
            stacks = [process.stacks[number] for number in columns["stack_id"]]
            taken = {name: list(columns[name]) for name in (*_NUMBERS, *_TEXTS)}
            taken["stack_id"] = stacks
            if len({len(column) for column in taken.values()}) != 1:
                raise ValueError("columns of different lengths")
            for name, column in taken.items():
                process.columns[name] += column
        elif kind == "frames":
            for number, module, qualname, file, first_line, origin in line["rows"]:
                function = f"{module}:{qualname}" if module else qualname
                frame = Frame(function, module, file, first_line, origin)
                process.frames[number] = self._builder.frame(frame)
                if is_ours(frame):
                    self._ours.add(process.frames[number])
        elif kind == "stacks":
            for number, frames, lines in line["rows"]:
                path = [process.frames[frame] for frame in frames]
                kept = [at for at, frame in enumerate(path) if frame not in self._ours]
                process.stacks[number] = self._builder.stack(
                    [path[at] for at in kept], [lines[at] for at in kept]
                )
        elif kind == "stats":
            # A session that joins a sampler is told at once where its counters stand.
            if not process.stats and not process.columns["time"]:
                process.joined = line
            process.stats = line
        elif kind == "process":
            process.process = line

    def _add(self, process: _Process) -> None:
        columns = process.columns
        times = np.array(columns["time"], dtype=np.int64)
        weights = np.array(columns["weight_ns"], dtype=np.int64)
        weights = np.clip(weights, 0, np.maximum(times - self._since, 0))
        labels = {name: _label(columns[name]) for name in _TEXTS}
        pid = str(process.process.get("pid", ""))
        for name, text in (("process", pid), ("service", process.process.get("service", ""))):
            labels[name] = Label(np.zeros(len(times), dtype=np.int64), (str(text),))
        self._builder.samples(
            columns["stack_id"],
            weights,
            times=times,
            threads=columns["thread"],
            tasks=columns["task"],
            labels={name: labels[name] for name in LABELS},
        )

    def _notes(self) -> list[str]:
        notes = []
        for process in self._files.values():
            if not process.stats:
                continue
            last, first = process.stats, process.joined
            seconds = last["elapsed_seconds"] - first.get("elapsed_seconds", 0.0)
            who = f"process {process.process.get('pid', '?')}: "
            cost = (last["cost_seconds"] - first.get("cost_seconds", 0.0)) / max(seconds, 1e-9)
            notes.append(
                f"{who}sampled for {seconds:.2f} s at {last['asked_hz']:g} Hz, "
                f"effective {last['effective_hz']:.1f} Hz; sampling cost {cost:.2%} of one core"
            )
            for key, text in (
                ("missed", "looks were missed (a call of C code, a wait, or a busy host)"),
                ("lost", "samples did not fit into memory"),
                ("unsampled_threads", "threads could not be sampled"),
            ):
                count = last.get(key, 0) - first.get(key, 0)
                if count > 0:
                    notes.append(f"{who}{count} {text}")
            if last.get("disabled"):
                notes.append(f"{who}sampling ended early: {last['disabled']}")
        if self.bad_lines:
            notes.append(f"{self.bad_lines} lines of the sampler could not be read")
        return notes


class _Process:
    """What one process has told; frames and stacks under the builder's numbers."""

    def __init__(self) -> None:
        self.process: dict[str, Any] = {}
        self.joined: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self.frames: dict[int, int] = {}
        self.stacks: dict[int, int] = {}
        self.columns: dict[str, list[Any]] = {name: [] for name in (*_NUMBERS, *_TEXTS)}


def _label(texts: list[str]) -> Label:
    codes: dict[str, int] = {"": 0}
    column = [codes.setdefault(text, len(codes)) for text in texts]
    return Label(np.array(column, dtype=np.int64), tuple(codes))
