"""Samples of the in-process sampler as pprof, in plain Python: a service image has no numpy.

https://github.com/google/pprof/blob/main/proto/profile.proto. One value type, wall nanoseconds.
Time, thread and task of a sample are the labels `end_timestamp_ns`, `thread id` and `task id`, as
Datadog's profilers name them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]

# Fields of the message Profile.
_SAMPLE_TYPE, _SAMPLE, _LOCATION, _FUNCTION, _STRING = 1, 2, 4, 5, 6
_TIME_NANOS, _DURATION_NANOS, _PERIOD_TYPE, _PERIOD, _COMMENT = 9, 10, 11, 12, 13

_NUMBERS = {"time": "end_timestamp_ns", "thread": "thread id", "task": "task id"}
_TEXTS = ("state", "wait", "trace_id", "span_id")


class Pprof:
    """Builds one pprof message of the lines of any number of processes."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str, int], int] = {}
        self._locations: dict[tuple[int, int], int] = {}
        self._parts: list[bytes] = []
        self._comments: list[str] = []
        self._first = self._last = 0
        self.samples = 0
        kind = _number(1, self._string("wall")) + _number(2, self._string("nanoseconds"))
        self._parts.append(_bytes(_SAMPLE_TYPE, kind))

    def comment(self, text: str) -> None:
        """A text for people and programs, not tied to a sample."""
        self._comments.append(text)

    def period(self, hz: float) -> None:
        """The rate that was asked for."""
        kind = _number(1, self._string("wall")) + _number(2, self._string("nanoseconds"))
        self._parts.append(_bytes(_PERIOD_TYPE, kind) + _number(_PERIOD, round(1e9 / hz)))

    def take(self, lines: Iterable[Line], labels: Mapping[str, str]) -> None:
        """The lines of one process, and labels that all its samples get."""
        frames: dict[int, int] = {}
        stacks: dict[int, bytes] = {}
        common = b"".join(self._text(name, text) for name, text in labels.items() if text)
        for line in lines:
            if line["type"] == "frames":
                for number, module, name, file, first_line, _ in line["rows"]:
                    function = f"{module}:{name}" if module else name
                    frames[number] = self._function(function, file, first_line)
            elif line["type"] == "stacks":
                for number, path, at in line["rows"]:
                    stacks[number] = self._stack([frames[frame] for frame in path], at)
            elif line["type"] == "samples":
                self._samples(line["columns"], stacks, common)

    def encode(self) -> bytes:
        """The message in gzip."""
        parts = list(self._parts)
        for (function, line), number in self._locations.items():
            where = _number(1, function) + _number(2, line)
            parts.append(_bytes(_LOCATION, _number(1, number) + _bytes(4, where)))
        for (name, file, line), number in self._functions.items():
            named = self._string(name)
            parts.append(
                _bytes(
                    _FUNCTION,
                    _number(1, number)
                    + _number(2, named)
                    + _number(3, named)
                    + _number(4, self._string(file))
                    + _number(5, line),
                )
            )
        parts += [_number(_COMMENT, self._string(text)) for text in self._comments]
        if self._first:
            parts.append(_number(_TIME_NANOS, self._first))
            parts.append(_number(_DURATION_NANOS, self._last - self._first))
        parts += [_bytes(_STRING, text.encode("utf-8", "replace")) for text in self._strings]
        return gzip.compress(b"".join(parts), 5, mtime=0)

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _function(self, name: str, file: str, line: int) -> int:
        key = (name, file, max(line, 0))
        return self._functions.setdefault(key, len(self._functions) + 1)

    def _stack(self, path: Sequence[int], lines: Sequence[int]) -> bytes:
        """Field 1 of a sample: its locations, the innermost first."""
        packed = b""
        for function, line in zip(reversed(path), reversed(lines), strict=True):
            key = (function, max(line, 0))
            packed += _varint(self._locations.setdefault(key, len(self._locations) + 1))
        return _bytes(1, packed)

    def _samples(
        self, columns: Mapping[str, Sequence[Any]], stacks: dict[int, bytes], common: bytes
    ) -> None:
        names = {name: self._string(label) for name, label in _NUMBERS.items()}
        nanoseconds = self._string("nanoseconds")
        texts: dict[tuple[Any, ...], bytes] = {}  # the labels of a trace, state, thread... repeat
        keys = [columns[name] for name in ("thread", "task", *_TEXTS)]
        rows = zip(columns["time"], columns["weight_ns"], columns["stack_id"], *keys, strict=True)
        for time, weight, stack, thread, task, *rest in rows:
            key = (thread, task, *rest)
            known = texts.get(key)
            if known is None:
                known = b"".join(
                    self._text(name, text) for name, text in zip(_TEXTS, rest, strict=True) if text
                )
                known += _bytes(3, _number(1, names["thread"]) + _number(3, thread))
                if task:
                    known += _bytes(3, _number(1, names["task"]) + _number(3, task))
                texts[key] = known
            at = _number(1, names["time"]) + _number(3, time) + _number(4, nanoseconds)
            body = stacks[stack] + _bytes(2, _varint(max(weight, 0))) + known + _bytes(3, at)
            self._parts.append(_bytes(_SAMPLE, body + common))
            begin = max(time - weight, 0)
            self._first = min(self._first or begin, begin)
            self._last = max(self._last, time)
            self.samples += 1

    def _text(self, name: str, text: str) -> bytes:
        return _bytes(3, _number(1, self._string(name)) + _number(2, self._string(text)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
