"""Protocol buffers' wire format, walked in numpy: many messages at once, field by field.

https://protobuf.dev/programming-guides/encoding. All messages of a kind advance together, one field
a round, so a million messages of three fields cost three rounds and no Python per message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragprof.profiles.distinct import gathered
from ragprof.profiles.model import Ints, ProfileError

Bytes = NDArray[np.uint8]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_ROUNDS = 48  # messages of more fields are walked one by one
_BLOCK = 1 << 15  # messages walked together: their columns stay in the processor's cache
_FIXED = np.array([0, 8, 0, 0, 0, 4, 0, 0], dtype=np.int64)
_KNOWN = np.array([True, True, True, False, False, True, False, False])


@dataclass(frozen=True)
class Fields:
    """Fields of messages, in the order of the file.

    ``owner``: the message of each. ``number``, ``wire``: its tag. ``value``: of a varint, its 64
    bits as a signed number. ``begin``, ``end``: where the content of bytes lies.
    """

    owner: Ints
    number: Ints
    wire: Ints
    value: Ints
    begin: Ints
    end: Ints

    def of(self, number: int, *wires: int) -> Fields:
        """The fields of this number and, if given, of these wire types."""
        chosen = self.number == number
        if wires:
            chosen &= np.isin(self.wire, wires)
        return Fields(*(getattr(self, name)[chosen] for name in Fields.__annotations__))

    def __len__(self) -> int:
        return len(self.owner)


def top_level(data: bytes) -> dict[int, tuple[Ints, Ints]]:
    """The fields of one large message by number: begin and end of each (a varint: its value, -1).

    Raises `ProfileError` naming the offset where the bytes are no message.
    """
    places: list[int] = []
    add = places.append
    at, size = 0, len(data)
    last = size - 2
    while at < size:
        add(at)
        if data[at] & 0x87 == BYTES and at < last:  # as nearly all are: a tag of one byte
            length = data[at + 1]
            if length < 0x80:
                at += length + 2
                continue
            more = data[at + 2]
            if more < 0x80:
                at += (length & 0x7F | more << 7) + 3
                continue
        at = _after(data, at, size)
    if at > size:
        raise ProfileError(_beyond(places[-1], at, size))
    buffer = np.frombuffer(data, dtype=np.uint8)
    limits = np.full(len(places), size, dtype=np.int64)
    tags, begins = _varints_at(buffer, np.array(places, dtype=np.int64), limits)
    wires, ends = tags & 7, np.full(len(places), -1, dtype=np.int64)
    values = np.zeros(len(places), dtype=np.int64)
    numbers = (wires == VARINT) | (wires == BYTES)
    values[numbers], begins[numbers] = _varints_at(buffer, begins[numbers], limits[numbers])
    of_bytes = wires == BYTES
    ends[of_bytes] = begins[of_bytes] + values[of_bytes]
    begins[wires == VARINT] = values[wires == VARINT]
    kept = numbers.nonzero()[0]
    fields_ = tags >> 3
    return {
        int(number): (begins[rows], ends[rows])
        for number in np.unique(fields_[kept])
        for rows in [kept[fields_[kept] == number]]
    }


def _after(data: bytes, position: int, size: int) -> int:
    """Where the field at ``position`` ends."""
    tag, at = _varint(data, position, size)
    wire = tag & 7
    if wire == BYTES:
        length, at = _varint(data, at, size)
        at += length
    elif wire == VARINT:
        _, at = _varint(data, at, size)
    elif wire in (FIXED64, FIXED32):
        at += 8 if wire == FIXED64 else 4
    else:
        raise ProfileError(f"byte {position:,} begins no field (wire type {wire}).")
    if at > size:
        raise ProfileError(_beyond(position, at, size))
    return at


def _beyond(position: int, at: int, size: int) -> str:
    return (
        f"the field at byte {position:,} claims to end at byte {at:,}, and there are {size:,}: the "
        "file is cut short or damaged."
    )


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    begin = at
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ProfileError(f"the number at byte {begin:,} does not end: the file is damaged.")


def fields(data: bytes, begins: Ints, ends: Ints) -> Fields:
    """The fields of many messages, message ``i`` lying at ``begins[i]:ends[i]``.

    Raises `ProfileError` naming the offset where the bytes are no message.
    """
    blocks = []
    for low in range(0, len(begins), _BLOCK):
        found = _fields(data, begins[low : low + _BLOCK], ends[low : low + _BLOCK])
        if found:
            position, owner, *columns = (
                np.concatenate(parts) for parts in zip(*found, strict=True)
            )
            order = np.argsort(position, kind="stable")
            blocks.append([owner[order] + low, *(column[order] for column in columns)])
    if not blocks:
        nothing = np.zeros(0, dtype=np.int64)
        return Fields(*[nothing] * 6)
    return Fields(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _fields(data: bytes, begins: Ints, ends: Ints) -> list[tuple[Ints, ...]]:
    """Place, owner, number, wire, value, begin and end of the fields, a round after the other."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    at, owner, limit = begins, np.arange(len(begins), dtype=np.int64), ends
    rounds: list[tuple[Ints, ...]] = []
    for _ in range(_ROUNDS):
        inside = at < limit
        if not inside.all():
            at, owner, limit = at[inside], owner[inside], limit[inside]
        if not len(at):
            return rounds
        position = at
        tag, at = _varints_at(buffer, at, limit)
        wire = tag & 7
        numbers = (wire == VARINT) | (wire == BYTES)
        value, begin = _some_varints(buffer, at, limit, numbers)
        end = begin + np.where(wire == BYTES, value, _FIXED[wire])
        wrong = np.flatnonzero((end > limit) | (end < begin) | ~_KNOWN[wire])
        if len(wrong):
            raise ProfileError(
                f"the field at byte {int(position[wrong[0]]):,} does not fit in its message: the "
                "file is cut short or damaged."
            )
        rounds.append((position, owner, tag >> 3, wire, value, begin, end))
        at = end
    rest = np.flatnonzero(at < limit)
    for index in rest.tolist():
        rounds.append(_one_by_one(data, int(at[index]), int(limit[index]), int(owner[index])))
    return rounds


