"""OTLP JSON -> protobuf messages, so that there is one decoding.

Written by hand because protobuf's own JSON reader takes ids for base64, and OTLP writes them in
hex (opentelemetry-proto, "JSON Protobuf Encoding"). Unknown fields are ignored, as it demands.
Ids in base64 are understood as well: by their length they cannot be taken for hex.
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

ID_FIELDS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_FLOATS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def fill(message: Message, content: Any) -> None:
    """Set the fields of `message` from parsed JSON; raises ValueError or TypeError on a misfit."""
    if not isinstance(content, dict):
        raise TypeError(f"{message.DESCRIPTOR.name} must be an object")
    known = _fields(message.DESCRIPTOR)
    for key, value in content.items():
        field = known.get(key)
        if field is None or value is None:
            continue
        if field.message_type is not None:
            _fill_message(message, field, value)
        elif field.is_repeated:
            if not isinstance(value, list):
                raise TypeError(f"{key} must be an array")
            getattr(message, field.name).extend(_scalar(field, item) for item in value)
        else:
            setattr(message, field.name, _scalar(field, value))


def _fill_message(message: Message, field: FieldDescriptor, value: Any) -> None:
    target = getattr(message, field.name)
    if not field.is_repeated:
        target.SetInParent()
        fill(target, value)
        return
    if not isinstance(value, list):
        raise TypeError(f"{field.json_name} must be an array")
    for item in value:
        fill(target.add(), item)


@functools.cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    fields: dict[str, FieldDescriptor] = {}
    for field in descriptor.fields:
        fields[field.name] = fields[field.json_name] = field
    return fields


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.cpp_type in _INTEGERS:
        return _integer(field, value)
    if field.cpp_type in _FLOATS:
        if isinstance(value, str):
            return _SPECIAL[value] if value in _SPECIAL else float(value)
        return float(value)
    if field.enum_type is not None:
        if isinstance(value, str):  # the specification wants numbers; names are unambiguous
            named = field.enum_type.values_by_name.get(value)
            if named is None:
                raise ValueError(f"{value!r} is no {field.enum_type.name}")
            return named.number
        return _integer(field, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(field, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL and not isinstance(value, bool):
        raise TypeError(f"{field.json_name} must be true or false")
    return value


def _integer(field: FieldDescriptor, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise TypeError(f"{field.json_name} must be an integer")
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{field.json_name} must be an integer")
    return int(value)


def _bytes(field: FieldDescriptor, value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{field.json_name} must be a string")
    try:
        if field.name in ID_FIELDS:
            # protobuf's own writers put ids into base64, which is shorter than hex
            if len(value) == (ID_FIELDS[field.name] + 2) // 3 * 4:
                return base64.b64decode(value, validate=True)
            return bytes.fromhex(value)
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"{field.json_name}: {error}") from None
