"""Rows in any shape -> one Arrow table of a schema, with nothing guessed and nothing lost.

Missing texts become empty, missing attributes an empty map, missing keys are computed from their
ids. Times are integers (ns since 1970), aware datetimes or Arrow timestamps with a zone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ragprof.manifest import RecordingError
from ragprof.tables import ATTRIBUTES, NS, SCHEMAS, TIME_COLUMN, join_keys

KEYS: dict[str, tuple[str, ...]] = {
    "trace_key": ("trace_id",),
    "span_key": ("trace_id", "span_id"),
    "parent_key": ("trace_id", "parent_span_id"),
}
"""Key column -> the id columns that it is hashed over."""

REQUIRED = {
    **{table: (column,) for table, column in TIME_COLUMN.items()},
    "series": ("series_id", "name"),
    "stacks": ("stack_id", "frame_ids"),
    "frames": ("frame_id", "function"),
}
REQUIRED["metrics"] = ("series_id", "time")
REQUIRED["samples"] = ("time", "stack_id")

ID_COLUMN = {"series": "series_id", "stacks": "stack_id", "frames": "frame_id"}
"""The dictionaries and the column that identifies their rows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NULLABLE = {"end", "value", "histogram", "exemplars"}


def conform(table: str, rows: pa.Table | pa.RecordBatch | Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of ``SCHEMAS[table]``: columns added, cast, keys filled.

    Mappings may hold values of any type in attributes: text is kept, the rest becomes JSON.
    Raises RecordingError for an unknown table or column, a missing required column, a naive
    time, or a value that does not fit; the message names the column.
    """
    schema = SCHEMAS.get(table)
    if schema is None:
        raise RecordingError(f"no table {table!r}; the tables are {', '.join(SCHEMAS)}")
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    given = (
        {name: rows.column(name) for name in rows.column_names}
        if isinstance(rows, pa.Table)
        else _columns(table, rows)
    )
    count = rows.num_rows if isinstance(rows, pa.Table) else len(rows)
    unknown = [name for name in given if name not in schema.names]
    if unknown:
        raise RecordingError(f"table {table!r} has no column {unknown[0]!r}")
    for name in REQUIRED[table]:
        if count and (name not in given or given[name].null_count):
            raise RecordingError(f"table {table!r}: column {name!r} is missing in some row")
    columns: dict[str, Any] = {}
    for field in schema:
        if field.name in given:
            columns[field.name] = _fill(field, _cast(table, field, given[field.name]))
        else:
            columns[field.name] = _absent(field, count)
    for key, ids in KEYS.items():
        if key in columns and (key not in given or given[key].null_count):
            columns[key] = join_keys(*(columns[name].to_pylist() for name in ids))
    return pa.table(columns, schema=schema)


def time_ns(value: Any, what: str = "time") -> int:
    """Nanoseconds since 1970 of an integer, an aware datetime or ISO text with a zone.

    Raises RecordingError when the zone is missing.
    """
    if isinstance(value, bool):
        raise RecordingError(f"{what}: {value!r} is not a time")
    if isinstance(value, int):
        return value
    if hasattr(value, "as_unit") and hasattr(value, "value"):  # pandas.Timestamp, ns kept
        if value.tzinfo is None:
            raise RecordingError(f"{what} {value} has no time zone: add one, such as 'Z' for UTC")
        return int(value.as_unit("ns").value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise RecordingError(f"{what} {value} has no time zone: add one, such as 'Z' for UTC")
        delta = value - _EPOCH
        return ((delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000
    if isinstance(value, str):
        try:
            naive = pa.scalar(value).cast(pa.timestamp("ns"))
        except pa.ArrowInvalid:
            naive = None
        if naive is not None:
            raise RecordingError(f"{what} {value} has no time zone: add one, such as 'Z' for UTC")
        try:
            return int(pa.scalar(value).cast(NS).value)
        except pa.ArrowInvalid:
            pass
    if hasattr(value, "item"):  # numpy integers
        return time_ns(value.item(), what)
    raise RecordingError(f"{what}: {value!r} is not a time; give ISO 8601 such as {_EXAMPLE}")


_EXAMPLE = "2026-01-31T09:30:00Z"


def _columns(table: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    schema = SCHEMAS[table]
    names = {name for row in rows for name in row}
    columns: dict[str, pa.Array] = {}
    for name in names:
        if name not in schema.names:
            raise RecordingError(f"table {table!r} has no column {name!r}")
        type_ = schema.field(name).type
        values = [row.get(name) for row in rows]
        if type_ == ATTRIBUTES:
            values = [None if value is None else _texts(value) for value in values]
        elif type_ == NS:
            values = [None if v is None else time_ns(v, f"{table}.{name}") for v in values]
        elif name in ("events", "links"):
            values = [v if v is None or isinstance(v, str) else _json(v) for v in values]
        elif name == "exemplars":
            values = [None if v is None else [_exemplar(e) for e in v] for v in values]
        try:
            try:
                columns[name] = pa.array(values, type_)
            except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot hold
                columns[name] = pa.array(_encodable(values), type_)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise RecordingError(f"table {table!r}, column {name!r}: {error}") from None
    return columns


def _exemplar(exemplar: Mapping[str, Any]) -> dict[str, Any]:
    time = exemplar.get("time")
    return {**exemplar, "time": None if time is None else time_ns(time, "exemplar time")}


def _texts(attributes: Any) -> list[tuple[str, str]]:
    pairs = attributes.items() if isinstance(attributes, Mapping) else attributes
    return [
        (str(key), value if isinstance(value, str) else _json(value))
        for key, value in pairs
        if value is not None
    ]


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list | tuple):
        return type(value)(_encodable(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _encodable(item) for key, item in value.items()}
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _cast(table: str, field: pa.Field, column: Any) -> Any:
    if column.type == field.type:
        return column
    where = f"table {table!r}, column {field.name!r}"
    if field.type == NS and pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise RecordingError(f"{where}: times have no time zone: localize them first")
    try:
        if pa.types.is_dictionary(field.type):
            return _encode(column)
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RecordingError(f"{where}: {error}") from None


def _encode(column: Any) -> Any:
    """Text as int32 dictionary indices, each batch with only the values that it has."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()).dictionary_encode()


def _fill(field: pa.Field, column: Any) -> Any:
    if not column.null_count or field.name in _NULLABLE:
        return column
    if pa.types.is_dictionary(field.type):
        return _encode(pc.fill_null(column.cast(pa.string()), ""))
    if field.type == pa.string():
        return pc.fill_null(column, _default(field))
    if pa.types.is_integer(field.type):
        return pc.fill_null(column, 0)
    if field.type == ATTRIBUTES:
        return pa.array([value or [] for value in column.to_pylist()], ATTRIBUTES)
    return column


def _default(field: pa.Field) -> str:
    return "[]" if field.name in ("events", "links") else ""


def _absent(field: pa.Field, count: int) -> pa.Array:
    if field.name in _NULLABLE:
        return pa.nulls(count, field.type)
    if pa.types.is_dictionary(field.type):
        return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [""])
    if field.type == pa.string():
        return pa.repeat(pa.scalar(_default(field)), count)
    if pa.types.is_integer(field.type):
        return pa.repeat(pa.scalar(0, field.type), count)
    if pa.types.is_map(field.type) or pa.types.is_list(field.type):
        return pa.array([[]] * count, field.type)
    return pa.nulls(count, field.type)
