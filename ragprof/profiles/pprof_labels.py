"""Labels of pprof samples: times, threads and tasks among them, as profilers name them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ragprof.profiles import wire
from ragprof.profiles.distinct import first_places
from ragprof.profiles.model import NO_TIME, Ints, Label

TIME = "end_timestamp_ns"
SINCE_START = "ns since start"

_THREADS = ("thread id", "thread_id", "tid")
_TASKS = ("task id", "task_id")
_NAMES = {
    "thread name": "thread_name",
    "thread": "thread_name",
    "task name": "task_name",
    "trace id": "trace_id",
    "span id": "span_id",
    "pid": "process",
    "process id": "process",
}


@dataclass(frozen=True)
class Labels:
    """What the labels of all samples say. ``relative``: the times count from the start."""

    times: Ints | None
    relative: bool
    threads: Ints | None
    tasks: Ints | None
    texts: dict[str, Label]

    @classmethod
    def of(
        cls, data: bytes, found: wire.Fields, samples: int, text: Callable[[int, str], str]
    ) -> Labels:
        """The labels in these fields of ``samples`` messages; ``text`` looks up strings.

        A key that a sample has twice keeps its last value; numbers become text with their unit.
        """
        labels = wire.fields(data, found.begin, found.end)
        count = len(found)
        keys, strings, numbers, units = (
            wire.last_value(labels.of(number, wire.VARINT), count) for number in range(1, 5)
        )
        columns: dict[str, Ints] = {}
        texts: dict[str, Label] = {}
        for key in np.unique(keys).tolist():
            name = text(key, "the key of a label")
            rows = np.flatnonzero(keys == key)
            owners = found.owner[rows]
            if name in (TIME, SINCE_START):
                column = columns.setdefault(name, np.full(samples, NO_TIME, dtype=np.int64))
                column[owners] = numbers[rows]
            elif name in _THREADS or name in _TASKS:
                part = "threads" if name in _THREADS else "tasks"
                column = columns.setdefault(part, np.zeros(samples, dtype=np.int64))
                column[owners] = _numeric(numbers[rows], strings[rows], text)
            else:
                name = _NAMES.get(name, name)
                texts[name] = _text(
                    owners, samples, strings[rows], numbers[rows], units[rows], text
                )
        times = columns.get(TIME, columns.get(SINCE_START))
        return cls(times, TIME not in columns, columns.get("threads"), columns.get("tasks"), texts)

    def repeated(self, which: Ints | slice) -> Labels:
        """The labels of many samples, each being one of these."""
        times, threads, tasks = (
            None if column is None else column[which]
            for column in (self.times, self.threads, self.tasks)
        )
        texts = {
            name: Label(label.codes[which], label.vocabulary) for name, label in self.texts.items()
        }
        return Labels(times, self.relative, threads, tasks, texts)


def _numeric(numbers: Ints, strings: Ints, text: Callable[[int, str], str]) -> Ints:
    """Numbers as they are, and numbers that were written as text."""
    result = numbers.copy()
    for string in np.unique(strings[strings > 0]).tolist():
        written = text(string, "a label")
        if written.isdecimal() and len(written) < 19:
            result[strings == string] = int(written)
    return result


def _text(
    owners: Ints,
    samples: int,
    strings: Ints,
    numbers: Ints,
    units: Ints,
    text: Callable[[int, str], str],
) -> Label:
    combined = np.zeros(len(owners), dtype=np.int64)
    for column in (strings, numbers, units):
        if column.any():
            known, codes = np.unique(column, return_inverse=True)
            _, combined = np.unique(combined * len(known) + codes, return_inverse=True)
    first = first_places(combined, int(combined.max(initial=-1)) + 1)
    vocabulary: dict[str, int] = {"": 0}
    renamed = []
    for string, number, unit in zip(
        strings[first].tolist(), numbers[first].tolist(), units[first].tolist(), strict=True
    ):
        shown = text(string, "a label") if string else f"{number} {text(unit, 'a unit')}".rstrip()
        renamed.append(vocabulary.setdefault(shown, len(vocabulary)))
    codes = np.zeros(samples, dtype=np.int64)
    codes[owners] = np.array(renamed, dtype=np.int64)[combined]
    return Label(codes, tuple(vocabulary))
