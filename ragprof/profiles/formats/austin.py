"""austin's text: ``P1;T0:2;file:function:line;... 42``, with metadata in lines that begin with #.

A line is one sample. In full mode it has three numbers: time, 1 if the thread was idle, and bytes
allocated or freed.
"""

from __future__ import annotations

import re

from ragprof.profiles import places
from ragprof.profiles.content import Content
from ragprof.profiles.formats import collapsed
from ragprof.profiles.model import Profile, ProfileBuilder, ProfileError, ValueType

TITLE = "austin's text"
LOOKS_FOR = "lines that begin with P and T for process and thread, and '# mode:' before them"
SUFFIXES = (".austin",)

_LINE = re.compile(
    r"^P(?P<process>\d+);T(?:(?P<interpreter>\d+):)?(?P<thread>[^;]*)"
    r"(?P<stack>(?:;.*)?) (?P<metrics>\S+)$"
)
_META = re.compile(r"^# (\w+): (.*)$")

KINDS = {
    "wall": ValueType("wall", "nanoseconds"),
    "cpu": ValueType("cpu", "nanoseconds"),
    "memory": ValueType("alloc_space", "bytes"),
}


def recognises(content: Content) -> bool:
    """Most of the first lines are austin's samples."""
    if content.is_binary or content.is_json:
        return False
    lines = collapsed.first_lines(content.start)
    return bool(lines) and sum(bool(_LINE.match(line)) for line in lines) * 2 > len(lines)


def read(content: Content) -> list[Profile]:
    """One profile of the time, or memory, that the samples have; in full mode one of each.

    Raises `ProfileError` naming the first line that is no sample.
    """
    meta: dict[str, str] = {}
    lines: list[tuple[int, re.Match[str]]] = []
    for number, line in enumerate(content.text.split("\n"), 1):
        line = line.rstrip("\r")
        about = _META.match(line)
        if about:
            meta[about[1]] = about[2]
        elif line.strip() and not line.startswith("#"):
            found = _LINE.match(line)
            if found is None:
                raise ProfileError(f"line {number} is no sample of austin: {line[:80]!r}.")
            lines.append((number, found))
    full = meta.get("mode") == "full" or any("," in found["metrics"] for _, found in lines[:1])
    samples = Samples(meta)
    for number, found in lines:
        metrics = _metrics(found["metrics"], number)
        names = [frame_parts(text) for text in found["stack"].split(";")[1:]]
        if full and len(metrics) == 3:
            time, idle, memory = metrics
        else:
            time, idle, memory = metrics[0], 0, 0
            if meta.get("mode") == "memory":
                time, memory = 0, metrics[0]
        samples.add(int(found["process"]), found["thread"], names, time, memory, idle=bool(idle))
    return samples.profiles()


class Samples:
    """Samples of austin, text or MOJO, while they are read: time and memory apart."""

    def __init__(self, meta: dict[str, str]) -> None:
        self._meta = meta
        self._mode = meta.get("mode", "wall")
        self._builders: dict[str, ProfileBuilder] = {}

    def add(
        self,
        process: int,
        thread: str,
        frames: list[tuple[str, str, int]],
        time: int,
        memory: int,
        *,
        idle: bool = False,
    ) -> None:
        """A sample: function, file and line of each frame; microseconds; bytes (freed: < 0)."""
        kinds = {"wall": (time * 1000, True)}
        if self._mode == "cpu":
            kinds = {"cpu": (time * 1000, not idle)}
        elif self._mode == "memory":
            kinds = {"memory": (memory, True)}
        elif self._mode == "full":
            kinds["cpu"] = (time * 1000, not idle)
            kinds["memory"] = (memory, memory > 0)
        for kind, (value, counts) in kinds.items():
            if counts and value >= 0:
                self._sample(kind, process, thread, frames, value, idle)

    def _sample(
        self,
        kind: str,
        process: int,
        thread: str,
        frames: list[tuple[str, str, int]],
        value: int,
        idle: bool,
    ) -> None:
        builder = self._builders.get(kind)
        if builder is None:
            builder = self._builders[kind] = ProfileBuilder([KINDS[kind]], name=kind)
        path = [builder.frame(places.frame(function, file)) for function, file, _ in frames]
        number = thread.rpartition(":")[2]
        labels = {"process": str(process)}
        if kind == "wall" and self._mode == "full":
            labels["state"] = "waiting" if idle else "running"
        builder.sample(
            builder.stack(path, [line for _, _, line in frames]),
            float(value),
            thread=int(number) if number.isdecimal() and len(number) < 19 else None,
            labels=labels,
        )

    def profiles(self) -> list[Profile]:
        """What was measured, a profile each."""
        for builder in self._builders.values():
            if "interval" in self._meta:
                builder.note(f"Sampled by austin every {self._meta['interval']} microseconds.")
        return [builder.build() for builder in self._builders.values()]


def frame_parts(text: str) -> tuple[str, str, int]:
    """Function, file and line of ``file:function:line``."""
    head, _, line = text.rpartition(":")
    file, _, function = head.rpartition(":")
    if not head or not line.isdecimal() or len(line) > 9:
        return text, "", 0
    return (function or text), file, int(line)


def _metrics(text: str, line: int) -> list[int]:
    try:
        metrics = [int(number) for number in text.split(",")]
    except ValueError:
        raise ProfileError(f"line {line} has {text[:40]!r} where its numbers belong.") from None
    if len(metrics) not in (1, 3) or metrics[0] < 0 or any(abs(one) >= 1 << 53 for one in metrics):
        raise ProfileError(f"line {line} has the weights {text[:40]}: a time is not negative.")
    return metrics
