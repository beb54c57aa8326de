"""The text that ``perf script`` prints: one block per sample, the innermost frame first."""

from __future__ import annotations

import re

from ragprof.profiles import places
from ragprof.profiles.content import Content
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType

TITLE = "perf script"
LOOKS_FOR = "blocks of 'command pid time: event:' and indented 'address symbol (library)'"
SUFFIXES = (".perf", ".linux-perf.txt")

# comm [pid/]tid [cpu] time: [period] event:
_HEADER = re.compile(
    r"^(?P<command>\S.*?)\s+(?:(?P<pid>-?\d+)/)?(?P<tid>-?\d+)\s+(?:\[\d+\]\s+)?(?:\S+\s+)??"
    r"(?P<time>\d+\.\d+):\s+(?:(?P<period>\d+)\s+)?(?P<event>\S+?):(?:\s|$)"
)
_BRIEF = re.compile(
    r"^(?P<command>\S.*?)\s+(?:(?P<pid>-?\d+)/)?(?P<tid>-?\d+)\s+(?P<event>\S+?):\s*$"
)
_FRAME = re.compile(r"^\s*(?P<address>[0-9a-f]+)\s+(?P<symbol>.+?)(?:\s+\((?P<library>\S*)\))?\s*$")
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")
_PYTHON = re.compile(r"^py::(?P<name>.+):(?P<file>[^:]+)$")
_TIMES = {"cpu-clock", "task-clock"}  # their periods are nanoseconds


def recognises(content: Content) -> bool:
    """One of the first lines heads a sample, and an indented frame follows."""
    if content.is_binary or content.is_json:
        return False
    lines = content.start.split("\n")[:400]
    for number, line in enumerate(lines[:-1]):
        if _header(line) and (_is_frame(lines[number + 1]) or not lines[number + 1].strip()):
            return True
    return False


def read(content: Content) -> list[Profile]:
    """A profile per event (cpu-clock, cycles, ...), each sample with time, thread and command.

    The weight is the period where it is printed, else 1. Frames of perf's Python support become
    functions with their file. Raises `ProfileError` naming the line at fault.
    """
    builders: dict[str, ProfileBuilder] = {}
    header: re.Match[str] | None = None
    frames: list[str] = []
    begun = 0
    for number, line in enumerate([*content.text.split("\n"), ""], 1):
        line = line.rstrip("\r")
        if line.startswith("#"):
            continue
        if not line.strip():
            if header is not None:
                _add(builders, header, frames, begun)
            header, frames = None, []
        elif header is None:
            header, begun = _header(line), number
            if header is None:
                raise ProfileError(f"line {number} heads no sample: {line[:80]!r}.")
        elif _is_frame(line):
            frames.append(line)
        elif _header(line):  # a sample without a stack has no empty line after it
            _add(builders, header, frames, begun)
            header, frames, begun = _header(line), [], number
        else:
            raise ProfileError(f"line {number} is no frame of a stack: {line[:80]!r}.")
    return [builder.build() for builder in builders.values()]


def _header(line: str) -> re.Match[str] | None:
    return None if line[:1].isspace() else _HEADER.match(line) or _BRIEF.match(line)


def _is_frame(line: str) -> bool:
    return line[:1] in (" ", "\t") and _FRAME.match(line) is not None


def _add(
    builders: dict[str, ProfileBuilder], header: re.Match[str], frames: list[str], line: int
) -> None:
    found = header.groupdict()
    event = found["event"]
    base = event.partition(":")[0]
    period = found.get("period")
    unit = "nanoseconds" if base in _TIMES and period else "count"
    builder = builders.get(event)
    if builder is None:
        kind = ValueType("cpu" if unit == "nanoseconds" else base, unit)
        builder = builders[event] = ProfileBuilder([kind], name=event, clock="start")
    path = [builder.frame(_frame(frame)) for frame in reversed(frames)]
    seconds, _, fraction = (found.get("time") or "").partition(".")
    if len(seconds) > 9:
        raise ProfileError(f"line {line} has the time {seconds}, beyond all clocks.")
    thread = int(found["tid"])
    labels = {"thread_name": found["command"].strip(), "process": found["pid"] or ""}
    builder.sample(
        builder.stack(path),
        float(period) if period else 1.0,
        time=int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0")) if seconds else None,
        thread=thread if 0 < thread < 1 << 31 else None,
        labels={name: text for name, text in labels.items() if text},
    )


def _frame(line: str) -> Frame:
    found = _FRAME.match(line)
    if found is None:
        return places.frame(line.strip())
    symbol = _OFFSET.sub("", found["symbol"])
    library = found["library"] or ""
    python = _PYTHON.match(symbol)
    if python:
        return places.frame(python["name"], python["file"])
    library = "" if library == "[unknown]" else library.removesuffix(" (deleted)")
    if symbol == "[unknown]" and library:
        symbol = f"[unknown in {library.rpartition('/')[2]}]"
    return Frame(symbol, "", library, 0, "native")
