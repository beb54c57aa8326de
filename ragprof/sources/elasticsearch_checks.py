"""What `ragprof doctor` looks at in Elasticsearch: reach, rights, fields, possible joins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragprof.sources import elasticsearch_logs
from ragprof.sources.elasticsearch_spans import KINDS_OF_SPANS
from ragprof.sources.source import OK, WARNING, Check, Query, SourceError, Window, failed

if TYPE_CHECKING:
    from ragprof.sources.elasticsearch import Elasticsearch

SAMPLE = 1000  # log records that are looked at


def checks(source: Elasticsearch, window: Window) -> list[Check]:
    """One check per subject; raises SourceError when the cluster cannot be asked at all."""
    found = []
    if source.logs:
        found += _logs(source, window)
    if source.spans:
        found += _spans(source, window)
    return found


def _logs(source: Elasticsearch, window: Window) -> list[Check]:
    types = source.field_types(source.logs)
    reachable = Check(source.name, "reachable", OK, f"{source.client.address} answers")
    if not types:
        return [
            reachable,
            Check(
                source.name,
                "logs",
                WARNING,
                f"no index matches {source.logs}",
                "set logs to the pattern of your log indices",
            ),
        ]
    try:
        pieces = [
            piece for piece in source.plan(window, Query()) if piece.request["table"] == "logs"
        ]
    except SourceError as error:
        return [reachable, failed(source, "logs", error)]
    count = sum(piece.rows or 0 for piece in pieces)
    if not count:
        return [
            reachable,
            Check(
                source.name,
                "logs",
                WARNING,
                f"{source.logs} has no record in the window",
                "look at the shipper, or at the field named by time",
            ),
        ]
    return [
        reachable,
        Check(source.name, "logs", OK, f"{source.logs}: {count:,} records in the window"),
        *_joins(source, window),
    ]


def _joins(source: Elasticsearch, window: Window) -> list[Check]:
    """How many records of a sample carry trace ids and services."""
    clause = {"range": {source.time: {"gte": window.start // 1_000_000, "format": "epoch_millis",
                                      "lt": -(-window.end // 1_000_000)}}}  # fmt: skip
    page = source.client.search({"size": SAMPLE, "query": clause}, source.logs)
    rows, refused = elasticsearch_logs.rows([hit.source for hit in page.hits.hits], source.fields)
    total = rows.num_rows or 1
    traced = sum(1 for trace in rows["trace_id"].to_pylist() if trace)
    named = sum(1 for service in rows["service"].to_pylist() if service)
    found = [
        Check(
            source.name,
            "trace ids in logs",
            OK if traced else WARNING,
            f"{traced / total:.0%} of {total:,} records carry a trace id",
            ""
            if traced
            else "log trace_id and span_id (ragprof.service.logging does), or set fields.trace_id",
        )
    ]
    if named < rows.num_rows:
        found.append(
            Check(
                source.name,
                "services in logs",
                WARNING,
                f"{named / total:.0%} of {total:,} records name their service",
                "set fields.service to the field that does",
            )
        )
    for reason, count in refused.items():
        found.append(
            Check(source.name, "logs", WARNING, f"{count:,} x {reason}", "set fields.time")
        )
    return found


def _spans(source: Elasticsearch, window: Window) -> list[Check]:
    types = source.field_types(source.spans)
    if not types:
        return [
            Check(
                source.name,
                "spans",
                OK,
                f"no index matches {source.spans}: spans come from elsewhere",
            )
        ]
    kinds = [
        kind.name for kind in KINDS_OF_SPANS if {kind.time, kind.exists, kind.trace} <= set(types)
    ]
    if kinds:
        return [Check(source.name, "spans", OK, f"{source.spans}: spans of {', '.join(kinds)}")]
    return [
        Check(
            source.name,
            "spans",
            WARNING,
            f"{source.spans} holds no spans of {', '.join(kind.name for kind in KINDS_OF_SPANS)}",
            "set spans to the pattern of your span indices, or to an empty text",
        )
    ]
