"""Collapsed stacks, one per line: ``outer;inner;innermost 42`` (Brendan Gregg's FlameGraph).

It carries function names and one weight per stack. Files of ``inferno-diff-folded`` have two
weights a line, before and after. There are no escapes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from ragprof.profiles import places
from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileBuilder, ProfileError, ValueType
from ragprof.profiles.quantities import SAMPLES, whole

TITLE = "collapsed stacks"
LOOKS_FOR = "lines of frames joined by ';', a space and a number"
SUFFIXES = (".collapsed", ".folded", ".stacks")
CARRIES: frozenset[str] = frozenset()

NO_STACK = "(no stack)"
BEFORE_AND_AFTER = (ValueType("before", "count"), ValueType("after", "count"))
_AUSTIN = re.compile(r"P\d+;T")
_PYSPY = re.compile(r" \([^()]+:\d+\)$|^thread \(|^process \d+:")
_COUNT = re.compile(r" \d+(\.\d+)?$")
_COMMENT = ("#", "//")
_MANY = 1e6  # above it whole numbers are exact enough


def recognises(content: Content) -> bool:
    """Most of the first lines are stacks with a weight, and not those of austin or py-spy."""
    if content.is_binary or content.is_json:
        return False
    found = parsed("\n".join(first_lines(content.start)), strict=False)
    stacks = [path for path in found.paths if ";" in path]
    foreign = sum(is_austin(path) or is_pyspy(path) for path in stacks)
    return bool(stacks) and len(found.paths) > found.stray and foreign * 2 < len(stacks)


def read(content: Content) -> list[Profile]:
    """One sample per line; comments are skipped, and a few lines that are no stacks are noted.

    Raises `ProfileError` naming the first line at fault when a weight is negative or not finite, or
    when most lines are no stacks.
    """
    lines = parsed(content.text)
    pairs = bool(lines.paths) and all(map(_ends_in_count, lines.paths))
    builder = ProfileBuilder(BEFORE_AND_AFTER if pairs else [SAMPLES])
    values = np.array(lines.weights, dtype=np.float64)
    paths = lines.paths
    if pairs:
        split = [path.rpartition(" ") for path in paths]
        paths = [path for path, _, _ in split]
        values = np.column_stack([np.array([float(count) for _, _, count in split]), values])
    frames: dict[str, int] = {}
    stacks: dict[str, int] = {}
    for path in dict.fromkeys(paths):
        names = [] if path == NO_STACK else path.split(";")
        for name in names:
            if name not in frames:
                frames[name] = builder.frame(places.frame(name))
        stacks[path] = builder.stack([frames[name] for name in names])
    builder.samples([stacks[path] for path in paths], values)
    note_stray(builder, lines)
    return [builder.build()]


def write(profile: Profile) -> bytes:
    """The stacks of the first value type, identical ones merged, in the order of names.

    A semicolon in a name becomes a colon and a line break a space. A name that would be read as a
    comment or as a second weight gets a no-break space. Stacks without frames are ``(no stack)``.
    Weights are whole numbers of the same sum where they are large, else they keep their fraction.
    """
    names = [_clean(frame.function) for frame in profile.frames]
    weights = profile.stack_weights()
    folded: dict[str, float] = {}
    offsets, flat = profile.stack_offsets.tolist(), profile.stack_frames.tolist()
    for index in np.flatnonzero(weights).tolist():
        path = ";".join([names[frame] for frame in flat[offsets[index] : offsets[index + 1]]])
        folded[path] = folded.get(path, 0.0) + float(weights[index])
    paths = sorted(folded)
    sums = np.array([folded[path] for path in paths], dtype=np.float64)
    if sums.sum() >= _MANY:
        sums = whole(sums)[0]
    lines = [
        f"{_line(path)} {_number(weight)}\n"
        for path, weight in zip(paths, sums.tolist(), strict=True)
        if weight
    ]
    return "".join(lines).encode("utf-8", "replace")


def first_lines(start: str, most: int = 200) -> list[str]:
    """The first lines that say something."""
    lines = start.split("\n")
    lines = lines[:-1] if len(lines) > 1 else lines  # the last may be cut
    said = (line.strip("\r") for line in lines)
    return [line for line in said if line.strip() and not line.startswith(_COMMENT)][:most]


@dataclass
class Lines:
    """The lines of a file: path and weight of each stack, and what is no stack."""

    paths: list[str]
    weights: list[float]
    stray: int
    first_stray: str


def parsed(text: str, *, strict: bool = True) -> Lines:
    """The stacks of a text; empty lines and comments are left out.

    Raises `ProfileError` naming a line whose weight is negative or not finite, if ``strict``.
    """
    lines = Lines([], [], 0, "")
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith(_COMMENT) or not line.strip():
            continue
        path, _, last = line.rstrip().rpartition(" ")
        try:
            weight = float(last)
        except ValueError:
            weight = None
        if weight is None or not path or "_" in last:
            lines.stray += 1
            lines.first_stray = lines.first_stray or f"line {number}: {line.rstrip()[:80]!r}"
            continue
        if strict and not (math.isfinite(weight) and weight >= 0):
            raise ProfileError(
                f"line {number} has the weight {last}: weights are finite and not negative."
            )
        lines.paths.append(path)
        lines.weights.append(weight)
    return lines


def note_stray(builder: ProfileBuilder, lines: Lines) -> None:
    """Notes how many lines were no stacks. Raises `ProfileError` when they are the most."""
    if lines.stray > len(lines.paths):
        raise ProfileError(
            f"most lines are no stacks, first {lines.first_stray}. Expected frames joined by ';', "
            "a space, and a number that is not negative."
        )
    if lines.stray:
        builder.note(
            f"{lines.stray} lines are no stacks and were skipped, first {lines.first_stray}."
        )


def is_austin(path: str) -> bool:
    """Whether a stack begins as austin's do: ``P1;T0:1;file:function:line``."""
    return bool(_AUSTIN.match(path))


def is_pyspy(path: str) -> bool:
    """Whether the frames of a stack look like py-spy's: ``function (file:line)``."""
    frames = path.split(";")
    return sum(bool(_PYSPY.search(frame)) for frame in frames) * 2 >= len(frames)


def _ends_in_count(path: str) -> bool:
    return bool(_COUNT.search(path))


def _clean(name: str) -> str:
    return name.replace(";", ":").replace("\r", " ").replace("\n", " ") or "(unnamed)"


def _line(path: str) -> str:
    if path.startswith(_COMMENT):
        path = "\u00a0" + path
    if _ends_in_count(path):
        head, _, count = path.rpartition(" ")
        path = f"{head}\u00a0{count}"
    return path or NO_STACK


def _number(weight: float) -> str:
    return str(int(weight)) if weight.is_integer() else repr(weight)
