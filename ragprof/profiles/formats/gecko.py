"""Profiles of the Firefox profiler: Gecko's own form, and the processed form that its page saves.

https://github.com/firefox-devtools/profiler/tree/main/docs-developer. Stacks are nodes with a
prefix; tables are rows with a schema in Gecko's form, columns in the processed one, where newer
versions keep them once for all threads.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ragprof.profiles import fields, places, quantities
from ragprof.profiles.calls import add_stacks
from ragprof.profiles.content import Content
from ragprof.profiles.model import NO_TIME, Label, Profile, ProfileBuilder, ProfileError, ValueType

TITLE = "a Firefox profile"
LOOKS_FOR = "a JSON object with meta and threads"
SUFFIXES = (".gecko.json", ".firefox.json")

_SOURCE = re.compile(r"\[\d+\]$")  # newer Firefox numbers its sources


def recognises(content: Content) -> bool:
    """A JSON object with ``meta`` and ``threads``."""
    return content.has("meta", "threads")


def read(content: Content) -> list[Profile]:
    """A profile per thread with samples, of all processes; times are UTC where the file has them.

    A sample weighs the profile's interval, or its own weight where it has one. Markers are not
    kept. Raises `ProfileError` naming the table and row at fault.
    """
    return list(_process(content.document, "", 0))


def _process(document: Any, where: str, depth: int) -> list[Profile]:
    if depth > 4:
        raise ProfileError(f"{where} nests processes too deep.")
    meta = fields.field(document, "meta", dict, where)
    profiles = []
    for index, thread in enumerate(fields.field(document, "threads", list, where)):
        place = f"{where}threads[{index}]"
        if not isinstance(thread, dict):
            raise ProfileError(f"{place} is not an object.")
        profile = _thread(thread, document.get("shared"), meta, place)
        if profile is not None:
            profiles.append(profile)
    for index, process in enumerate(document.get("processes") or []):
        profiles += _process(process, f"{where}processes[{index}].", depth + 1)
    return profiles


class _Table:
    """A table in either form: columns by name."""

    def __init__(self, table: Any, where: str) -> None:
        if not isinstance(table, dict):
            raise ProfileError(f"{where} is missing or no table.")
        self.where = where
        self._table = table
        self._rows = table.get("data") if isinstance(table.get("schema"), dict) else None

    def column(self, name: str) -> list[Any] | None:
        """The values of a column, None for those that a row lacks; None without the column."""
        if self._rows is None:
            values = self._table.get(name)
            return values if isinstance(values, list) else None
        place = self._table["schema"].get(name)
        if place is None:
            return None
        if not isinstance(place, int) or place < 0 or not isinstance(self._rows, list):
            raise ProfileError(f"{self.where} has no rows for its schema.")
        return [
            row[place] if isinstance(row, list) and place < len(row) else None for row in self._rows
        ]

    def needed(self, name: str) -> list[Any]:
        """As `column`, which must be there."""
        values = self.column(name)
        if values is None:
            raise ProfileError(f"{self.where}.{name} is missing.")
        return values


def _thread(
    thread: dict[str, Any], shared: Any, meta: dict[str, Any], where: str
) -> Profile | None:
    tables = {**(shared if isinstance(shared, dict) else {}), **thread}
    samples = _Table(tables.get("samples"), f"{where}.samples")
    stacks = samples.needed("stack")
    if not stacks:
        return None
    interval = fields.number(meta, "interval", "meta", 1.0)
    kind, weights = _weights(thread, samples, len(stacks), interval, where)
    builder = ProfileBuilder([kind], name=_name(thread))
    prefixes, frames, lines = _nodes(builder, tables, where)
    kept = [row for row, stack in enumerate(stacks) if stack is not None]
    if not kept:
        return None
    wrong = next((row for row in kept if type(stacks[row]) is not int), None)
    if wrong is not None:
        raise ProfileError(f"{where}.samples.stack[{wrong}] is no number of a stack.")
    try:
        ids = add_stacks(builder, prefixes, frames, lines, [stacks[row] for row in kept])
    except ProfileError as error:
        raise ProfileError(f"{where}.stackTable: {error}") from error
    nothing = np.zeros(len(kept), dtype=np.int64)
    tid = thread.get("tid")
    number = int(tid) if isinstance(tid, int | str) and str(tid).isdecimal() else 0
    labels = {
        "thread_name": fields.text(thread, "name"),
        "process": fields.text(thread, "pid"),
        "process_name": fields.text(thread, "processName") or fields.text(thread, "processType"),
    }
    builder.samples(
        ids,
        np.array(weights, dtype=np.float64)[kept],
        times=_times(samples, meta, len(stacks))[kept],
        threads=np.full(len(kept), number) if 0 < number < 1 << 62 else None,
        labels={name: Label(nothing, (text,)) for name, text in labels.items() if text},
    )
    return builder.build()


def _name(thread: dict[str, Any]) -> str:
    name, tid = fields.text(thread, "name"), fields.text(thread, "tid")
    return f"{name} {tid}".strip()


def _weights(
    thread: dict[str, Any], samples: _Table, count: int, interval: float, where: str
) -> tuple[ValueType, list[float]]:
    weights = samples.column("weight")
    kind = fields.text(thread.get("samples") or {}, "weightType", "samples")
    if weights is None or kind == "samples":
        counts = (
            [1.0] * count
            if weights is None
            else [
                fields.weight(1 if one is None else one, f"{where}.samples.weight[{row}]")
                for row, one in enumerate(weights)
            ]
        )
        return quantities.WALL, [quantities.scaled(one * interval, 1e6) for one in counts]
    read = [
        fields.weight(0 if one is None else one, f"{where}.samples.weight[{row}]")
        for row, one in enumerate(weights)
    ]
    if kind == "tracing-ms":
        return quantities.WALL, [quantities.scaled(one, 1e6) for one in read]
    return ValueType("alloc_space", "bytes"), read


def _times(samples: _Table, meta: dict[str, Any], count: int) -> Any:
    start = fields.number(meta, "startTime", "meta", 0.0)  # ms since 1970
    times = samples.column("time")
    if times is None:
        deltas = samples.column("timeDeltas")
        if deltas is None:
            return np.full(count, NO_TIME)
        times = np.cumsum([float(delta or 0) for delta in deltas]).tolist()
    base = round(start * 1e6)
    found = [
        NO_TIME if time is None else base + round(fields.finite(time, "samples.time") * 1e6)
        for time in times
    ]
    if any(abs(time) >= 1 << 62 and time != NO_TIME for time in found):
        raise ProfileError("samples.time lies beyond all times.")
    return np.array(found, dtype=np.int64)


def _nodes(
    builder: ProfileBuilder, tables: dict[str, Any], where: str
) -> tuple[list[int], list[int], list[int]]:
    """Prefix, frame and line of every row of the stack table."""
    strings = tables.get("stringArray", tables.get("stringTable"))
    if not isinstance(strings, list):
        raise ProfileError(f"{where}.stringTable is missing.")
    table = _Table(tables.get("frameTable"), f"{where}.frameTable")
    if table.column("func") is None:
        frames, lines = _located(builder, table, strings, where)
    else:
        functions = _Table(tables.get("funcTable"), f"{where}.funcTable")
        frames, lines = _of_functions(builder, table, functions, strings, where)
    stacks = _Table(tables.get("stackTable"), f"{where}.stackTable")
    prefixes = stacks.needed("prefix")
    rows = stacks.needed("frame")
    for row, frame in enumerate(rows):
        if type(frame) is not int or not 0 <= frame < len(frames):
            raise ProfileError(f"{where}.stackTable.frame[{row}] is no row of frameTable.")
    for row, prefix in enumerate(prefixes):
        if prefix is not None and (type(prefix) is not int or not -1 <= prefix < row):
            raise ProfileError(
                f"{where}.stackTable.prefix[{row}] is {str(prefix)[:20]}, which does not come "
                "before it."
            )
    if len(prefixes) != len(rows):
        raise ProfileError(f"{where}.stackTable has {len(prefixes)} prefixes, {len(rows)} frames.")
    callers = [-1 if prefix is None else prefix for prefix in prefixes]
    return callers, [frames[row] for row in rows], [lines[row] for row in rows]


def _located(
    builder: ProfileBuilder, table: _Table, strings: list[Any], where: str
) -> tuple[list[int], list[int]]:
    """Frames of Gecko's form: the location is ``function (file:line:column)``."""
    frames, lines = [], []
    ran = table.column("line") or []
    for row, location in enumerate(table.needed("location")):
        text = _string(strings, location, f"{where}.frameTable.location[{row}]")
        function, file, line = _location(text)
        frames.append(builder.frame(places.frame(function, file, line)))
        number = ran[row] if row < len(ran) else None
        lines.append(number if type(number) is int and 0 <= number < 1 << 31 else 0)
    return frames, lines


