"""Columns of Arrow tables as numpy arrays: integers, codes of texts, single attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def integers(column: pa.ChunkedArray) -> Ints:
    """An integer or timestamp column as int64 (timestamps: ns since 1970); null becomes 0."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64())
    return np.asarray(pc.fill_null(column, 0).to_numpy(), dtype=np.int64)


def codes(column: pa.ChunkedArray | pa.Array) -> tuple[Ints, list[str]]:
    """A text column as codes into its distinct values, in the order in which they first appear;
    null is the empty text."""
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([column])
    if not len(column):
        return np.zeros(0, dtype=np.int64), []
    encoded = pa.types.is_dictionary(column.type)
    in_order = not encoded and not column.null_count
    if not encoded:
        column = column.cast(pa.string()).dictionary_encode()
    column = column.unify_dictionaries()
    values = ["" if text is None else str(text) for text in column.chunk(0).dictionary.to_pylist()]
    stored = np.concatenate(
        [
            np.asarray(pc.fill_null(chunk.indices, len(values)).to_numpy(), dtype=np.int64)
            for chunk in column.chunks
        ]
    )
    if in_order:
        return stored, values
    # What a dictionary holds may be unused, equal or in any order.
    first = np.full(len(values) + 1, len(stored))
    first[stored[::-1]] = np.arange(len(stored))[::-1]
    number: dict[str, int] = {}
    renumbered = np.zeros(len(first), dtype=np.int64)
    for code in np.argsort(first, kind="stable")[: int((first < len(stored)).sum())].tolist():
        renumbered[code] = number.setdefault([*values, ""][code], len(number))
    return renumbered[stored], list(number)


def texts(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """A text column as an object array; null is the empty text."""
    numbers, values = codes(column)
    return np.array([*values, ""], dtype=object)[numbers]


@dataclass(frozen=True)
class Attributes:
    """All keys and values of a map column of `count` rows, the keys as codes into `names`.

    row, key: one element for each pair, ascending by row. values: the same in pieces.
    """

    count: int
    row: Ints
    key: NDArray[np.int32]
    names: dict[str, int]
    values: pa.ChunkedArray

    def pairs(self, name: str) -> Ints:
        """The pairs that have this key."""
        code = self.names.get(name, -1)
        found: Ints = np.flatnonzero(self.key == code) if code >= 0 else np.zeros(0, np.int64)
        return found

    def taken(self, pairs: Ints) -> list[pa.Array]:
        """The values of some pairs, ascending, in pieces."""
        ends = np.cumsum([0, *(len(piece) for piece in self.values.chunks)])
        cuts = np.searchsorted(pairs, ends)
        return [
            piece.take(pa.array(pairs[low:high] - start))
            for piece, start, low, high in zip(
                self.values.chunks, ends[:-1], cuts[:-1], cuts[1:], strict=True
            )
            if high > low
        ]


def attributes(column: pa.ChunkedArray) -> Attributes:
    """The pairs of a map column, its keys encoded: for more than one look at them."""
    rows: list[Ints] = []
    keys: list[pa.Array] = []
    values: list[pa.Array] = []
    first = 0
    for chunk in column.chunks:
        offsets = np.asarray(chunk.offsets.to_numpy(zero_copy_only=False), dtype=np.int64)
        low, high = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
        rows.append(np.repeat(np.arange(first, first + len(chunk)), np.diff(offsets)))
        keys.append(chunk.keys.slice(low, high - low).cast(pa.string()).dictionary_encode())
        values.append(chunk.items.slice(low, high - low).cast(pa.string()))
        first += len(chunk)
    if not rows:
        empty = pa.chunked_array([], pa.string())
        return Attributes(0, np.zeros(0, np.int64), np.zeros(0, np.int32), {}, empty)
    encoded = pa.chunked_array(keys).unify_dictionaries()
    names = encoded.chunk(0).dictionary.to_pylist()
    return Attributes(
        first,
        np.concatenate(rows),
        np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]),
        {str(name): code for code, name in enumerate(names)},
        pa.chunked_array(values),
    )


def attribute_codes(given: Attributes, *names: str) -> tuple[Ints, list[str]]:
    """The first of some attributes that a row has, as codes into texts; "" where it has none."""
    pairs = [given.pairs(name) for name in reversed(names)]
    numbers, values = codes(
        pa.chunked_array([piece for each in pairs for piece in given.taken(each)], pa.string())
    )
    if "" not in values:
        values.append("")
    result = np.full(given.count, values.index(""), dtype=np.int64)
    # Of two names that a row has, the first is written last and counts.
    result[given.row[np.concatenate([*pairs, np.zeros(0, np.int64)])]] = numbers
    return result, values


def attribute(column: pa.ChunkedArray | Attributes, *names: str) -> NDArray[Any]:
    """The first of some attributes that a row has, as an object array; "" where it has none."""
    given = column if isinstance(column, Attributes) else attributes(column)
    numbers, values = attribute_codes(given, *names)
    return np.array(values, dtype=object)[numbers]


def places(keys: Ints, wanted: Ints) -> Ints:
    """Where each wanted key stands in `keys`, which are distinct; -1 where it is absent or 0.

    Both are sorted first: a search that goes through memory in order is several times faster.
    """
    result = np.full(len(wanted), -1, dtype=np.int64)
    if not len(keys):
        return result
    order, by = np.argsort(keys), np.argsort(wanted)
    sought = wanted[by]
    place = order[np.minimum(np.searchsorted(keys[order], sought), len(keys) - 1)]
    result[by] = np.where((keys[place] == sought) & (sought != 0), place, -1)
    return result


def grouped(numbers: Ints) -> Ints:
    """The stable order by small numbers, not negative: as `numpy.argsort` with kind="stable"."""
    if len(numbers) and int(numbers.max()) < 1 << 16:
        return np.argsort(numbers.astype(np.uint16), kind="stable")  # a radix sort
    return np.argsort(numbers, kind="stable")


def ordered(*keys: Ints) -> Ints:
    """The order by some keys, the first counts most; equal rows stay in their order.

    The same as `numpy.lexsort` of the keys in reverse. As many keys as fit are packed into one
    integer, which sorts several times faster (one that is too wide by its rank); the rest is
    looked at only when rows are equal.
    """
    packed = np.zeros(len(keys[0]), dtype=np.int64)
    bits = 0
    for number, key in enumerate(keys if len(packed) else ()):
        low = int(key.min())
        needed = (int(key.max()) - low).bit_length()
        if bits + needed > 62 and number < 2:  # rows equal in two keys are few
            _, key = np.unique(key, return_inverse=True)
            low, needed = 0, int(key.max()).bit_length()
        if bits + needed > 62:
            break
        packed = (packed << needed) | (key - low)
        bits += needed
    order: Ints = np.argsort(packed)
    in_order = packed[order]
    equal = in_order[1:] == in_order[:-1]
    if equal.any():
        tied = np.append(False, equal) | np.append(equal, False)
        among = np.sort(order[tied])  # lexsort then keeps the order of what is equal in all keys
        order[tied] = among[np.lexsort([*(key[among] for key in keys[::-1]), packed[among]])]
    return order
