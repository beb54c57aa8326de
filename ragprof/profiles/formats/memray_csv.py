"""What ``memray transform csv`` writes: one line per place that allocated, the innermost first.

Columns: allocator, num_allocations, size, tid, thread_name, stack_trace, whose frames are
``function;file;line`` joined by ``|``.
"""

from __future__ import annotations

import csv
import io

from ragprof.profiles import places
from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileBuilder, ProfileError, ValueType

TITLE = "memray's CSV"
LOOKS_FOR = "the columns allocator, num_allocations, size and stack_trace"
SUFFIXES = (".memray.csv",)

HEADER = ["allocator", "num_allocations", "size", "tid", "thread_name", "stack_trace"]
KINDS = (ValueType("alloc_space", "bytes"), ValueType("alloc_objects", "count"))


def recognises(content: Content) -> bool:
    """The line of the columns' names."""
    return not content.is_binary and content.start.split("\n", 1)[0].strip() == ",".join(HEADER)


def read(content: Content) -> list[Profile]:
    """One sample per line with bytes and allocations, thread and the label ``allocator``.

    Raises `ProfileError` naming the line at fault.
    """
    builder = ProfileBuilder(KINDS)
    rows = csv.reader(io.StringIO(content.text), strict=True)
    try:
        next(rows)
        for row in rows:
            if row:
                _add(builder, row, f"line {rows.line_num}")
    except csv.Error as error:
        raise ProfileError(f"line {rows.line_num} is no CSV: {error}.") from error
    return [builder.build()]


def _add(builder: ProfileBuilder, row: list[str], where: str) -> None:
    if len(row) != len(HEADER):
        raise ProfileError(f"{where} has {len(row)} columns, not {len(HEADER)}.")
    allocator, count, size, thread, thread_name, trace = row
    if not (count.isdecimal() and size.isdecimal() and len(count) < 19 and len(size) < 19):
        raise ProfileError(f"{where} has no number of allocations and bytes.")
    frames, lines = [], []
    for text in reversed(trace.split("|")) if trace else ():
        head, _, line = text.rpartition(";")
        function, _, file = head.partition(";")
        frames.append(builder.frame(places.frame(function or text, file)))
        lines.append(int(line) if line.isdecimal() and len(line) < 10 else 0)
    builder.sample(
        builder.stack(frames, lines),
        float(size),
        float(count),
        thread=int(thread) if thread.isdecimal() and len(thread) < 19 else None,
        labels={"allocator": allocator, "thread_name": thread_name},
    )
