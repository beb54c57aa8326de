"""Collapsed stacks, one per line: ``outer;inner;innermost 42`` (Brendan Gregg's format).

It carries function names and one weight per stack; files, lines, times and labels are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType

NO_STACK = "(no stack)"
SAMPLES = ValueType("samples", "count")


def dumps(profile: Profile, value: int = 0) -> str:
    """The stacks of one value type, identical ones merged, in the order of names.

    The format has no escapes: a semicolon or line break in a name becomes a colon or a space. A
    sample without frames is written as ``(no stack)``. Weights that are not whole keep their
    fraction, which inferno and speedscope read.
    """
    folded: dict[str, float] = {}
    names = [_clean(frame.function) for frame in profile.frames]
    weights = profile.stack_weights(value)
    for index in np.flatnonzero(weights).tolist():
        low, high = profile.stack_offsets[index], profile.stack_offsets[index + 1]
        path = ";".join(names[frame] for frame in profile.stack_frames[low:high].tolist())
        folded[path or NO_STACK] = folded.get(path or NO_STACK, 0.0) + float(weights[index])
    return "".join(f"{path} {_number(folded[path])}\n" for path in sorted(folded))


def loads(text: str, *, name: str = "", kind: ValueType = SAMPLES) -> Profile:
    """The Profile of a collapsed file, one sample per line; ``kind`` says what the weights are.

    Empty lines are skipped. Raises `ProfileError` naming the line that is not ``stack weight``.
    """
    builder = ProfileBuilder([kind], name=name)
    for path, weight in _lines(text):
        frames = [] if path == NO_STACK else path.split(";")
        builder.sample(builder.stack([builder.frame(Frame(frame)) for frame in frames]), weight)
    return builder.build()


def _lines(text: str) -> Iterator[tuple[str, float]]:
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip():
            continue
        path, _, last = line.rstrip().rpartition(" ")
        try:
            weight = float(last)
        except ValueError:
            weight = math.nan
        if not path or not (math.isfinite(weight) and weight >= 0):
            raise ProfileError(
                f"line {number} is not a stack and a weight: {line[:80]!r}. Expected "
                "frames joined by ';', a space, and a number that is not negative."
            )
        yield path, weight


def _clean(name: str) -> str:
    return name.replace(";", ":").replace("\r", " ").replace("\n", " ") or "(unnamed)"


def _number(weight: float) -> str:
    return str(int(weight)) if weight.is_integer() else repr(weight)
