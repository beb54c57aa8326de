"""Many protobuf messages of one kind walked at once: one step of numpy per field, not per message.

Protobuf's wire format (protobuf.dev, "Encoding") is a list of tags, each followed by a varint,
eight bytes, four bytes, or a length and as many bytes. All messages take their n-th field in the
same step, so the cost in Python is that of the longest message.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
MOST_FIELDS = 2000  # of one message; a longer one is for the walk that takes one at a time

Ints = NDArray[np.int64]
Octets = NDArray[np.uint8]

_PADDING = 16  # a tag or number may be read beyond the end before the end is checked


class Unusual(Exception):
    """Bytes that this walk leaves to protobuf's own decoder: damaged, or legal but never sent."""


@dataclass(frozen=True)
class Messages:
    """Messages in one buffer: `data` (padded), and where each starts and ends in it."""

    data: Octets
    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Fields:
    """Fields of many messages, in the order of their messages and within them as written.

    message: which message it is of. start, end: its content in the buffer. value: of a varint
    (the low 64 bits as they are).
    """

    data: Octets
    message: Ints
    number: Ints
    wire: Ints
    start: Ints
    end: Ints
    value: Ints

    def of(self, number: int, wire: int) -> Field:
        """The fields with one number; raises Unusual when one has another wire type."""
        rows = np.flatnonzero(self.number == number)
        if (self.wire[rows] != wire).any():
            raise Unusual(f"field {number} has another wire type")
        return Field(self, rows, self.message[rows])

    def single(self, number: int, wire: int) -> Field:
        """As `of`, and raises Unusual when a message has the field twice."""
        field = self.of(number, wire)
        if (field.message[1:] == field.message[:-1]).any():
            raise Unusual(f"field {number} is there twice")
        return field


@dataclass(frozen=True)
class Field:
    """The fields of one number. rows: index into `fields`. message: which message each is of."""

    fields: Fields
    rows: Ints
    message: Ints

    def contents(self) -> pa.Array:
        """What the fields hold, as a binary array."""
        start, end = self.fields.start[self.rows], self.fields.end[self.rows]
        return slices(self.fields.data, start, end)

    def varints(self) -> Ints:
        """The numbers they hold, as signed ones of 64 bits."""
        return self.fields.value[self.rows]

    def fixed64(self) -> NDArray[np.uint64]:
        """The unsigned numbers of fields of eight bytes."""
        start = self.fields.start[self.rows]
        numbers: NDArray[np.uint64] = _octets(self.fields.data, start, 8).view("<u8").reshape(-1)
        return numbers

    def float64(self) -> NDArray[np.float64]:
        """The doubles of fields of eight bytes."""
        return self.fixed64().view("<f8")

    def octets(self, width: int) -> tuple[Octets, Ints]:
        """Contents of just `width` octets, and the message of each; others are left out."""
        start = self.fields.start[self.rows]
        fits = self.fields.end[self.rows] - start == width
        if fits.all():
            return _octets(self.fields.data, start, width), self.message
        return _octets(self.fields.data, start[fits], width), self.message[fits]


def join(parts: list[bytes]) -> Messages:
    """Messages given one by one, in one buffer."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    end = np.cumsum(lengths)
    data = np.frombuffer(b"".join([*parts, bytes(_PADDING)]), np.uint8)
    return Messages(data, end - lengths, end)


def elements(column: pa.Array) -> Messages:
    """The elements of a binary array as messages."""
    bounds = np.frombuffer(column.buffers()[1], np.int32)[column.offset :]
    offsets: Ints = bounds[: len(column) + 1].astype(np.int64)
    content = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    return Messages(
        np.concatenate([content, np.zeros(_PADDING, np.uint8)]), offsets[:-1], offsets[1:]
    )


def walk(messages: Messages) -> Fields:
    """All fields of all messages. Raises Unusual for groups and for bytes that do not add up."""
    data, ends = messages.data, messages.end
    live = np.flatnonzero(messages.start < ends)
    cursor = messages.start[live]
    steps: list[tuple[Ints, ...]] = []
    while len(live):
        if len(steps) == MOST_FIELDS:
            raise Unusual("a message of very many fields")
        tag, content = _varints(data, cursor)
        number, wire = (tag >> np.uint64(3)).astype(np.int64), (tag & np.uint64(7)).astype(np.int64)
        if (number == 0).any():
            raise Unusual("a field without a number")
        value, after = _varints(data, content)
        is_bytes = wire == BYTES
        start = np.where(is_bytes, after, content)
        end = np.where(is_bytes, after + np.minimum(value, len(data)).astype(np.int64), after)
        if not (is_bytes | (wire == VARINT)).all():
            fixed = np.where(wire == EIGHT_BYTES, 8, np.where(wire == FOUR_BYTES, 4, 0))
            if ((fixed == 0) & ~is_bytes & (wire != VARINT)).any():
                raise Unusual("a group")
            end = np.where(fixed > 0, content + fixed, end)
        limit = ends[live]
        if (end > limit).any():
            raise Unusual("a field that ends after its message")
        steps.append((live, number, wire, start, end, value.view(np.int64)))
        going = end < limit
        live, cursor = live[going], end[going]
    return _in_order(messages, steps)


def _in_order(messages: Messages, steps: list[tuple[Ints, ...]]) -> Fields:
    """The fields of all steps put behind one another, message by message."""
    counts = np.zeros(len(messages), np.int64)
    for place, (live, *_) in enumerate(steps):
        counts[live] = place + 1  # a message has a field in each step until its last
    base = np.cumsum(counts) - counts
    total = int(counts.sum())
    number, wire, start, end, value = (np.empty(total, np.int64) for _ in range(5))
    for place, (live, *columns) in enumerate(steps):
        at = base[live] + place
        for target, column in zip((number, wire, start, end, value), columns, strict=True):
            target[at] = column
    message = np.repeat(np.arange(len(messages)), counts)
    return Fields(messages.data, message, number, wire, start, end, value)


def _varints(data: Octets, at: Ints) -> tuple[NDArray[np.uint64], Ints]:
    """The numbers that begin at some places, and where they end."""
    octet = data[at]
    value = (octet & 127).astype(np.uint64)
    after = at + 1
    more = np.flatnonzero(octet >= 128)
    shift = 7
    while len(more):
        if shift > 63:
            raise Unusual("a number of more than ten bytes")
        octet = data[after[more]]
        value[more] |= (octet & 127).astype(np.uint64) << np.uint64(shift)
        after[more] += 1
        more = more[octet >= 128]
        shift += 7
    return value, after


def _octets(data: Octets, start: Ints, width: int) -> Octets:
    found: Octets = np.lib.stride_tricks.sliding_window_view(data, width)[start]
    return found


def hexadecimal(raw: Octets) -> pa.Array:
    """Rows of octets as lower-case hex, a string array."""
    rows, width = raw.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * (2 * width)
    digits = raw.tobytes().hex().encode()
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(digits))


def slices(data: Octets, start: Ints, end: Ints) -> pa.Array:
    """Pieces of a buffer, in ascending order and apart from each other, as a binary array."""
    if not len(start):
        return pa.array([], pa.binary())
    bounds = np.empty(2 * len(start), np.int32)
    bounds[0::2], bounds[1::2] = start, end
    between = pa.BinaryArray.from_buffers(
        pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
    return between.take(pa.array(np.arange(0, len(bounds), 2)))
