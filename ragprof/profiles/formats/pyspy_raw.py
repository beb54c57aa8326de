"""Collapsed stacks as ``py-spy record --format raw`` writes them.

Frames read ``function (file:line)`` with the line that ran; a process and a thread are frames above
them. The weights are samples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragprof.profiles import places
from ragprof.profiles.content import Content
from ragprof.profiles.formats import collapsed
from ragprof.profiles.model import Profile, ProfileBuilder
from ragprof.profiles.quantities import SAMPLES

TITLE = "py-spy's raw stacks"
LOOKS_FOR = "collapsed stacks whose frames read 'function (file:line)'"
SUFFIXES = ()

_FRAME = re.compile(r"(?s)(.*) \((.+):(\d+)\)$")
_LIBRARY = re.compile(r"(?s)(.*) \(([^():]+)\)$")
_THREAD = re.compile(r'(?is)thread \(?(0x[0-9a-f]+|\d+)\)?(?:: (.*)| "(.*)")?$')
_PROCESS = re.compile(r'(?is)process (\d+)(?::"?(.*?)"?)?$')


@dataclass(frozen=True)
class Origin:
    """The process and the thread that a sample is of; 0 and empty: unknown."""

    process: str = ""
    thread: int = 0
    thread_name: str = ""

    def labels(self) -> dict[str, str]:
        """What is known of it, as labels of a sample."""
        found = {"process": self.process, "thread_name": self.thread_name}
        return {name: text for name, text in found.items() if text}


def recognises(content: Content) -> bool:
    """Most of the first stacks have py-spy's frames."""
    if content.is_binary or content.is_json:
        return False
    lines = collapsed.parsed("\n".join(collapsed.first_lines(content.start)), strict=False)
    fitting = sum(collapsed.is_pyspy(path) for path in lines.paths)
    return fitting * 2 > len(lines.paths) + lines.stray


def read(content: Content) -> list[Profile]:
    """One sample per line, with process, thread and its name; lines are those that ran.

    Raises `ProfileError` as `collapsed` does.
    """
    lines = collapsed.parsed(content.text)
    builder = ProfileBuilder([SAMPLES])
    for path, weight in zip(lines.paths, lines.weights, strict=True):
        names = path.split(";")
        whose, names = split_origin(names)
        frames, ran = [], []
        for name in names:
            function, file, line = parts(name)
            frames.append(builder.frame(places.frame(function, file)))
            ran.append(line)
        builder.sample(
            builder.stack(frames, ran),
            weight,
            thread=whose.thread or None,
            labels=whose.labels(),
        )
    collapsed.note_stray(builder, lines)
    return [builder.build()]


def parts(name: str) -> tuple[str, str, int]:
    """Function, file and line of ``function (file:line)`` or ``function (library)``."""
    found = _FRAME.match(name)
    if found and len(found[3]) < 10:
        return found[1], found[2], int(found[3])
    library = _LIBRARY.match(name)
    return (library[1], library[2], 0) if library else (name, "", 0)


def split_origin(names: list[str]) -> tuple[Origin, list[str]]:
    """The frames for process and thread that stand above the stack, and the stack."""
    process = ""
    found = _PROCESS.match(names[0])
    if found:
        process, names = found[1], names[1:]
    whose = thread_of(names[0]) if names else Origin()
    if not whose.thread:
        return Origin(process), names
    depth = 1
    while whose.thread_name and depth < len(names) and not _ends_in_place(names[depth]):
        depth += 1  # a semicolon in the thread's name
    name = ";".join([whose.thread_name, *names[1:depth]])
    return Origin(process, whose.thread, name), names[depth:]


def _ends_in_place(name: str) -> bool:
    return bool(_FRAME.match(name) or _LIBRARY.match(name))


def thread_of(name: str) -> Origin:
    """The thread in ``thread (1): name``, ``Thread 1 "name"`` or ``Process 2 Thread 1 "name"``."""
    before, _, rest = name.partition(" Thread ")
    process = _PROCESS.match(before)
    if process and rest:
        return Origin(process[1], *_thread("Thread " + rest))
    return Origin("", *_thread(name))


def is_origin(name: str) -> bool:
    """Whether a frame is not a function but the process or the thread."""
    return bool(_PROCESS.match(name) or _THREAD.match(name))


def _thread(name: str) -> tuple[int, str]:
    found = _THREAD.match(name)
    if found is None:
        return 0, ""
    number = int(found[1], 0 if found[1].lower().startswith("0x") else 10)
    return (number if number < 1 << 63 else 0), found[2] or found[3] or ""
