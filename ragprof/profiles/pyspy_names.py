"""How py-spy names frames: ``function (file:line)``, and processes and threads above them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FRAME = re.compile(r"(?s)(.*) \((.+):(\d+)\)$")
_LIBRARY = re.compile(r"(?s)(.*) \(([^():]+)\)$")
_THREAD = re.compile(r'(?is)thread \(?(0x[0-9a-f]+|\d+)\)?(?:: (.*)| "(.*)")?$')
_PROCESS = re.compile(r'(?is)process (\d+)(?::"?(.*?)"?)?$')
_LIKELY = re.compile(r" \([^()]+:\d+\)$|^thread \(|^process \d+:")


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


def is_stack(path: str) -> bool:
    """Whether the frames of a collapsed stack look like py-spy's."""
    frames = path.split(";")
    return sum(bool(_LIKELY.search(frame)) for frame in frames) * 2 >= len(frames)


def place(name: str) -> tuple[str, str, int] | None:
    """Function, file and line of ``function (file:line)``; viztracer writes that as well."""
    found = _FRAME.match(name)
    return (found[1], found[2], int(found[3])) if found and len(found[3]) < 10 else None


def parts(name: str) -> tuple[str, str, int]:
    """Function, file and line of ``function (file:line)`` or ``function (library)``."""
    found = place(name)
    if found:
        return found
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
