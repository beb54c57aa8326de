"""Collapsed stacks, one per line: ``outer;inner;innermost 42`` (Brendan Gregg's FlameGraph).

It carries function names and one weight per stack. Files of ``inferno-diff-folded`` have two
weights a line, before and after. There are no escapes.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from ragprof.profiles import places, pyspy_names
from ragprof.profiles.content import Content
from ragprof.profiles.distinct import (
    first_places,
    mostly_repeated,
    numbered,
    slices,
    spread,
)
from ragprof.profiles.model import (
    Floats,
    Ints,
    Profile,
    ProfileBuilder,
    ProfileError,
    ValueType,
    refuse_depth,
)
from ragprof.profiles.quantities import SAMPLES, whole

TITLE = "collapsed stacks"
LOOKS_FOR = "lines of frames joined by ';', a space and a number"
SUFFIXES = (".collapsed", ".folded", ".stacks")
CARRIES: frozenset[str] = frozenset()

NO_STACK = "(no stack)"
_NO_STACK = NO_STACK.encode()
BEFORE_AND_AFTER = (ValueType("before", "count"), ValueType("after", "count"))
_AUSTIN = re.compile(r"P\d+;T")
_COUNT = re.compile(r" \d+(\.\d+)?$")
_ENDS_IN_COUNT = re.compile(rb" \d+(\.\d+)?$")
_PLAIN_NUMBER = re.compile(rb"\d+(\.\d+)?\r?\n?")
_COMMENT = ("#", "//")
_MARKED = tuple(mark.encode() for mark in _COMMENT)
_NONE: Ints = np.zeros(0, dtype=np.int64)
_PIECE = 1 << 18  # bytes of lines taken apart together
_BLOCK = 1 << 9  # lines or stacks taken apart together
_LONG = 1 << 26  # bytes of such stacks from which on their frames are counted before
_STRAY, _EMPTY = -1, -2
_MANY = 1e6  # above it whole numbers are exact enough


def recognises(content: Content) -> bool:
    """Most of the first lines are stacks with a weight, and not those of austin or py-spy."""
    if content.is_binary or content.is_json:
        return False
    found = parsed("\n".join(first_lines(content.start)), strict=False)
    stacks = [path for path in found.paths if ";" in path]
    foreign = sum(is_austin(path) or pyspy_names.is_stack(path) for path in stacks)
    return bool(stacks) and len(found.paths) > found.stray and foreign * 2 < len(stacks)


def read(content: Content) -> list[Profile]:
    """One sample per line; comments are skipped, and a few lines that are no stacks are noted.

    Raises `ProfileError` naming the first line at fault when a weight is negative or not finite, or
    when most lines are no stacks.
    """
    lines = _split(content)
    pairs = bool(lines.paths) and all(map(_ENDS_IN_COUNT.search, lines.paths))
    builder = ProfileBuilder(BEFORE_AND_AFTER if pairs else [SAMPLES])
    paths, of_path = lines.paths, lines.of_path
    values = lines.weights
    if pairs:
        split = [path.rpartition(b" ") for path in paths]
        counts = np.array([float(count) for _, _, count in split])
        values = np.column_stack([counts[of_path], values])
        paths, merged = numbered([path for path, _, _ in split])
        of_path = merged[of_path]
    stacks = _stacks(builder, paths)
    builder.samples(stacks[of_path], values)
    note_stray(builder, lines.odd, len(of_path))
    return [builder.build()]


class _Split(NamedTuple):
    """The stacks of a file: distinct paths; for every sample its path and its weight; the lines
    that did not look like a stack at once."""

    paths: list[bytes]
    of_path: Ints
    weights: Floats
    odd: Lines


def _split(content: Content) -> _Split:
    """Path and weight of every line: a sampler writes the same line again and again, so that most
    of the work is that of the distinct ones."""
    data = content.data if content.is_utf8 else content.text.encode("utf-8", "replace")
    if not _repeats(data):
        return _apart(io.BytesIO(data), None)
    rows, which = numbered(io.BytesIO(data))
    return _apart(rows, which)


def _repeats(data: bytes) -> bool:
    """Whether most lines seem to repeat others; told from some all over the file."""
    begins = [data.find(b"\n", at) + 1 for at in spread(len(data)).tolist()]
    begins = sorted(set(begins) - {0, len(data)})  # of a small file nearly all lines, each once
    ends = [data.find(b"\n", begin) for begin in begins]
    drawn = list(slices(data, begins, [end if end >= 0 else len(data) for end in ends]))
    mean = sum(map(len, drawn)) / max(1, len(drawn)) + 1
    return mostly_repeated(drawn, len(data) / mean)


def _apart(rows: list[bytes] | io.BytesIO, which: Ints | None) -> _Split:
    """Path and weight of every row, and with ``which`` of every line, which is one of the rows."""
    paths: defaultdict[bytes, int] = defaultdict(itertools.count().__next__)
    ends: defaultdict[bytes, int] = defaultdict(itertools.count().__next__)
    of_path, of_end = [_NONE], [_NONE]
    for piece in _pieces(rows):
        starts, _, lasts = zip(*map(bytes.rpartition, piece, itertools.repeat(b" ")), strict=True)
        of_path.append(np.fromiter(map(paths.__getitem__, starts), np.int64, len(piece)))
        of_end.append(np.fromiter(map(ends.__getitem__, lasts), np.int64, len(piece)))
    path_of, last = np.concatenate(of_path), np.concatenate(of_end)
    known = np.array([_weight(end) for end in ends] or [0.0])
    fits = np.array([bool(path) and not path.startswith(_MARKED) for path in paths] or [True])
    weights = known[last]
    lines = slice(None) if which is None else which
    odd = np.flatnonzero(~fits[path_of] | np.isnan(weights))
    if not len(odd):
        return _Split(list(paths), path_of[lines], weights[lines], Lines([], [], 0, ""))
    numbers = odd if which is None else first_places(which, len(path_of))[odd]
    texts, last_texts = list(paths), list(ends)
    others, at = _parsed(
        [
            (number + 1, _line_of(texts[path_of[row]], last_texts[last[row]]))
            for number, row in zip(numbers.tolist(), odd.tolist(), strict=True)
        ],
        strict=True,
    )
    path_of[odd] = at
    stacks = odd[at >= 0]
    weights[stacks] = others.weights
    path_of[stacks] = [paths[path.encode("utf-8", "replace")] for path in others.paths]
    path_of, weights = path_of[lines], weights[lines]
    others.stray = int((path_of == _STRAY).sum())
    kept = path_of >= 0
    return _Split(*_used(list(paths), path_of[kept]), weights[kept], others)


def _pieces(rows: list[bytes] | io.BytesIO) -> Iterable[list[bytes]]:
    """The rows by pieces that stay in the processor's cache while they are taken apart."""
    if isinstance(rows, list):
        return (rows[low : low + _BLOCK] for low in range(0, len(rows), _BLOCK))
    return iter(partial(rows.readlines, _PIECE), [])


