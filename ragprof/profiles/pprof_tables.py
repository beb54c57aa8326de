"""The tables of a pprof file, taken apart: samples, their stacks, locations, functions, strings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragprof.profiles import places, wire
from ragprof.profiles.distinct import (
    first_places,
    gathered,
    mostly_repeated,
    numbered,
    rows_of,
    slices,
    spread,
)
from ragprof.profiles.model import Ints, ProfileBuilder, ProfileError

# Fields of the message Profile.
SAMPLE, MAPPING, LOCATION, FUNCTION, STRING = 2, 3, 4, 5, 6
_NONE: Ints = np.zeros(0, dtype=np.int64)
_BLOCK = 1 << 13  # stacks decoded together: they stay in the processor's cache
_DIRECT = 1 << 16  # ids up to this are looked up in a table, however few there are


@dataclass(frozen=True)
class Message:
    """A Profile message taken apart."""

    data: bytes
    parts: dict[int, tuple[Ints, Ints]]
    strings: list[str]

    def messages(self, number: int) -> tuple[wire.Fields, int]:
        """The fields of the repeated message in field ``number``, and how many there are."""
        begins, ends = self.parts.get(number, (_NONE, _NONE))
        if len(ends) and ends.min() < 0:
            raise ProfileError(f"field {number} holds a number where a message belongs.")
        return wire.fields(self.data, begins, ends), len(begins)

    def number(self, number: int) -> int:
        """A number field of the Profile itself; 0 when it is not there."""
        values, _ = self.parts.get(number, (_NONE, _NONE))
        return int(values[-1]) if len(values) else 0

    def text(self, index: int, whose: str) -> str:
        """A text of the string table."""
        if not 0 <= index < len(self.strings):
            raise ProfileError(
                f"{whose} is string {index}, and string_table has {len(self.strings)}."
            )
        return self.strings[index]


@dataclass(frozen=True)
class Samples:
    """The distinct Sample messages: the place of each among all, their fields, and for every
    sample of the file which of them it is."""

    places: Ints
    fields: wire.Fields
    which: Ints | slice

    @classmethod
    def of(cls, message: Message) -> Samples:
        """Where most samples repeat another, byte for byte, only the distinct ones are walked."""
        begins, ends = message.parts.get(SAMPLE, (_NONE, _NONE))
        count = len(begins)
        some = spread(count)
        drawn = list(slices(message.data, begins[some].tolist(), ends[some].tolist()))
        if ends.min(initial=0) >= 0 and mostly_repeated(drawn, count):
            rows, which = numbered(slices(message.data, begins.tolist(), ends.tolist()))
            places = first_places(which, len(rows))
            return cls(places, wire.fields(message.data, begins[places], ends[places]), which)
        found, count = message.messages(SAMPLE)
        return cls(np.arange(count, dtype=np.int64), found, slice(None))


def stacks(builder: ProfileBuilder, message: Message, samples: Samples) -> Ints:
    """Adds the distinct stacks; the stack of every distinct sample."""
    data, found, count = message.data, samples.fields.of(1), len(samples.places)
    if (
        len(found) == count
        and np.array_equal(found.owner, np.arange(count))
        and np.all(found.wire == wire.BYTES)
    ):
        # One packed list a sample: equal bytes are equal stacks, and only those are decoded.
        rows, which = numbered(slices(data, found.begin.tolist(), found.end.tolist()))
        decoded = wire.packed_rows
    else:
        rows, which = numbered(rows_of(*wire.repeated(data, found, count)))
        decoded = _plain_rows
    locations = _Locations.of(builder, message)
    added = [_NONE]
    for low in range(0, len(rows), _BLOCK):
        # The innermost location comes first in the file: the rows of a block are read from the
        # last to the first, and all of it is turned round.
        ids, lengths = decoded(rows[low : low + _BLOCK][::-1])
        ids, lengths = ids[::-1], lengths[::-1]
        place = locations.places(ids)
        absent = np.flatnonzero(place < 0)
        if len(absent):
            stack = low + int(np.searchsorted(np.cumsum(lengths), absent[0], side="right"))
            sample = samples.places[int(np.flatnonzero(which == stack)[0])]
            raise ProfileError(
                f"sample {sample} names location {ids[absent[0]]}, which is not in the file."
            )
        added.append(builder.stacks(*locations.stacks(place, lengths)))
    return np.concatenate(added)[which]


def _plain_rows(rows: Sequence[bytes]) -> tuple[Ints, Ints]:
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.frombuffer(b"".join(rows), dtype=np.int64), sizes // 8


@dataclass(frozen=True)
class _Locations:
    """The locations: ids, ascending; their frames and lines, flat, outermost first; how many in
    each. ``direct``: from an id to its place among them, -1 where there is none."""

    ids: Ints
    frames: Ints
    lines: Ints
    counts: Ints
    direct: Ints | None

    @classmethod
    def of(cls, builder: ProfileBuilder, message: Message) -> _Locations:
        """The locations of a file; their frames are added."""
        ids, frames, lines, counts = _locations(builder, message)
        direct = None
        if len(ids) and ids[0] >= 0 and ids[-1] < _DIRECT + 8 * len(ids):
            direct = np.full(int(ids[-1]) + 2, -1, dtype=np.int64)
            direct[ids] = np.arange(len(ids))
        return cls(ids, frames, lines, counts, direct)

    def places(self, ids: Ints) -> Ints:
        """The place of each id, -1 where there is no such location."""
        if self.direct is not None:
            beyond = len(self.direct) - 1  # a place with -1 in it; negative ids lead there as well
            known: Ints = self.direct[np.minimum(ids.view(np.uint64), beyond).view(np.int64)]
            return known
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, place, -1)

    def stacks(self, place: Ints, lengths: Ints) -> tuple[Ints, Ints, Ints]:
        """Frames and lines of stacks of locations, and how many each stack has."""
        if len(self.frames) == len(self.counts):  # nothing was inlined
            return self.frames[place], self.lines[place], lengths
        each = self.counts[place]
        rows = gathered((np.cumsum(self.counts) - self.counts)[place], each)
        totals = np.concatenate([[0], np.cumsum(each)])
        ends = np.cumsum(lengths)
        return self.frames[rows], self.lines[rows], totals[ends] - totals[ends - lengths]


def _locations(builder: ProfileBuilder, message: Message) -> tuple[Ints, Ints, Ints, Ints]:
    """Location ids, ascending; their frames and lines, flat, outermost first; how many in each."""
    functions = _functions(builder, message)
    found, count = message.messages(LOCATION)
    ids = wire.last_value(found.of(1, wire.VARINT), count)
    addresses = wire.last_value(found.of(3, wire.VARINT), count)
    nested = found.of(4, wire.BYTES)
    inner = wire.fields(message.data, nested.begin, nested.end)
    function = wire.last_value(inner.of(1, wire.VARINT), len(nested)).tolist()
    line = wire.last_value(inner.of(2, wire.VARINT), len(nested)).tolist()
    lines_of: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for owner, function_id, number in zip(nested.owner.tolist(), function, line, strict=True):
        if function_id not in functions:
            raise ProfileError(
                f"location {ids[owner]} names function {function_id}, which is not in the file."
            )
        lines_of[owner].append((functions[function_id], max(0, number)))
    files = _mapping_files(message)
    mappings = wire.last_value(found.of(2, wire.VARINT), count).tolist()
    for owner, inlined in enumerate(lines_of):
        if not inlined:  # never symbolised
            file = files.get(mappings[owner], "")
            address = int(addresses[owner]) & 0xFFFFFFFFFFFFFFFF
            inlined.append((builder.frame(places.frame(f"{address:#x}", file)), 0))
    order = np.argsort(ids, kind="stable")
    ordered = [lines_of[index][::-1] for index in order.tolist()]
    flat = np.array(list(itertools.chain.from_iterable(ordered)), dtype=np.int64).reshape(-1, 2)
    return (
        ids[order],
        flat[:, 0],
        flat[:, 1],
        np.array([len(one) for one in ordered], dtype=np.int64),
    )


def _functions(builder: ProfileBuilder, message: Message) -> dict[int, int]:
    found, count = message.messages(FUNCTION)
    ids, names, system, files, lines = (
        wire.last_value(found.of(number, wire.VARINT), count).tolist() for number in range(1, 6)
    )
    frames = {}
    for index, function in enumerate(ids):
        name = message.text(names[index] or system[index], f"the name of function {function}")
        file = message.text(files[index], f"the file of function {function}")
        frames[function] = builder.frame(places.frame(name, file, max(0, lines[index])))
    return frames


def _mapping_files(message: Message) -> dict[int, str]:
    found, count = message.messages(MAPPING)
    ids = wire.last_value(found.of(1, wire.VARINT), count).tolist()
    files = wire.last_value(found.of(5, wire.VARINT), count).tolist()
    return {
        mapping: message.text(file, f"the file of mapping {mapping}")
        for mapping, file in zip(ids, files, strict=True)
    }
