"""Tails the in-process sampler's spool: frames, stacks and samples of all processes, one numbering.

Each process appends JSON lines to its own file; ids in it are its own and are renumbered here.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragprof.capturing.scrape import write_points
from ragprof.capturing.services import Services
from ragprof.journal import Journal
from ragprof.manifest import RecordingError
from ragprof.sources.otlp import table
from ragprof.sources.series import Series, SeriesDictionary, labels
from ragprof.tables import FRAMES, SAMPLES, STACKS

SAMPLE_COLUMNS = (
    "time", "weight_ns", "stack_id", "thread", "task", "state", "wait", "trace_id", "span_id",
)  # fmt: skip
READ = 4 << 20  # bytes of one file taken at a time
FREE = 1 << 20  # bytes that were read until their disk space is given back
_PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_fallocate = ctypes.CDLL(None).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Dictionary:
    """Frames and stacks of the Recording, numbered from 1; new ones wait in `frames`, `stacks`."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.stacks: list[dict[str, Any]] = []
        self._frame_ids: dict[tuple[Any, ...], int] = {}
        self._stack_ids: dict[tuple[Any, ...], int] = {}

    def frame(self, module: str, qualname: str, file: str, line: int, origin: str) -> int:
        key = (module, qualname, file, line, origin)
        number = self._frame_ids.get(key)
        if number is None:
            number = self._frame_ids[key] = len(self._frame_ids) + 1
            self.frames.append(
                {
                    "frame_id": number,
                    "function": f"{module}:{qualname}",
                    "module": module,
                    "file": file,
                    "line": line,
                    "origin": origin,
                }
            )
        return number

    def stack(self, frame_ids: list[int], lines: list[int]) -> int:
        key = (tuple(frame_ids), tuple(lines))
        number = self._stack_ids.get(key)
        if number is None:
            number = self._stack_ids[key] = len(self._stack_ids) + 1
            self.stacks.append({"stack_id": number, "frame_ids": frame_ids, "lines": lines})
        return number

    def write(self, journal: Journal) -> None:
        """Append what is new, frames before the stacks that name them."""
        for name, schema, rows in (
            ("frames", FRAMES, self.frames),
            ("stacks", STACKS, self.stacks),
        ):
            if rows:
                columns = {field: [row[field] for row in rows] for field in schema.names}
                journal.append(name, table(schema, columns))
                rows.clear()


def free(path: Path, size: int) -> bool:
    """Give back the disk space of the first `size` bytes, which then read as zeros.

    The file keeps its length, so that a process may append to it meanwhile. False when the file
    system has no holes, and keeps the space.
    """
    try:
        with path.open("r+b") as stream:
            return bool(_fallocate(stream.fileno(), _PUNCH_HOLE, 0, size) == 0)
    except OSError:
        return False


class _File:
    """What was read of one process's spool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.freed = 0
        self.rest = b""
        self.process: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self.frames: dict[int, int] = {}
        self.stacks: dict[int, int] = {}
        self.samples: list[dict[str, list[Any]]] = []
        self.points: list[list[Any]] = []
        self.bad_lines = 0

    @property
    def pid(self) -> int:
        return int(self.process.get("pid") or self.path.name.partition("-")[0] or 0)


class Spool:
    """Reads all files of a spool folder; `lock` guards the dictionary that it shares."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        series: SeriesDictionary,
        services: Services,
        dictionary: Dictionary,
        lock: threading.Lock,
        taken: Callable[[int], None] = lambda samples: None,
    ) -> None:
        self.folder = folder
        self._journal, self._series, self._services = journal, series, services
        self._dictionary, self._lock, self._taken = dictionary, lock, taken
        self._files: dict[str, _File] = {}

    def processes(self) -> dict[int, dict[str, Any]]:
        """By process id: what its sampler said of itself, its last statistics included."""
        return {file.pid: {**file.process, **file.stats} for file in self._files.values()}

    def poll(self) -> None:
        """Take what is new."""
        with self._lock:
            self._poll()

    def _poll(self) -> None:
        for path in sorted(self.folder.glob("*.jsonl")):
            file = self._files.setdefault(path.name, _File(path))
            more = True
            while more:
                more = self._read(file)
            if file.offset - file.freed >= FREE:
                free(path, file.offset)
                file.freed = file.offset
        for file in self._files.values():
            self._flush(file)

    def _read(self, file: _File) -> bool:
        try:
            with file.path.open("rb") as stream:
                stream.seek(file.offset)
                data = stream.read(READ)
        except OSError:
            return False
        file.offset += len(data)
        *lines, file.rest = (file.rest + data).split(b"\n")
        for line in lines:
            try:
                self._take(file, json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError):
                file.bad_lines += 1
                self._journal.refuse("line of the sampler that cannot be read")
        return len(data) == READ

    def _take(self, file: _File, line: dict[str, Any]) -> None:
        kind = line["type"]
        if kind == "samples":
            columns = line["columns"]
            taken = {name: columns[name] for name in SAMPLE_COLUMNS}
            taken["stack_id"] = [file.stacks[number] for number in columns["stack_id"]]
            if len({len(column) for column in taken.values()}) != 1:
                raise ValueError("columns of different lengths")
            file.samples.append(taken)
        elif kind == "frames":
            for number, module, qualname, source, first_line, origin in line["rows"]:
                file.frames[number] = self._dictionary.frame(
                    module, qualname, source, first_line, origin
                )
        elif kind == "stacks":
            for number, frames, lines in line["rows"]:
                ids = [file.frames[frame] for frame in frames]
                file.stacks[number] = self._dictionary.stack(ids, lines)
        elif kind == "points":
            file.points += line["rows"]
        elif kind == "stats":
            file.stats = {key: value for key, value in line.items() if key != "type"}
        elif kind == "process":
            file.process = {key: value for key, value in line.items() if key != "type"}
            if line.get("service"):
                self._services.learn(int(line["pid"]), line["service"])

    def _flush(self, file: _File) -> None:
        if not file.samples and not file.points:
            return
        service = self._services.of(file.pid)
        samples, points = file.samples, file.points
        file.samples, file.points = [], []
        count = sum(len(batch["time"]) for batch in samples)
        try:
            self._dictionary.write(self._journal)
            if count:
                columns = {
                    name: [value for batch in samples for value in batch[name]]
                    for name in SAMPLE_COLUMNS
                }
                columns["service"] = [service] * count
                columns["process"] = [file.pid] * count
                self._journal.append("samples", table(SAMPLES, columns))
                self._taken(count)
            write_points(self._journal, self._series, _points(points, service, file.pid))
        except RecordingError:
            self._journal.refuse("sample that could not be written", count)


def _points(rows: list[list[Any]], service: str, pid: int) -> list[tuple[Series, dict[str, Any]]]:
    common = {"service": service, "process": str(pid)}
    points: list[tuple[Series, dict[str, Any]]] = []
    for at, name, value, own in rows:
        named = labels({key: str(each) for key, each in own.items()}, common)
        points.append((Series(name, named, "event", "s"), {"time": at, "value": float(value)}))
    return points
