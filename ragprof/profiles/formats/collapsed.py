"""Collapsed stacks, one per line: ``outer;inner;innermost 42`` (Brendan Gregg's FlameGraph).

It carries function names and one weight per stack. Files of ``inferno-diff-folded`` have two
weights a line, before and after. There are no escapes.
"""

from __future__ import annotations

import codecs
import io
import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ragprof.profiles import places
from ragprof.profiles.content import Content
from ragprof.profiles.model import Ints, Profile, ProfileBuilder, ProfileError, ValueType
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
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HEAD = 1 << 16
_STRAY, _EMPTY = -1, -2
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
    rows, which = _distinct_rows(content)
    lines, at = _parsed(rows, strict=True)
    counts = np.bincount(which, minlength=len(rows))
    lines.stray = int(counts[at == _STRAY].sum())
    pairs = bool(lines.paths) and all(map(_ends_in_count, lines.paths))
    builder = ProfileBuilder(BEFORE_AND_AFTER if pairs else [SAMPLES])
    values = np.array(lines.weights, dtype=np.float64)
    paths = lines.paths
    if pairs:
        split = [path.rpartition(" ") for path in paths]
        paths = [path for path, _, _ in split]
        values = np.column_stack([np.array([float(count) for _, _, count in split]), values])
    stacks = _stacks(builder, paths)
    sampled = at[which]
    sampled = sampled[sampled >= 0]
    builder.samples(stacks[sampled], values[sampled])
    note_stray(builder, lines, len(sampled))
    return [builder.build()]


def _distinct_rows(content: Content) -> tuple[list[tuple[int, str]], Ints]:
    """The distinct lines with the numbers of their first places, and for every line which it is.

    A sampler writes the same line again and again: only distinct ones are decoded and parsed.
    """
    plain = content.data.find(0, 0, _HEAD) < 0 and not content.data.startswith(_MARKS)
    seen: dict[bytes | str, int] = {}
    all_rows: Iterable[bytes | str] = (
        io.BytesIO(content.data) if plain else content.text.split("\n")
    )
    which = np.fromiter((seen.setdefault(row, len(seen)) for row in all_rows), dtype=np.int64)
    first = np.zeros(len(seen), dtype=np.int64)
    first[which[::-1]] = np.arange(len(which), 0, -1)
    texts = (row if isinstance(row, str) else row.decode("utf-8", "replace") for row in seen)
    return list(zip(first.tolist(), texts, strict=True)), which


class _Numbers(dict[str, int]):
    """Frame ids by name; a name that is not there yet is added to the profile."""

    def __init__(self, builder: ProfileBuilder) -> None:
        self._builder = builder

    def __missing__(self, name: str) -> int:
        number = self[name] = self._builder.frame(places.frame(name))
        return number


def _stacks(builder: ProfileBuilder, paths: list[str]) -> Ints:
    """The stack id of every path; equal paths have one."""
    distinct: dict[str, int] = {}
    which = np.array([distinct.setdefault(path, len(distinct)) for path in paths], dtype=np.int64)
    number = _Numbers(builder).__getitem__
    flat, lengths = array("q"), array("q")
    for path in distinct:
        names = [] if path == NO_STACK else path.split(";")
        flat.extend(map(number, names))
        lengths.append(len(names))
    ids = builder.stacks(
        np.array(flat, dtype=np.int64), np.zeros(len(flat), dtype=np.int64), np.array(lengths)
    )
    return ids[which] if len(which) else which


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
    return _parsed(enumerate(text.split("\n"), 1), strict)[0]


def _parsed(rows: Iterable[tuple[int, str]], strict: bool) -> tuple[Lines, Ints]:
    """`parsed` of numbered rows, and for each its place among the paths, `_STRAY` or `_EMPTY`."""
    lines = Lines([], [], 0, "")
    at: list[int] = []
    for number, line in rows:
        if line.startswith(_COMMENT) or not line.strip():
            at.append(_EMPTY)
            continue
        path, _, last = line.rstrip().rpartition(" ")
        try:
            weight = float(last)
        except ValueError:
            weight = None
        if weight is None or not path or "_" in last:
            lines.stray += 1
            lines.first_stray = lines.first_stray or f"line {number}: {line.rstrip()[:80]!r}"
            at.append(_STRAY)
            continue
        if strict and not (math.isfinite(weight) and weight >= 0):
            raise ProfileError(
                f"line {number} has the weight {last}: weights are finite and not negative."
            )
        at.append(len(lines.paths))
        lines.paths.append(path)
        lines.weights.append(weight)
    return lines, np.array(at, dtype=np.int64)


def note_stray(builder: ProfileBuilder, lines: Lines, samples: int | None = None) -> None:
    """Notes how many lines were no stacks. Raises `ProfileError` when they are the most of them
    and of the ``samples`` (as many as there are paths, unless said)."""
    if lines.stray > (len(lines.paths) if samples is None else samples):
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
