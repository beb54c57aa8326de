"""austin's binary MOJO, versions 1 to 4 (https://p403n1x87.github.io/austin/4.1/formats/mojo/).

A stream of events: strings and frames, each known by a key of its process from then on, and samples
that name them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ragprof.profiles.content import Content
from ragprof.profiles.formats.austin import Samples
from ragprof.profiles.model import Profile, ProfileError

TITLE = "austin's MOJO"
LOOKS_FOR = "the bytes 'MOJ' and a version"
SUFFIXES = (".mojo",)

_MAGIC = b"MOJ"
_NEWEST = 4
_LONGEST = 9  # bytes of a number

(
    _META, _STACK, _FRAME, _INVALID, _FRAME_REF, _KERNEL, _GC, _IDLE, _TIME, _MEMORY, _STRING,
    _STRING_REF, _REPEAT, _TASK_STACK, _TASK_WAITER, _TASK_RUNNING,
) = range(1, 17)  # fmt: skip

FrameParts = tuple[str, str, int]


def recognises(content: Content) -> bool:
    """The magic bytes."""
    return content.data.startswith(_MAGIC)


def read(content: Content) -> list[Profile]:
    """One profile of the time, or memory, that the samples have; in full mode one of each.

    What asyncio tasks do beside the running one is not kept: austin gives it no time of its own.
    Raises `ProfileError` naming the offset of the event at fault.
    """
    reader = _Reader(content.data, len(_MAGIC))
    try:
        version = reader.number()
    except _Ended:
        raise ProfileError("it ends before its version.") from None
    if not 1 <= version <= _NEWEST:
        raise ProfileError(f"it has version {version}, and 1 to {_NEWEST} are known.")
    return _Stream(reader, version).profiles()


@dataclass
class _Sample:
    process: int
    thread: str
    frames: list[FrameParts] = field(default_factory=list)
    time: int = 0
    memory: int = 0
    idle: bool = False


class _Stream:
    """The events of a file, one after the other."""

    def __init__(self, reader: _Reader, version: int) -> None:
        self._reader = reader
        self._version = version
        self._meta: dict[str, str] = {}
        self._strings: dict[tuple[int, int], str] = {}
        self._frames: dict[tuple[int, int], FrameParts] = {}
        self._last: dict[tuple[int, str], list[FrameParts]] = {}
        self._sample: _Sample | None = None
        self._of_task = 0  # frames to come that are those of a suspended task
        self._samples: Samples | None = None
        self._cut = False

    def profiles(self) -> list[Profile]:
        """The profiles of all events up to the end, or to where the file was cut."""
        reader = self._reader
        while not reader.ended():
            begin = reader.at
            try:
                self._event(reader.byte())
            except _Ended:
                self._cut = True  # austin was stopped while it wrote
                break
            except ProfileError as error:
                raise ProfileError(f"the event at byte {begin:,} {error}") from None
        self._finish()
        found = self._samples.profiles() if self._samples else []
        if self._cut:
            found = [
                one.named(one.name, "The file ends in the middle of an event.") for one in found
            ]
        return found

    def _event(self, kind: int) -> None:
        reader = self._reader
        if kind == _META:
            key = reader.text()
            self._meta[key] = reader.text()
        elif kind == _STACK:
            self._finish()
            process = reader.number()
            if self._version >= 3:
                reader.number()  # the interpreter
            self._sample = _Sample(process, reader.text())
        elif kind == _STRING:
            key_number = reader.number()
            self._strings[self._key(key_number)] = reader.text()
        elif kind == _FRAME:
            self._define_frame()
        elif kind == _FRAME_REF:
            frame = self._frames.get(self._key(reader.number()))
            if frame is None:
                raise ProfileError("names a frame that was not given before.")
            self._push(frame)
        elif kind == _KERNEL:
            self._push((reader.text(), "[kernel]", 0))
        elif kind == _INVALID:
            self._push(("(invalid frame)", "", 0))
        elif kind == _GC:
            self._push(("(garbage collection)", "", 0))
        elif kind == _IDLE:
            self._now().idle = True
        elif kind == _TIME:
            self._now().time = self._weight(reader.number())
        elif kind == _MEMORY:
            self._now().memory = reader.number()
        elif kind == _STRING_REF:
            reader.number()
        elif kind == _REPEAT:
            self._repeat()
        elif kind == _TASK_STACK:
            reader.number()
            reader.number()
            self._of_task = max(0, reader.number())
        elif kind == _TASK_WAITER:
            reader.number()
            reader.number()
        elif kind == _TASK_RUNNING:
            reader.number()
        else:
            raise ProfileError(f"is of kind {kind}, which MOJO has not.")

    def _weight(self, value: int) -> int:
        if value < 0:
            raise ProfileError(f"has a time of {value} microseconds, which cannot be negative.")
        return value

    def _now(self) -> _Sample:
        if self._sample is None:
            raise ProfileError("belongs to a sample, and none has begun.")
        return self._sample

    def _key(self, number: int) -> tuple[int, int]:
        return (self._now().process, number)

    def _define_frame(self) -> None:
        reader = self._reader
        key, file, scope, line = (reader.number() for _ in range(4))
        if self._version >= 2:
            for _ in range(3):  # the end of the line, and columns
                reader.number()
        self._frames[self._key(key)] = (self._string(scope), self._string(file), max(0, line))

    def _string(self, key: int) -> str:
        known = self._strings.get(self._key(key))
        if known is None:
            if key in (0, 1):
                return "" if key == 0 else "<unknown>"
            raise ProfileError(f"names string {key}, which was not given before.")
        return known

    def _push(self, frame: FrameParts) -> None:
        if self._of_task:
            self._of_task -= 1
        else:
            self._now().frames.append(frame)

    def _repeat(self) -> None:
        """The outer frames are those of the thread's last sample, without native ones on top."""
        sample = self._now()
        before = list(self._last.get((sample.process, sample.thread), []))
        while before and not before[-1][1].endswith((".py", ">")):
            before.pop()
        sample.frames = before + sample.frames

    def _finish(self) -> None:
        sample, self._sample = self._sample, None
        self._of_task = 0
        if sample is None:
            return
        if self._samples is None:
            self._samples = Samples(self._meta)
        self._last[sample.process, sample.thread] = sample.frames
        self._samples.add(
            sample.process,
            sample.thread,
            sample.frames,
            sample.time,
            sample.memory,
            idle=sample.idle,
        )


class _Ended(Exception):
    """The data ends in the middle of an event."""


class _Reader:
    """Bytes, numbers and texts of a MOJO file."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def ended(self) -> bool:
        return self.at >= len(self._data)

    def byte(self) -> int:
        if self.at >= len(self._data):
            raise _Ended
        self.at += 1
        return self._data[self.at - 1]

    def number(self) -> int:
        """Six bits and a sign in the first byte, seven in every other."""
        byte = self.byte()
        value, negative, shift = byte & 0x3F, byte & 0x40, 6
        while byte & 0x80:
            if shift > 7 * _LONGEST:
                raise ProfileError("has a number that is too long.")
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
        return -value if negative else value

    def text(self) -> str:
        end = self._data.find(b"\0", self.at)
        if end < 0:
            raise _Ended
        text = self._data[self.at : end].decode("utf-8", "replace")
        self.at = end + 1
        return text
