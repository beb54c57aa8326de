"""The last minutes of samples, in memory: what a slow request did is known after it was slow.

A sink of the sampler. It is written between two ticks in the main thread and may be read from any
thread, also in the main thread, where a tick can come at any moment.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Container
from typing import Any

from .sinks import Line

_NUMBERS = ("time", "weight_ns", "stack_id", "thread", "task")
_TEXTS = ("state", "wait", "trace_id", "span_id")


class _Batch:
    """The samples of one flush, column by column."""

    __slots__ = ("first", "last", "numbers", "texts")

    def __init__(self, columns: dict[str, Any]) -> None:
        self.numbers = [array("q", columns[name]) for name in _NUMBERS]
        self.texts = [tuple(columns[name]) for name in _TEXTS]
        times, weights = self.numbers[0], self.numbers[1]
        self.first = min(map(int.__sub__, times, weights))  # where the earliest sample begins
        self.last = max(times)

    def __len__(self) -> int:
        return len(self.numbers[0])


class Ring:
    """Keeps samples of the last `seconds`, at most `rows` samples and `stacks` distinct stacks.

    Some 70 bytes a sample and 500 a stack, so about 20 MB when full.
    """

    def __init__(self, seconds: float = 300.0, rows: int = 100_000, stacks: int = 20_000) -> None:
        self.seconds = seconds
        self.rows = 0
        self.process: Line = {}
        self.stats: Line = {}
        self.written_ns = 0  # when the last samples came
        self.open = False  # whether a sampler writes here
        self._most_rows, self._most_stacks = rows, stacks
        self._clear()

    def _clear(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._frames: dict[int, list[Any]] = {}
        self._stacks: dict[int, tuple[list[int], list[int]]] = {}
        self._version = 0
        self.rows = 0

    # As a sink.

    def write(self, lines: list[Line]) -> bool:
        """Take lines; False when stacks were dropped, which must be told anew when seen again."""
        self.open = True
        for line in lines:
            kind = line["type"]
            if kind == "samples":
                batch = _Batch(line["columns"])
                self._batches.append(batch)
                self.rows += len(batch)
            elif kind == "frames":
                for row in line["rows"]:
                    self._frames[row[0]] = row
            elif kind == "stacks":
                for number, frames, at in line["rows"]:
                    self._stacks[number] = (frames, at)
            elif kind == "process":
                self.process = line
            elif kind == "stats":
                self.stats = line
        self.written_ns = now = time.time_ns()
        oldest = now - int(self.seconds * 1e9)
        while self._batches and (
            self._batches[0].last < oldest or (self.rows > self._most_rows and self.rows > 1)
        ):
            self.rows -= len(self._batches.popleft())
        if len(self._stacks) <= self._most_stacks:
            return True
        self._compact()
        return False

    def close(self) -> None:
        self.open = False

    def forked(self) -> bool:
        """In a forked child the ring goes on, empty: what is in it is the parent's."""
        self._clear()
        return True

    def _compact(self) -> None:
        """Drop stacks that no sample uses; when too many are in use, the older samples too."""
        used = self._used()
        while len(used) > self._most_stacks // 2 and len(self._batches) > 1:
            for _ in range((len(self._batches) + 1) // 2):
                self.rows -= len(self._batches.popleft())
            used = self._used()
        stacks = {number: self._stacks[number] for number in used if number in self._stacks}
        frames = {frame for path, _ in stacks.values() for frame in path}
        # Replaced and not emptied, as a reader may be in the middle of them.
        self._frames = {number: self._frames[number] for number in frames}
        self._stacks = stacks
        self._version += 1

    def _used(self) -> set[int]:
        return set().union(*(batch.numbers[2] for batch in self._batches))

    # For readers.

    def lines(
        self, since: int = 0, until: int | None = None, traces: Container[str] | None = None
    ) -> list[Line]:
        """The samples that lie in a window (ns since 1970), as lines of the spool.

        `traces`: only those of these trace ids. A sample that began before `since` is shortened.
        """
        until = time.time_ns() if until is None else until
        while True:
            version = self._version
            batches, stacks, frames = list(self._batches), self._stacks, self._frames
            if version == self._version:
                break
        columns: dict[str, list[Any]] = {name: [] for name in (*_NUMBERS, *_TEXTS)}
        out = list(columns.values())
        for batch in batches:
            if batch.last <= since or batch.first >= until:
                continue
            for row in zip(*batch.numbers, *batch.texts, strict=True):
                at, weight, stack, trace = row[0], row[1], row[2], row[7]
                if at <= since or at - weight >= until or stack not in stacks:
                    continue
                if traces is not None and trace not in traces:
                    continue
                for column, value in zip(out, row, strict=True):
                    column.append(value)
                if at - weight < since:
                    out[1][-1] = at - since
        needed = dict.fromkeys(columns["stack_id"])
        paths = [[number, *stacks[number]] for number in needed]
        names = dict.fromkeys(frame for _, path, _ in paths for frame in path)
        lines: list[Line] = [self.process] if self.process else []
        if needed:
            lines.append({"type": "frames", "rows": [frames[number] for number in names]})
            lines.append({"type": "stacks", "rows": paths})
            lines.append({"type": "samples", "columns": columns})
        return lines
