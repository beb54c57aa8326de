"""Documents of Elasticsearch -> their leaf fields under dotted names, as columns.

Of a document only its top level is read; values stay bytes until each distinct one is decoded, a
single time. So the Kubernetes metadata that a shipper adds to every line costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragprof.sources.otlp_wire import Ints, slices

Document = dict[str, msgspec.Raw]
"""The top level of a document: field -> its JSON as it stands there."""

LEVELS = 32  # of objects within objects; deeper ones stay JSON


class Entries(NamedTuple):
    """Leaf fields of documents (so many), ordered by document; a name occurs once in a document.

    row: which document. key: index into `keys`, dotted names. value: index into `values`, texts
    (numbers, true, false and arrays as their JSON). is_text: per value, whether JSON has it in
    quotes.
    """

    documents: int
    row: Ints
    key: Ints
    value: Ints
    keys: list[str]
    values: pa.Array
    is_text: NDArray[np.bool_]


_decode = msgspec.json.Decoder(Document).decode


def entries(documents: list[Document], embedded: tuple[str, ...] = ()) -> Entries:
    """The leaf fields of some documents.

    `embedded`: fields whose text may be a JSON object, a log line that the shipper did not parse;
    its fields stand beside those of the document and win over them. Raises msgspec.DecodeError or
    UnicodeDecodeError for what is not JSON.
    """
    # Documents of one shipper have the same fields in the same order: few shapes, many documents.
    shapes: dict[tuple[str, ...], int] = {}
    shape = np.fromiter(
        (shapes.setdefault(tuple(document), len(shapes)) for document in documents),
        np.int64,
        len(documents),
    )
    table = _Table()
    numbers_of = [np.array([table.number(name) for name in names], np.int64) for names in shapes]
    lengths = np.array([len(names) for names in shapes], np.int64)[shape]
    row = np.repeat(np.arange(len(documents)), lengths)
    if not len(row):
        return Entries(
            len(documents), row, row, row, [], pa.array([], pa.string()), np.zeros(0, bool)
        )
    key = np.concatenate([numbers_of[number] for number in shape.tolist()])
    raws = [bytes(raw) for document in documents for raw in document.values()]
    encoded = pa.array(raws, pa.binary()).dictionary_encode()
    distinct, value = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    first = _first_octets(distinct)
    nested = (first == ord("{"))[value]
    inside = np.zeros(len(key), bool)
    if embedded:
        numbers = [table.number(name) for name in embedded if table.has(name)]
        inside = (first == ord('"'))[value] & np.isin(key, numbers)
    if nested.any() or inside.any():
        row, key, value, distinct = _flattened(row, key, value, distinct, nested, inside, table)
    values, is_text, absent = _texts(distinct)
    if absent.any():
        kept = ~absent[value]
        row, key, value = row[kept], key[kept], value[kept]
    row, key, value = _once(row, key, value, len(table.names), len(documents))
    return Entries(len(documents), row, key, value, table.names, values, is_text)


class _Table:
    """Numbers names in the order in which they come."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def has(self, name: str) -> bool:
        return name in self._numbers

    def number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self.names)
            self.names.append(name)
        return found


def _first_octets(column: pa.Array) -> NDArray[np.uint8]:
    offsets = np.frombuffer(column.buffers()[1], np.int32)[: len(column)]
    return np.frombuffer(column.buffers()[2], np.uint8)[offsets]


