"""Documents of Elasticsearch -> their leaf fields under dotted names, as columns.

Of a document only its top level is read; values stay bytes until each distinct one is decoded, a
single time. So the Kubernetes metadata that a shipper adds to every line costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import NamedTuple, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragprof.sources.elasticsearch_pages import Document, Documents
from ragprof.sources.otlp_wire import slices

Codes = NDArray[np.int32]

LOOKED_AT = 200  # values of a column
LEVELS = 32  # of objects within objects; deeper ones are left out
WIDEST = 1000  # columns of several documents


class TooWide(Exception):
    """Documents with more than WIDEST different leaf fields; read fewer of them at once."""


class Leaves(NamedTuple):
    """The leaf fields of documents, a column each.

    code: documents x keys, an index into `values`, -1 where a document lacks the field. keys:
    dotted names. values: texts (numbers, true, false and arrays as their JSON). is_text: per value,
    whether JSON has it in quotes.
    """

    code: Codes
    keys: list[str]
    values: pa.Array
    is_text: NDArray[np.bool_]


_decode = msgspec.json.Decoder(Document).decode


def leaves(documents: Documents, embedded: tuple[str, ...] = ()) -> Leaves:
    """The leaf fields of some documents.

    `embedded`: fields whose text may be a JSON object, a log line that the shipper did not parse;
    its fields stand beside those of the document and win over them. Raises TooWide, and
    msgspec.DecodeError or UnicodeDecodeError for what is not JSON.
    """
    if documents and isinstance(documents[0], msgspec.Struct):
        names, code, raw = _of_structs(documents)
    else:
        names, code, raw = _of_dicts(cast("list[Document]", documents))
    found = _Columns(len(documents), raw)
    if len(raw):
        first = _octets(raw, 0)
        nested, absent = first == ord("{"), first == ord("n")
        opened = (first == ord('"')) & np.isin(_octets(raw, 1), (ord("{"), ord(" ")))
        code = np.where((code >= 0) & absent[code], -1, code)
        lines = [place for place, name in enumerate(names) if name in embedded]
        for place in [*(each for each in range(len(names)) if each not in lines), *lines]:
            name, column = names[place], code[:, place]
            inner = (column >= 0) & nested[column]
            if inner.any():
                found.expand(column, inner, partial(_leaves, name))
                column = np.where(inner, -1, column)
            if place in lines:  # what is told by its fields need not be told as a line
                told = found.expand(column, (column >= 0) & opened[column], _line)
                column = np.where(told, -1, column)
            found.put(name, column, last=place not in lines)
    values, is_text = _texts(found.raw())
    return Leaves(found.table(), list(found.columns), values, is_text)


def _of_dicts(documents: list[Document]) -> tuple[list[str], Codes, pa.Array]:
    """Names, the code of each document's value of each name, and the values."""
    # Few shapes (the same fields in the same order), many documents.
    shapes: dict[tuple[str, ...], int] = {}
    shape = np.array(
        [shapes.setdefault(tuple(document), len(shapes)) for document in documents], np.int64
    )
    names = dict.fromkeys(name for own in shapes for name in own)
    _check_width(len(names), len(documents))
    numbers = {name: number for number, name in enumerate(names)}
    of = [np.array([numbers[name] for name in own], np.int64) for own in shapes]
    code = np.full((len(documents), len(names)), -1, np.int32)
    raws = [bytes(raw) for document in documents for raw in document.values()]
    encoded = pa.array(raws, pa.binary()).dictionary_encode()
    if raws:
        row = np.repeat(np.arange(len(documents)), np.array([len(own) for own in of])[shape])
        key = np.concatenate([of[number] for number in shape.tolist()])
        code[row, key] = encoded.indices.to_numpy()
    return list(names), code, encoded.dictionary


def _of_structs(documents: list[msgspec.Struct]) -> tuple[list[str], Codes, pa.Array]:
    """As `_of_dicts`; values of a column of which most are distinct are not made distinct."""
    of = type(documents[0])
    size = 0
    code = np.empty((len(documents), len(of.__struct_fields__)), np.int32)
    parts = []
    for place, field in enumerate(of.__struct_fields__):
        column, lengths = _column(list(map(attrgetter(field), documents)))
        if _repeats(column):
            encoded = column.dictionary_encode()
            code[:, place] = encoded.indices.to_numpy()
            column = encoded.dictionary
        else:
            code[:, place] = np.arange(len(documents), dtype=np.int32)
        code[:, place] += size
        code[lengths == 0, place] = -1
        size += len(column)
        parts.append(column)
    return list(of.__struct_encode_fields__), code, pa.concat_arrays(parts)


def _column(raws: list[msgspec.Raw]) -> tuple[pa.Array, Codes]:
    """Values as they stand in the JSON, and their lengths."""
    lengths = np.array(list(map(len, raws)), np.int32)
    offsets = np.zeros(len(raws) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(raws))]
    return pa.BinaryArray.from_buffers(pa.binary(), len(raws), buffers), lengths


