"""Leaf fields of Elasticsearch documents -> rows of `logs`.

Names by default are those of structlog and its like, Fluentd and rsyslog with Kubernetes metadata
(nested or flattened), the Elastic Common Schema, and OpenTelemetry data streams. What has a column
of its own leaves the attributes; everything else stays there under its dotted name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragprof.sources import log_names
from ragprof.sources.elasticsearch_documents import Document, Entries, entries
from ragprof.sources.ids import SPAN, TRACE, normal_id
from ragprof.sources.otlp import severity
from ragprof.sources.otlp_wire import Ints
from ragprof.sources.times import times
from ragprof.tables import LOGS, NS

ROLES: dict[str, tuple[str, ...]] = {
    "time": ("@timestamp", *log_names.TIMES),
    "severity": ("severity_text", "log.syslog.severity.name", *log_names.LEVELS),
    "body": ("body.text", "body.string", *log_names.BODIES, "log", "event_name"),
    "service": ("resource.attributes.service.name", "resource.service.name", *log_names.SERVICES),
    "trace_id": log_names.TRACES,
    "span_id": log_names.SPANS,
    "request_id": (*log_names.REQUEST_IDS, "http.request.id"),
}
"""Column -> the fields that may hold it, the first that a document has counts."""

WORKLOADS = (
    *("kubernetes.labels.app.kubernetes.io/name", "kubernetes.labels.app_kubernetes_io/name"),
    *("kubernetes.labels.app", "kubernetes.container_name", "kubernetes.container.name"),
    *("kubernetes_container_name", "resource.attributes.k8s.deployment.name", "container.name"),
    "programname",
)
"""Fields that name the service when no field of its own does; they stay attributes."""

EMBEDDED = ("log", "message", "msg")
"""Fields in which a shipper leaves a line that it did not parse."""

_PREFIX = "attributes."  # of OpenTelemetry documents; a record's own attributes have none


@dataclass(frozen=True)
class FieldNames:
    """Which fields hold what: column -> names, as ROLES; and where an unparsed line may be."""

    roles: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ROLES)
    embedded: tuple[str, ...] = EMBEDDED


def rows(documents: list[Document], fields: FieldNames) -> tuple[pa.Table, Counter[str]]:
    """Rows of `logs` without the key columns, in the order of the documents, and what was
    refused: reason -> documents. A document without a usable time is refused.
    """
    found = entries(documents, fields.embedded)
    numbers = {name: number for number, name in enumerate(found.keys)}
    used = np.zeros(len(found.row), bool)

    def column(role: str, read: Callable[[pa.Array, NDArray[np.bool_]], pa.Array]) -> pa.Array:
        names = [name for name in fields.roles[role] if name in numbers]
        return _first(found, [numbers[name] for name in names], read, used)

    moments = column("time", lambda texts, _: _times(texts))
    trace = column("trace_id", lambda texts, is_text: _ids(texts, is_text, TRACE))
    span = column("span_id", lambda texts, is_text: _ids(texts, is_text, SPAN))
    service = column("service", _texts)
    workloads = [numbers[name] for name in WORKLOADS if name in numbers]
    workload = _first(found, workloads, _texts, np.zeros(len(found.row), bool))
    columns = {
        "time": pc.cast(pc.fill_null(moments.cast(pa.int64()), 0), NS),
        "severity": column("severity", _severities),
        "service": pc.coalesce(service, workload, pa.scalar("")),
        "body": column("body", lambda texts, _: texts),
        "trace_id": trace,
        "span_id": pc.if_else(pc.is_valid(trace), span, None),
        "request_id": column("request_id", _texts),
    }
    attributes = _attributes(found, used)
    refused: Counter[str] = Counter()
    for name, values in columns.items():
        if name != "time":
            columns[name] = pc.fill_null(values, "")
    made = pa.table(
        [*(_typed(name, values) for name, values in columns.items()), attributes],
        schema=pa.schema([LOGS.field(name) for name in (*columns, "attributes")]),
    )
    timed = pc.is_valid(moments)
    lost = len(documents) - int(pc.sum(timed).as_py() or 0)
    if lost:
        refused["document without a usable time"] = lost
        made = made.filter(timed)
    return made, refused


def _typed(name: str, values: pa.Array) -> pa.Array:
    wanted = LOGS.field(name).type
    if pa.types.is_dictionary(wanted):
        return values.cast(pa.string()).dictionary_encode()
    return values


def _first(
    found: Entries,
    names: list[int],
    read: Callable[[pa.Array, NDArray[np.bool_]], pa.Array],
    used: NDArray[np.bool_],
) -> pa.Array:
    """For each document what the first of some fields says that can be read; null without any.

    Marks the entries that were taken in `used`. `read` makes texts readable, or null.
    """
    place = np.full(found.documents, -1, np.int64)
    parts: list[pa.Array] = []
    size = 0
    for number in names:
        open_ = np.flatnonzero(found.key == number)
        open_ = open_[place[found.row[open_]] < 0]
        if not len(open_):
            continue
        codes, inverse = np.unique(found.value[open_], return_inverse=True)
        part = read(found.values.take(pa.array(codes)), found.is_text[codes])
        good = np.asarray(pc.is_valid(part))[inverse]
        place[found.row[open_[good]]] = size + inverse[good]
        used[open_[good]] = True
        parts.append(part)
        size += len(part)
    if not parts:
        return pa.nulls(found.documents, pa.string())
    missing = place < 0
    return pa.concat_arrays(parts).take(pa.array(np.where(missing, 0, place), mask=missing))


def _times(texts: pa.Array) -> pa.Array:
    moments = times(texts)
    return pa.array(moments, mask=moments == 0).cast(NS).cast(pa.int64())


def _texts(texts: pa.Array, is_text: NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(is_text), texts, None)


def _ids(texts: pa.Array, is_text: NDArray[np.bool_], digits: int) -> pa.Array:
    plain = pc.match_substring_regex(texts, rf"^[0-9a-f]{{{digits}}}$")
    if len(texts) and pc.all(plain).as_py():
        return pc.if_else(pc.match_substring_regex(texts, "[^0]"), texts, None)
    return pa.array(
        [
            normal_id(text if quoted or not text.isdigit() else int(text), digits)
            for text, quoted in zip(texts.to_pylist(), is_text.tolist(), strict=True)
        ],
        pa.string(),
    )


def _severities(texts: pa.Array, is_text: NDArray[np.bool_]) -> pa.Array:
    names = []
    for text, quoted in zip(texts.to_pylist(), is_text.tolist(), strict=True):
        if quoted:
            names.append(severity(text) or None)
        else:
            number = text.isdigit()
            names.append(log_names.severity_of_number(int(text)) if number else None)
    return pa.array(names, pa.string())


def _attributes(found: Entries, used: NDArray[np.bool_]) -> pa.Array:
    left = ~used
    keys, renamed = _plain_names(found.keys)
    row, key, value = found.row[left], renamed[found.key[left]], found.value[left]
    if len(keys) < len(found.keys):  # `attributes.x` and `x` in one document: the former counts
        order = np.lexsort((found.key[left], key, row))
        row, key, value = row[order], key[order], value[order]
        last = np.ones(len(row), bool)
        last[:-1] = (row[1:] != row[:-1]) | (key[1:] != key[:-1])
        row, key, value = row[last], key[last], value[last]
    offsets = np.zeros(found.documents + 1, np.int32)
    offsets[1:] = np.cumsum(np.bincount(row, minlength=found.documents))
    names = pa.array(keys, pa.string())
    return pa.MapArray.from_arrays(
        pa.array(offsets), names.take(pa.array(key)), found.values.take(pa.array(value))
    )


def _plain_names(names: list[str]) -> tuple[list[str], Ints]:
    """Names of attributes, and for each field its index into them."""
    short = [name.removeprefix(_PREFIX) or name for name in names]
    distinct = list(dict.fromkeys(short))
    numbers = {name: number for number, name in enumerate(distinct)}
    return distinct, np.array([numbers[name] for name in short], np.int64)
