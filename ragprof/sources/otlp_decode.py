"""OTLP requests -> rows, fast: whole columns from the bytes, distinct attributes decoded once.

Three quarters of a request are attributes, and the same ones come again and again. So spans and
log records stay bytes (a shadow schema of the envelope), their fields are found for all of them at
once (`otlp_wire`), and each distinct attribute is decoded a single time. What no SDK sends (a
field twice, groups, repeated keys) and everything damaged goes to `otlp`, message by message: the
rows are the same by either way.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ragprof.sources import otlp
from ragprof.sources.otlp_wire import (
    BYTES,
    EIGHT_BYTES,
    VARINT,
    Field,
    Fields,
    Ints,
    Unusual,
    elements,
    hexadecimal,
    join,
    walk,
)
from ragprof.tables import ATTRIBUTES, LOGS, NS, SPANS

FEWEST = 16  # spans or records; fewer are quicker one by one
LARGEST = 1 << 30  # bytes in one buffer; Arrow counts them in 32 bits


class Decoded(NamedTuple):
    """Rows without the key columns, what was refused (reason -> rows), and the resources seen."""

    rows: pa.Table
    refused: Counter[str]
    resources: list[dict[str, str]]


def decode(signal: str, body: bytes, *, is_json: bool = False) -> Decoded:
    """The rows of a request of `signal` (traces or logs); bodies behind one another are one.

    Raises BadPayload when the bytes are not such a request.
    """
    if not is_json and len(body) < LARGEST:
        try:
            with otlp.paused_gc():
                return _spans(body) if signal == "traces" else _logs(body)
        except (Unusual, DecodeError, UnicodeDecodeError, pa.ArrowInvalid):
            pass  # the walk by messages decides what it is
    message = otlp.parse(signal, body, is_json=is_json)
    rows, refused = otlp.spans(message) if signal == "traces" else otlp.logs(message)
    return Decoded(rows, refused, list(otlp.resources(message)))


def decode_json(signal: str, content: Any) -> Decoded:
    """The rows of a request that is parsed JSON already; raises BadPayload as `decode` does."""
    message = otlp.filled(signal, content)
    rows, refused = otlp.spans(message) if signal == "traces" else otlp.logs(message)
    return Decoded(rows, refused, list(otlp.resources(message)))


class _Items(NamedTuple):
    """Spans or log records as bytes, with the resource and the scope of each."""

    bodies: list[bytes]
    resources: list[list[tuple[str, str]]]
    scopes: list[str]
    resource: Ints  # index into resources, one for each item
    scope: Ints  # index into scopes


def _envelope() -> Any:
    """A request whose resources, scopes and items stay bytes; the same for all signals."""
    file = descriptor_pb2.FileDescriptorProto(
        name="ragprof/envelope.proto", package="ragprof", syntax="proto3"
    )
    repeated, data, message = 3, 12, 11
    for name, fields in (
        ("Scoped", [("scope", 1, data, ""), ("items", 2, data, "")]),
        ("Group", [("resource", 1, data, ""), ("scoped", 2, message, "Scoped")]),
        ("Request", [("groups", 1, message, "Group")]),
    ):
        kind = file.message_type.add(name=name)
        for field, number, type_, of in fields:
            kind.field.add(
                name=field,
                number=number,
                label=repeated,
                type=type_,
                type_name=f".ragprof.{of}" if of else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ragprof.Request"))


_Request = _envelope()


def _items(body: bytes) -> _Items:
    request = _Request.FromString(body)
    bodies: list[bytes] = []
    resources: list[list[tuple[str, str]]] = []
    scopes: list[str] = []
    group_sizes: list[int] = []
    scope_sizes: list[int] = []
    for group in request.groups:
        before = len(bodies)
        resources.append(otlp.pairs(Resource.FromString(_one(group.resource)).attributes))
        for scoped in group.scoped:
            scopes.append(InstrumentationScope.FromString(_one(scoped.scope)).name)
            items = scoped.items
            scope_sizes.append(len(items))
            bodies.extend(items)
        group_sizes.append(len(bodies) - before)
    if len(bodies) < FEWEST:
        raise Unusual("few")
    return _Items(
        bodies,
        resources,
        scopes,
        np.repeat(np.arange(len(resources)), group_sizes),
        np.repeat(np.arange(len(scopes)), scope_sizes),
    )


def _one(parts: Any) -> bytes:
    if len(parts) > 1:
        raise Unusual("a message twice, to be merged")
    return bytes(parts[0]) if parts else b""


def _spans(body: bytes) -> Decoded:
    items = _items(body)
    fields = walk(join(items.bodies))
    count = len(items.bodies)
    trace, has_trace = _raw_ids(fields, 1, 16, count)
    span, has_span = _raw_ids(fields, 2, 8, count)
    parent, has_parent = _raw_ids(fields, 4, 8, count)
    start, end = _times(fields, 7, count), _times(fields, 8, count)
    timed = (start > 0) & (start <= otlp.LATEST_NS)
    refused = _counted(
        {
            "span without a valid trace id": ~has_trace,
            "span without a valid span id": has_trace & ~has_span,
            "span without a usable start": has_trace & has_span & ~timed,
            "span ended before it began (kept with duration 0)": has_trace
            & has_span
            & timed
            & (end < start),
        }
    )
    last = np.minimum(end, np.uint64(otlp.LATEST_NS)).astype(np.int64)
    began = np.where(timed, start, 0).astype(np.int64)
    states, messages = _statuses(fields, count)
    attributes = _maps(*_attributes(fields.of(9, BYTES)), count)
    columns = {
        "trace_id": hexadecimal(trace),
        "span_id": hexadecimal(span),
        "parent_span_id": _blank(hexadecimal(parent), has_parent),
        "service": _coded(items.resource, [_service(pairs) for pairs in items.resources]),
        "scope": _coded(items.scope, items.scopes),
        "name": _texts(fields.single(5, BYTES), count).dictionary_encode(),
        "kind": _coded(_numbers(fields, 6, count, len(otlp.KINDS)), otlp.KINDS),
        "start": pa.array(began).cast(NS),
        "duration_ns": pa.array(np.maximum(last - began, 0)),
        "status": states,
        "status_message": messages,
        "attributes": attributes,
        "resource": pa.array(items.resources, ATTRIBUTES).take(pa.array(items.resource)),
        "events": _json(fields.of(11, BYTES), Span.Event, otlp.events_json, count),
        "links": _json(fields.of(13, BYTES), Span.Link, otlp.links_json, count),
    }
    return _decoded(SPANS, columns, has_trace & has_span & timed, refused, items)


def _logs(body: bytes) -> Decoded:
    items = _items(body)
    fields = walk(join(items.bodies))
    count = len(items.bodies)
    trace, has_trace = _raw_ids(fields, 9, 16, count)
    span, has_span = _raw_ids(fields, 10, 8, count)
    time, observed = _times(fields, 1, count), _times(fields, 11, count)
    time = np.where(time == 0, observed, time)
    timed = (time > 0) & (time <= otlp.LATEST_NS)
    events = _texts(fields.single(12, BYTES), count)
    body_fields = fields.single(5, BYTES)
    bodies = _spread(_values(body_fields.contents()), body_fields.message, count)
    rows, codes, keys, values = _attributes(fields.of(6, BYTES))
    rows, codes, keys, values = _with_defaults(
        (rows, codes, keys, values),
        ("otel.scope.name", _coded(items.scope, items.scopes)),
        ("event.name", events.dictionary_encode()),
    )
    columns = {
        "time": pa.array(np.where(timed, time, 0).astype(np.int64)).cast(NS),
        "severity": _severities(fields, count),
        "service": _coded(items.resource, [_service(pairs) for pairs in items.resources]),
        "body": pc.if_else(pc.equal(bodies, ""), events, bodies),
        "trace_id": _blank(hexadecimal(trace), has_trace),
        "span_id": _blank(hexadecimal(span), has_span),
        "request_id": _request_ids(rows, codes, keys, values, count),
        "attributes": _maps(rows, codes, keys, values, count),
    }
    refused = _counted({"log record without a usable time": ~timed})
    return _decoded(LOGS, columns, timed, refused, items)


def _decoded(
    schema: pa.Schema,
    columns: dict[str, pa.Array],
    kept: NDArray[np.bool_],
    refused: Counter[str],
    items: _Items,
) -> Decoded:
    kept_schema = pa.schema([schema.field(name) for name in columns])
    rows = pa.table(list(columns.values()), schema=kept_schema)
    if not kept.all():
        rows = rows.filter(pa.array(kept))
    return Decoded(rows, refused, [dict(pairs) for pairs in items.resources])


def _counted(reasons: dict[str, NDArray[np.bool_]]) -> Counter[str]:
    return Counter({why: int(rows.sum()) for why, rows in reasons.items() if rows.any()})


def _service(pairs: list[tuple[str, str]]) -> str:
    return next((value for key, value in pairs if key == "service.name"), "")


def _raw_ids(
    fields: Fields, number: int, width: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Ids as octets, and which rows have one: of the right length and not all zero."""
    found, rows = fields.single(number, BYTES).octets(width)
    raw = np.zeros((count, width), np.uint8)
    raw[rows] = found
    has: NDArray[np.bool_] = np.asarray(raw.any(axis=1))
    return raw, has