def _location(text: str) -> tuple[str, str, int]:
    text = _SOURCE.sub("", text)
    name, _, rest = text.rpartition(" (")
    if not name or not rest.endswith(")"):
        return text, text if "://" in text else "", 0
    parts = rest[:-1].split(":")
    numbers: list[int] = []
    while len(parts) > 1 and len(numbers) < 2 and parts[-1].isdecimal() and len(parts[-1]) < 10:
        numbers.insert(0, int(parts.pop()))
    return name, ":".join(parts), numbers[0] if numbers else 0


def _of_functions(
    builder: ProfileBuilder, table: _Table, functions: _Table, strings: list[Any], where: str
) -> tuple[list[int], list[int]]:
    """Frames of the processed form: a function and the line that ran."""
    names = functions.needed("name")
    files = functions.column("fileName") or [None] * len(names)
    first = functions.column("lineNumber") or [None] * len(names)
    known = []
    for row, name in enumerate(names):
        file = _string(strings, files[row], f"{where}.funcTable.fileName[{row}]")
        line = first[row] if type(first[row]) is int and 0 <= first[row] < 1 << 31 else 0
        text = _string(strings, name, f"{where}.funcTable.name[{row}]")
        known.append(builder.frame(places.frame(text, file, line)))
    frames, lines = [], []
    ran = table.column("line") or []
    for row, function in enumerate(table.needed("func")):
        if type(function) is not int or not 0 <= function < len(known):
            raise ProfileError(f"{where}.frameTable.func[{row}] is no row of funcTable.")
        frames.append(known[function])
        number = ran[row] if row < len(ran) else None
        lines.append(number if type(number) is int and 0 <= number < 1 << 31 else 0)
    return frames, lines


def _string(strings: list[Any], index: Any, where: str) -> str:
    if index is None:
        return ""
    if type(index) is not int or not 0 <= index < len(strings):
        raise ProfileError(f"{where} is no row of the string table.")
    return str(strings[index])
