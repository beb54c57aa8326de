"""Profiles compared by what they say, not by how they store it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st

from ragprof.profiles.model import NO_TIME, Frame, Profile, ProfileBuilder, ValueType

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters=";#/()"),
    min_size=1,
    max_size=8,
).filter(lambda name: not name.isdecimal())
KINDS = (ValueType("wall", "nanoseconds"), ValueType("alloc_space", "bytes"))


@st.composite
def profiles(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMES) -> Profile:
    """Profiles with everything that a profile can have, or not."""
    kinds = KINDS[: draw(st.integers(1, 2))]
    clock = draw(st.sampled_from(["utc", "start"]))
    builder = ProfileBuilder(kinds, name=draw(st.sampled_from(["", "a profile"])), clock=clock)
    pool = draw(st.lists(st.tuples(names, st.sampled_from(["", "a.py", "lib/b.so"])), min_size=1))
    frames = [builder.frame(Frame(name, "", file, 7 if file else 0)) for name, file in pool]
    timed, threaded, labelled = (draw(st.booleans()) for _ in range(3))
    for number in range(draw(st.integers(0, 12))):
        path = draw(st.lists(st.sampled_from(frames), max_size=6))
        lines = draw(st.lists(st.integers(0, 3), min_size=len(path), max_size=len(path)))
        labels = {"span_id": draw(st.sampled_from(["", "0123456789abcdef"]))} if labelled else {}
        if labelled:
            labels["trace_id"] = draw(st.sampled_from(["", "ab" * 16]))
            labels["state"] = draw(st.sampled_from(["", "running", "<awaiting>"]))
        builder.sample(
            builder.stack(path, lines),
            *(draw(st.integers(0, 10**6)) for _ in kinds),
            time=1_700_000_000_000_000_000 + number * 10**7 if timed else None,
            thread=draw(st.integers(1, 3)) if threaded else None,
            task=draw(st.integers(1, 3)) if threaded else None,
            labels=labels,
        )
    return builder.build()


def rows(profile: Profile, *, without: tuple[str, ...] = (), folded: bool = False) -> Counter[Any]:
    """What every sample says, as a multiset; ``folded`` sums the weights of equal ones."""
    counted: Counter[Any] = Counter()
    labels = {name: label.values() for name, label in profile.labels.items()}
    for row, stack in enumerate(profile.sample_stacks.tolist()):
        low, high = profile.stack_offsets[stack], profile.stack_offsets[stack + 1]
        what = {
            "functions": tuple(frame.function for frame in profile.stack(stack)),
            "files": tuple((frame.file, frame.line) for frame in profile.stack(stack)),
            "lines": tuple(profile.stack_lines[low:high].tolist()),
            "time": None
            if profile.times is None or profile.times[row] == NO_TIME
            else (profile.clock, int(profile.times[row])),
            "thread": int(profile.threads[row]) if profile.threads is not None else 0,
            "task": int(profile.tasks[row]) if profile.tasks is not None else 0,
            "labels": tuple(
                sorted((name, value[row]) for name, value in labels.items() if value[row])
            ),
        }
        key = tuple(value for name, value in what.items() if name not in without)
        values = tuple(profile.values[row].tolist())
        if not folded:
            counted[(*key, values)] += 1
        elif values[0]:
            counted[key] += round(values[0])
    return counted


def functions(profile: Profile, *, own: bool = False) -> Counter[tuple[str, ...]]:
    """Weight per stack of function names, in whole units; ``own``: without empty stacks."""
    counted = rows(
        profile, without=("files", "lines", "time", "thread", "task", "labels"), folded=True
    )
    return Counter({key[0]: weight for key, weight in counted.items() if key[0] or not own})