def _blank(column: pa.Array, has: NDArray[np.bool_]) -> pa.Array:
    return column if has.all() else pc.if_else(pa.array(has), column, "")


def _times(fields: Fields, number: int, count: int) -> NDArray[np.uint64]:
    found = fields.single(number, EIGHT_BYTES)
    times = np.zeros(count, np.uint64)
    times[found.message] = found.fixed64()
    return times


def _numbers(fields: Fields, number: int, count: int, limit: int) -> Ints:
    """An enumeration, 0 where it is absent or not below `limit`."""
    found = fields.single(number, VARINT)
    # an int32 on the wire keeps its low 32 bits
    value = found.varints() & 0xFFFFFFFF
    numbers = np.zeros(count, np.int64)
    numbers[found.message] = np.where(value < limit, value, 0)
    return numbers


def _coded(codes: Ints, names: Any) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))


def _spread(values: pa.Array, rows: Ints, count: int) -> pa.Array:
    """Values of some rows as a column of all, "" in the others."""
    if len(rows) == count:
        return values
    place = np.full(count, len(values), np.int64)
    place[rows] = np.arange(len(rows))
    return pa.concat_arrays([values, pa.array([""])]).take(pa.array(place))


def _texts(found: Field, count: int) -> pa.Array:
    return _spread(found.contents().cast(pa.string()), found.message, count)