def _one_by_one(data: bytes, at: int, end: int, owner: int) -> tuple[Ints, ...]:
    rows = []
    while at < end:
        position = at
        tag, at = _varint(data, at, end)
        wire, value, begin = tag & 7, 0, at
        if wire in (VARINT, BYTES):
            value, at = _varint(data, at, end)
            begin = at
        at += {BYTES: value, FIXED64: 8, FIXED32: 4}.get(wire, 0)
        if at > end or wire not in (VARINT, BYTES, FIXED64, FIXED32):
            raise ProfileError(
                f"the field at byte {position:,} does not fit in its message: the file is cut "
                "short or damaged."
            )
        signed = value if value < 1 << 63 else value - (1 << 64)
        rows.append((position, owner, tag >> 3, wire, signed, begin, at))
    return tuple(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))


def _varints_at(buffer: Bytes, at: Ints, limit: Ints) -> tuple[Ints, Ints]:
    """The varints that begin at these places, and the places after them."""
    value = np.zeros(len(at), dtype=np.uint64)
    after = at.copy()
    going: Ints | slice = slice(None)
    for shift in range(0, 70, 7):
        places = after[going]
        short = np.flatnonzero(places >= limit[going])
        if len(short):
            raise ProfileError(
                f"the number before byte {int(places[short[0]]):,} does not end: the file is cut "
                "short or damaged."
            )
        byte = buffer[places]
        value[going] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
        after[going] = places + 1
        more = byte >= 0x80
        if not more.any():
            return value.view(np.int64), after
        going = np.flatnonzero(more) if isinstance(going, slice) else going[more]
    raise ProfileError(
        f"the number before byte {int(after[going][0]):,} does not end: the file is damaged."
    )


def _some_varints(
    buffer: Bytes, at: Ints, limit: Ints, which: NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """`_varints_at` of some; the others are 0 and end where they begin."""
    if which.all():
        return _varints_at(buffer, at, limit)
    values, after = np.zeros_like(at), at.copy()
    values[which], after[which] = _varints_at(buffer, at[which], limit[which])
    return values, after


def packed(data: bytes, begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """The varints in packed fields at ``begins[i]:ends[i]``: the values, and how many in each.

    Raises `ProfileError` when one does not end in its field.
    """
    sizes = ends - begins
    return _unpacked(np.frombuffer(data, dtype=np.uint8)[gathered(begins, sizes)], sizes)


def packed_rows(rows: Sequence[bytes]) -> tuple[Ints, Ints]:
    """`packed` of fields whose contents are at hand."""
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    return _unpacked(np.frombuffer(b"".join(rows), dtype=np.uint8), sizes)


def _unpacked(content: Bytes, sizes: Ints) -> tuple[Ints, Ints]:
    """The varints in fields that lie one after the other, and how many in each."""
    last = content < 0x80
    edges = np.cumsum(sizes)
    if not last[edges[sizes > 0] - 1].all():
        raise ProfileError("a list of numbers ends in the middle of one: the file is damaged.")
    at = np.flatnonzero(last)
    counts = np.diff(np.searchsorted(at, edges), prepend=0)
    values = content[at].astype(np.uint64)
    # What stands before a number's last byte belongs to it unless it ends a number itself. Before
    # the first byte index -1 leads to the last one, which ends a number.
    longer = np.flatnonzero(~last[at - 1])
    before = at[longer] - 1
    for _ in range(9):
        if not len(longer):
            break
        values[longer] = values[longer] << np.uint64(7) | (content[before] & 0x7F)
        before -= 1
        more = ~last[before]
        longer, before = longer[more], before[more]
    if len(longer):
        raise ProfileError("a number has more than ten bytes: the file is damaged.")
    return values.view(np.int64), counts.astype(np.int64)


def repeated(data: bytes, found: Fields, owners: int) -> tuple[Ints, Ints]:
    """A repeated number field, packed or not: the values by owner, and how many each owner has."""
    plain = found.wire == VARINT
    if plain.all():
        return found.value, np.bincount(found.owner, minlength=owners)
    values, counts = packed(data, found.begin[~plain], found.end[~plain])
    each = np.ones(len(found), dtype=np.int64)
    each[~plain] = counts
    if plain.any():
        starts = np.cumsum(each) - each
        mixed = np.empty(int(each.sum()), dtype=np.int64)
        mixed[starts[plain]] = found.value[plain]
        mixed[gathered(starts[~plain], counts)] = values
        values = mixed
    of_owner = np.bincount(found.owner, weights=each, minlength=owners).astype(np.int64)
    return values, of_owner


def last_value(found: Fields, owners: int, default: int = 0) -> Ints:
    """A number field of every owner; the last one counts, as protocol buffers say."""
    values = np.full(owners, default, dtype=np.int64)
    values[found.owner] = found.value
    return values


def varint(value: int) -> bytes:
    """A number as a varint; negative ones in ten bytes."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """A number as a field; nothing when it is 0, which is the default."""
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number: int, content: bytes) -> bytes:
    """Bytes, a text or a message as a field."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def packed_field(number: int, values: Iterable[int]) -> bytes:
    """A repeated number as a packed field; nothing when there are none."""
    content = b"".join(map(varint, values))
    return bytes_field(number, content) if content else b""