def _flattened(
    row: Ints,
    key: Ints,
    value: Ints,
    distinct: pa.Array,
    nested: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    table: _Table,
) -> tuple[Ints, Ints, Ints, pa.Array]:
    """Entries with objects replaced by their leaves; those of embedded lines come last."""
    new = _Values(len(distinct))
    plain = ~nested
    parts = []
    for mask, is_line in ((nested, False), (inside, True)):
        places = np.flatnonzero(mask)
        both, kind = np.unique(key[places] * len(distinct) + value[places], return_inverse=True)
        leaves = []  # of each distinct object
        for number, code in zip(*np.divmod(both, len(distinct)), strict=True):
            raw = distinct[int(code)].as_py()
            pairs = _line(raw) if is_line else _leaves(table.names[number], raw, 0)
            found = [(table.number(name), new.number(leaf)) for name, leaf in pairs]
            leaves.append(np.array(found, np.int64).reshape(-1, 2))
        counts = np.array([len(found) for found in leaves], np.int64)
        if is_line:  # what is told by its fields need not be told as a line
            plain[places[(counts > 0)[kind]]] = False
        taken = [leaves[number] for number in kind.tolist()]
        pairs_ = np.concatenate(taken).T if taken else np.zeros((2, 0), np.int64)
        parts.append(np.concatenate([np.repeat(row[places], counts[kind])[None], pairs_]))
    parts.insert(0, np.stack([row[plain], key[plain], value[plain]]))
    merged = np.concatenate(parts, axis=1)
    merged = merged[:, np.argsort(merged[0], kind="stable")]
    return merged[0], merged[1], merged[2], new.behind(distinct)


class _Values:
    """Numbers raw values that were found within objects, behind the ones of the top level."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._numbers: dict[bytes, int] = {}

    def number(self, raw: bytes) -> int:
        return self._first + self._numbers.setdefault(raw, len(self._numbers))

    def behind(self, column: pa.Array) -> pa.Array:
        return pa.concat_arrays([column, pa.array(list(self._numbers), pa.binary())])


def _line(raw: bytes) -> list[tuple[str, bytes]]:
    """The leaves of an object that is written as a text; none when it is another text."""
    if not raw[:8].lstrip(b'" ').startswith(b"{"):
        return []
    try:
        return list(_leaves("", msgspec.json.decode(raw, type=str).encode(), 0))
    except (msgspec.DecodeError, RecursionError):
        return []


def _leaves(prefix: str, raw: bytes, level: int) -> Iterator[tuple[str, bytes]]:
    for name, inner in _decode(raw).items():
        path = f"{prefix}.{name}" if prefix else name
        content = bytes(inner)
        if content[:1] == b"{" and level < LEVELS:
            yield from _leaves(path, content, level + 1)
        else:
            yield path, content


def _texts(distinct: pa.Array) -> tuple[pa.Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Raw values as texts, which were in quotes, and which are absent (null)."""
    first = _first_octets(distinct)
    absent = (first == ord("n")) | (first == ord("{"))
    quoted = first == ord('"')
    offsets = np.frombuffer(distinct.buffers()[1], np.int32)[: len(distinct) + 1].astype(np.int64)
    data = np.frombuffer(distinct.buffers()[2], np.uint8)
    trim = quoted.astype(np.int64)
    texts = slices(data, offsets[:-1] + trim, offsets[1:] - trim)
    escaped = np.flatnonzero(quoted & np.asarray(pc.match_substring(texts, b"\\")))
    if len(escaped):
        decoded = [_unescaped(distinct[int(place)].as_py()) for place in escaped]
        index = np.arange(len(texts))
        index[escaped] = len(texts) + np.arange(len(escaped))
        texts = pa.concat_arrays([texts, pa.array(decoded, pa.binary())]).take(pa.array(index))
    return texts.cast(pa.string()), quoted, absent


def _unescaped(raw: bytes) -> bytes:
    try:
        return msgspec.json.decode(raw, type=str).encode()
    except msgspec.DecodeError:  # half a surrogate pair, which UTF-8 cannot hold
        return str(json.loads(raw)).encode("utf-8", "backslashreplace")


def _once(row: Ints, key: Ints, value: Ints, names: int, count: int) -> tuple[Ints, Ints, Ints]:
    """Of a name that a document has twice (`{"a.b": 1, "a": {"b": 2}}`) the last counts."""
    both = row * names + key
    marks = np.zeros(count * names, bool)
    marks[both] = True
    if int(np.count_nonzero(marks)) == len(both):
        return row, key, value
    _, last = np.unique(both[::-1], return_index=True)
    kept = np.sort(len(both) - 1 - last)
    return row[kept], key[kept], value[kept]