def _statuses(fields: Fields, count: int) -> tuple[pa.Array, pa.Array]:
    found = fields.single(15, BYTES)
    encoded = found.contents().dictionary_encode()
    distinct = [Status.FromString(raw) for raw in encoded.dictionary.to_pylist()]
    codes = np.full(count, len(distinct), np.int64)
    codes[found.message] = encoded.indices.to_numpy()
    states = [otlp.enum_name(otlp.STATUSES, status.code) for status in distinct]
    messages = pa.array([*(status.message for status in distinct), ""])
    return _coded(codes, [*states, "unset"]), messages.take(pa.array(codes))


def _attributes(found: Field) -> tuple[Ints, Ints, pa.Array, pa.Array]:
    """All attributes: their rows, their codes, and the keys and values of each code."""
    encoded = found.contents().dictionary_encode()
    fields = walk(elements(encoded.dictionary))
    count = len(encoded.dictionary)
    keys = _texts(fields.single(1, BYTES), count)
    valued = fields.single(2, BYTES)
    values = _spread(_values(valued.contents()), valued.message, count)
    codes = encoded.indices.to_numpy().astype(np.int64)
    numbers = keys.dictionary_encode()
    many = len(numbers.dictionary)
    both = found.message * many + numbers.indices.to_numpy()[codes]
    last = int(found.message[-1]) + 1 if len(both) else 0
    if last * many < 1 << 24:  # a field of marks is quicker than a set
        marks = np.zeros(last * many, bool)
        marks[both] = True
        distinct = int(np.count_nonzero(marks))
    else:
        distinct = len(pc.unique(pa.array(both)))
    if distinct < len(both):
        raise Unusual("an attribute twice")
    return found.message, codes, keys, values


