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
from ragprof.sources.elasticsearch_documents import Leaves, TooWide, leaves
from ragprof.sources.elasticsearch_pages import Documents
from ragprof.sources.ids import SPAN, TRACE, normal_id
from ragprof.sources.otlp import severity
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

_IS_HEX = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdef", np.uint8))

_PREFIX = "attributes."  # of OpenTelemetry documents; a record's own attributes have none


@dataclass(frozen=True)
class FieldNames:
    """Which fields hold what: column -> names, as ROLES; and where an unparsed line may be."""

    roles: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ROLES)
    embedded: tuple[str, ...] = EMBEDDED


def rows(documents: Documents, fields: FieldNames) -> tuple[pa.Table, Counter[str]]:
    """Rows of `logs` without the key columns, in the order of the documents, and what was
    refused: reason -> documents. A document without a usable time is refused.
    """
    try:
        found = leaves(documents, fields.embedded)
    except TooWide:
        half = len(documents) // 2
        parts = [rows(part, fields) for part in (documents[:half], documents[half:])]
        return pa.concat_tables([made for made, _ in parts]).unify_dictionaries(), sum(
            (refused for _, refused in parts), Counter()
        )
    numbers = {name: number for number, name in enumerate(found.keys)}
    used = found.code < 0

    def column(role: str, read: Callable[[pa.Array, NDArray[np.bool_]], pa.Array]) -> pa.Array:
        names = [name for name in fields.roles[role] if name in numbers]
        return _first(found, [numbers[name] for name in names], read, used)

    moments = column("time", lambda texts, _: _times(texts))
    trace = column("trace_id", lambda texts, is_text: _ids(texts, is_text, TRACE))
    span = column("span_id", lambda texts, is_text: _ids(texts, is_text, SPAN))
    service = column("service", _texts)
    workloads = [numbers[name] for name in WORKLOADS if name in numbers]
    workload = _first(found, workloads, _texts, used.copy())
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
    found: Leaves,
    keys: list[int],
    read: Callable[[pa.Array, NDArray[np.bool_]], pa.Array],
    used: NDArray[np.bool_],
) -> pa.Array:
    """For each document what the first of some fields says that can be read; null without any.

    Marks the fields that were taken in `used`. `read` makes texts readable, or null.
    """
    place = np.full(len(found.code), -1, np.int64)
    parts: list[pa.Array] = []
    size = 0
    for key in keys:
        open_ = np.flatnonzero((place < 0) & (found.code[:, key] >= 0))
        if not len(open_):
            continue
        taken = found.code[open_, key]
        seen = np.zeros(len(found.values), bool)
        seen[taken] = True
        codes, inverse = np.flatnonzero(seen), (np.cumsum(seen) - 1)[taken]
        part = read(found.values.take(pa.array(codes)), found.is_text[codes])
        good = np.asarray(pc.is_valid(part))[inverse]
        place[open_[good]] = size + inverse[good]
        used[open_[good], key] = True
        parts.append(part)
        size += len(part)
    if not parts:
        return pa.nulls(len(found.code), pa.string())
    missing = place < 0
    return pa.concat_arrays(parts).take(pa.array(np.where(missing, 0, place), mask=missing))


def _times(texts: pa.Array) -> pa.Array:
    moments = times(texts)
    return pa.array(moments, mask=moments == 0).cast(NS).cast(pa.int64())


def _texts(texts: pa.Array, is_text: NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(is_text), texts, None)


def _ids(texts: pa.Array, is_text: NDArray[np.bool_], digits: int) -> pa.Array:
    if len(texts) and pc.all(pc.equal(pc.binary_length(texts), digits)).as_py():
        offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
        octets = np.frombuffer(texts.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        if _IS_HEX[octets].all():
            is_id = (octets.reshape(-1, digits) != ord("0")).any(axis=1)
            return pc.if_else(pa.array(is_id), texts, None)
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


def _attributes(found: Leaves, used: NDArray[np.bool_]) -> pa.Array:
    """What has no column of its own, as maps; `attributes.x` is `x` of the record itself."""
    names: dict[str, list[int]] = {}
    for number, name in enumerate(found.keys):
        names.setdefault(name.removeprefix(_PREFIX) or name, []).append(number)
    left = np.where(used, -1, found.code)
    if len(names) < len(found.keys):  # both in one document: the later counts
        merged = [left[:, numbers[0]] for numbers in names.values()]
        for place, numbers in enumerate(names.values()):
            for number in numbers[1:]:
                merged[place] = np.where(left[:, number] >= 0, left[:, number], merged[place])
        left = np.stack(merged, axis=1)
    there = left >= 0
    offsets = np.zeros(len(left) + 1, np.int32)
    offsets[1:] = np.cumsum(there.sum(axis=1))
    keys = pa.array(list(names), pa.string()).take(pa.array(np.nonzero(there)[1]))
    return pa.MapArray.from_arrays(
        pa.array(offsets), keys, found.values.take(pa.array(left[there]))
    )