def _repeats(column: pa.Array) -> bool:
    """Whether values come again, told by some of them; objects are always looked at."""
    some = column.slice(0, LOOKED_AT)
    return len(some.unique()) < len(some) / 2 or some[0].as_py().startswith(b"{")


def _check_width(names: int, documents: int) -> None:
    if names > WIDEST and documents > 1:
        raise TooWide


class _Columns:
    """Columns under construction, and the raw values that their codes mean."""

    def __init__(self, documents: int, raw: pa.Array) -> None:
        self.columns: dict[str, Codes] = {}
        self._documents, self._raw, self._first = documents, raw, len(raw)
        self._inner: dict[bytes, int] = {}  # found within objects

    def put(self, name: str, column: Codes, *, last: bool = True) -> None:
        """Of a name that a document has twice (`{"a.b": 1, "a": {"b": 2}}`) the last counts."""
        before = self.columns.get(name)
        if before is not None:
            above, below = (column, before) if last else (before, column)
            column = np.where(above >= 0, above, below)
        self.columns[name] = column
        _check_width(len(self.columns), self._documents)

    def expand(
        self,
        column: Codes,
        which: NDArray[np.bool_],
        read: Callable[[bytes], Iterator[tuple[str, bytes]]],
    ) -> NDArray[np.bool_]:
        """Put what `read` finds in some values of a column; tells where it found something."""
        objects, of = np.unique(column[which], return_inverse=True)
        names: dict[str, Codes] = {}
        for place, number in enumerate(objects.tolist()):
            for name, leaf in read(self._raw[number].as_py()):
                if leaf[:1] in (b"n", b"{"):  # null, or too deep
                    continue
                if name not in names:
                    names[name] = np.full(len(objects), -1, np.int32)
                    _check_width(len(names), self._documents)
                names[name][place] = self._first + self._inner.setdefault(leaf, len(self._inner))
        found = np.zeros(self._documents, bool)
        for name, codes in names.items():
            inner = np.full(self._documents, -1, np.int32)
            inner[which] = codes[of]
            found |= inner >= 0
            self.put(name, inner)
        return found

    def raw(self) -> pa.Array:
        return pa.concat_arrays([self._raw, pa.array(list(self._inner), pa.binary())])

    def table(self) -> Codes:
        if not self.columns:
            return np.zeros((self._documents, 0), np.int32)
        return np.stack(list(self.columns.values()), axis=1)


def _octets(column: pa.Array, at: int) -> NDArray[np.uint8]:
    """The octet at a place of each value; 0 where the value is shorter."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[: len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    if not len(data):
        return np.zeros(len(column), np.uint8)
    found = data[np.minimum(offsets[:-1] + at, len(data) - 1)]
    found[offsets[:-1] + at >= offsets[1:]] = 0
    return found


def _line(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The leaves of an object that is written as a text; none when it is another text."""
    if not raw[:8].lstrip(b'" ').startswith(b"{"):
        return iter(())
    try:
        return iter(list(_leaves("", msgspec.json.decode(raw, type=str).encode())))
    except (msgspec.DecodeError, RecursionError):
        return iter(())


def _leaves(prefix: str, raw: bytes, level: int = 0) -> Iterator[tuple[str, bytes]]:
    for name, inner in _decode(raw).items():
        path = f"{prefix}.{name}" if prefix else name
        content = bytes(inner)
        if content[:1] == b"{" and level < LEVELS:
            yield from _leaves(path, content, level + 1)
        else:
            yield path, content


def _texts(raw: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Raw values as texts, and which were in quotes."""
    if not len(raw):
        return raw.cast(pa.string()), np.zeros(0, bool)
    quoted = _octets(raw, 0) == ord('"')
    offsets = np.frombuffer(raw.buffers()[1], np.int32)[: len(raw) + 1].astype(np.int64)
    data = np.frombuffer(raw.buffers()[2], np.uint8)
    trim = quoted.astype(np.int64)
    texts = slices(data, offsets[:-1] + trim, offsets[1:] - trim)
    escaped = np.flatnonzero(quoted & np.asarray(pc.match_substring(texts, b"\\")))
    if len(escaped):
        decoded = [_unescaped(raw[int(place)].as_py()) for place in escaped]
        index = np.arange(len(texts))
        index[escaped] = len(texts) + np.arange(len(escaped))
        texts = pa.concat_arrays([texts, pa.array(decoded, pa.binary())]).take(pa.array(index))
    return texts.cast(pa.string()), quoted


def _unescaped(raw: bytes) -> bytes:
    try:
        return msgspec.json.decode(raw, type=str).encode()
    except msgspec.DecodeError:  # half a surrogate pair, which UTF-8 cannot hold
        return str(json.loads(raw)).encode("utf-8", "backslashreplace")