def _values(contents: pa.Array) -> pa.Array:
    """AnyValues as text, the common types by column and the others one by one."""
    encoded = contents.dictionary_encode()
    distinct = encoded.dictionary
    if not len(distinct):
        return pa.array([], pa.string())
    fields = walk(elements(distinct))
    if len(fields.message) and (fields.message[1:] == fields.message[:-1]).any():
        raise Unusual("a value twice")
    count = len(distinct)
    texts, integers, doubles = (
        fields.of(*kind) for kind in ((1, BYTES), (3, VARINT), (4, EIGHT_BYTES))
    )
    common = (fields.number == 1) | (fields.number == 3) | (fields.number == 4)
    other = fields.message[~common]
    others = [otlp.text(AnyValue.FromString(distinct[int(row)].as_py())) for row in other]
    parts = [
        texts.contents().cast(pa.string()),
        pa.array(integers.varints()).cast(pa.string()),
        pa.array(map(json.dumps, doubles.float64().tolist()), pa.string()),
        pa.array(others, pa.string()),
        pa.array([""]),
    ]
    rows = np.concatenate([texts.message, integers.message, doubles.message, other])
    place = np.full(count, len(rows), np.int64)  # without a value: the empty text behind the others
    place[rows] = np.arange(len(rows))
    return pa.concat_arrays(parts).take(pa.array(place)).take(encoded.indices)


def _maps(rows: Ints, codes: Ints, keys: pa.Array, values: pa.Array, count: int) -> pa.Array:
    offsets = np.zeros(count + 1, np.int32)
    offsets[1:] = np.cumsum(np.bincount(rows, minlength=count))
    taken = pa.array(codes)
    return pa.MapArray.from_arrays(pa.array(offsets), keys.take(taken), values.take(taken))


def _with_defaults(
    attributes: tuple[Ints, Ints, pa.Array, pa.Array], *columns: tuple[str, pa.Array]
) -> tuple[Ints, Ints, pa.Array, pa.Array]:
    """Attributes and, where a row lacks that key, a further one from a column of texts."""
    rows, codes, keys, values = attributes
    for key, column in columns:
        names, number = column.dictionary, column.indices.to_numpy().astype(np.int64)
        wanted = np.asarray(pc.not_equal(names, ""))[number] if len(names) else number > 0
        has = np.flatnonzero(np.asarray(pc.equal(keys, key)))
        wanted[rows[np.isin(codes, has)]] = False
        added = np.flatnonzero(wanted)
        if not len(added):
            continue
        rows = np.concatenate([rows, added])
        codes = np.concatenate([codes, len(keys) + number[added]])
        keys = pa.concat_arrays([keys, pa.repeat(key, len(names))])
        values = pa.concat_arrays([values, names])
        order = np.argsort(rows, kind="stable")
        rows, codes = rows[order], codes[order]
    return rows, codes, keys, values


def _request_ids(rows: Ints, codes: Ints, keys: pa.Array, values: pa.Array, count: int) -> pa.Array:
    place = np.full(count, len(values), np.int64)
    for key in reversed(otlp.REQUEST_ID_KEYS):
        has = np.flatnonzero(np.asarray(pc.equal(keys, key)))
        if len(has):
            found = np.isin(codes, has)
            place[rows[found]] = codes[found]
    return pa.concat_arrays([values, pa.array([""])]).take(pa.array(place))


def _severities(fields: Fields, count: int) -> pa.Array:
    number = _numbers(fields, 2, count, 25)
    texts = _texts(fields.single(3, BYTES), count).dictionary_encode()
    names = ["", *otlp.SEVERITIES, *map(otlp.severity, texts.dictionary.to_pylist())]
    by_text = 1 + len(otlp.SEVERITIES) + texts.indices.to_numpy()
    return _coded(np.where(number > 0, 1 + (number - 1) // 4, by_text), names)


def _json(found: Field, kind: Any, write: Any, count: int) -> pa.Array:
    """Events or links of each row as a JSON array."""
    column = ["[]"] * count
    of_row: dict[int, list[Any]] = {}
    for row, raw in zip(found.message.tolist(), found.contents().to_pylist(), strict=True):
        of_row.setdefault(row, []).append(kind.FromString(raw))
    for row, messages in of_row.items():
        column[row] = write(messages)
    return pa.array(column)