def _weight(end: bytes) -> float:
    """The number that a line ends in; NaN when it needs a closer look."""
    weight = float(end) if _PLAIN_NUMBER.fullmatch(end) else math.nan
    return weight if math.isfinite(weight) else math.nan


def _line_of(path: bytes, end: bytes) -> str:
    return (path + b" " + end if path else end).decode("utf-8", "replace").removesuffix("\n")


def _used(paths: list[bytes], which: Ints) -> tuple[list[bytes], Ints]:
    """The paths that samples have: comments and stray lines left some that are none."""
    used = np.bincount(which, minlength=len(paths)) > 0
    return list(itertools.compress(paths, used.tolist())), (np.cumsum(used) - 1)[which]


class _Numbers(dict[bytes, int]):
    """Frame ids by name; a name that is not there yet is added to the profile."""

    def __init__(self, builder: ProfileBuilder) -> None:
        self._builder = builder

    def __missing__(self, name: bytes) -> int:
        frame = places.frame(name.decode("utf-8", "replace"))
        number = self[name] = self._builder.frame(frame)
        return number


def _stacks(builder: ProfileBuilder, paths: list[bytes]) -> Ints:
    """The stack id of every path."""
    number = _Numbers(builder).__getitem__
    ids = [_NONE]
    for low in range(0, len(paths), _BLOCK):
        block = paths[low : low + _BLOCK]
        if sum(map(len, block)) > _LONG:
            refuse_depth(sum(path.count(b";") for path in block))
        names = [path.split(b";") for path in block]
        if _NO_STACK in block:
            names = [[] if path == [_NO_STACK] else path for path in names]
        flat = np.fromiter(map(number, itertools.chain.from_iterable(names)), np.int64)
        lengths = np.fromiter(map(len, names), np.int64, len(names))
        ids.append(builder.stacks(flat, np.zeros_like(flat), lengths))
    return np.concatenate(ids)


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
