"""Columns of Arrow tables as numpy arrays: integers, codes of texts, single attributes."""

from __future__ import annotations

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


def codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """A text column as codes into its distinct values (null is the empty text)."""
    encoded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    indices = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    return indices, [str(value) for value in encoded.dictionary.to_pylist()]


def texts(column: pa.ChunkedArray) -> NDArray[Any]:
    """A text column as an object array; null is the empty text."""
    numbers, values = codes(column)
    return np.array([*values, ""], dtype=object)[numbers]


def attribute_rows(column: pa.ChunkedArray) -> tuple[Ints, pa.Array, pa.Array]:
    """All (row, key, value) of a map column: row numbers, keys, values."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    rows: list[Ints] = []
    keys: list[pa.Array] = []
    values: list[pa.Array] = []
    first = 0
    for chunk in chunks:
        offsets = np.asarray(chunk.offsets.to_numpy(zero_copy_only=False), dtype=np.int64)
        low, high = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
        rows.append(np.repeat(np.arange(first, first + len(chunk)), np.diff(offsets)))
        keys.append(chunk.keys.slice(low, high - low))
        values.append(chunk.items.slice(low, high - low))
        first += len(chunk)
    if not rows:
        return np.zeros(0, dtype=np.int64), pa.array([], pa.string()), pa.array([], pa.string())
    return (
        np.concatenate(rows),
        pa.concat_arrays([key.cast(pa.string()) for key in keys]),
        pa.concat_arrays([value.cast(pa.string()) for value in values]),
    )


def attribute(column: pa.ChunkedArray, *names: str) -> NDArray[Any]:
    """The first of some attributes that a row has, as an object array; "" where it has none."""
    result = np.full(len(column), "", dtype=object)
    rows, keys, values = attribute_rows(column)
    for name in reversed(names):
        found = np.asarray(pc.fill_null(pc.equal(keys, name), False))
        result[rows[found]] = pc.fill_null(values.filter(pa.array(found)), "").to_pylist()
    return result


def ordered(*keys: Ints) -> Ints:
    """The order by some keys, the first counts most; equal rows stay in their order.

    The same as `numpy.lexsort` of the keys in reverse. As many keys as fit are packed into one
    integer, which sorts several times faster; the rest is looked at only when rows are equal.
    """
    packed = np.zeros(len(keys[0]), dtype=np.int64)
    bits = 0
    for key in keys if len(packed) else ():
        low = int(key.min())
        needed = (int(key.max()) - low).bit_length()
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
