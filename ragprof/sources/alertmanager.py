"""Alertmanager: alerts that fire now or did a moment ago, as rows of `changes`.

It keeps no history: an alert that was resolved leaves it after some minutes. What fired earlier is
in Prometheus (`ragprof.sources.prometheus_changes`). API: Alertmanager v2, `GET /api/v2/alerts`.
"""

from __future__ import annotations

from typing import Any

from ragprof.manifest import RecordingError
from ragprof.rows import conform, time_ns
from ragprof.sources.http import Client, Garbled, connection, parse_json
from ragprof.sources.prometheus_changes import alert
from ragprof.sources.settings import Settings
from ragprof.sources.source import OK, Check, Piece, Query, SourceError, Tables, Window, failed

SERVICE_LABELS = ("service", "service_name", "app", "job")
ROW_BYTES = 1000


class Alertmanager:
    """A source (see `ragprof.sources.source`) of `changes` of kind "alert"."""

    kind = "alertmanager"
    tables: tuple[str, ...] = ("changes",)

    def __init__(self, client: Client, *, service_labels: tuple[str, ...] = SERVICE_LABELS) -> None:
        self.name, self.client = client.name, client
        self._service_labels = service_labels

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "address": self.client.to.address}

    def check(self, window: Window) -> list[Check]:
        try:
            count = len(self._alerts())
        except SourceError as error:
            return [failed(self, "reachable", error)]
        text = f"{self.client.to.address} answers, {count} alerts"
        return [Check(self.name, "reachable", OK, text)]

    def plan(self, window: Window, query: Query) -> list[Piece]:
        count = len(self._alerts())
        return [
            Piece(
                "alerts",
                window,
                "GET /api/v2/alerts",
                {"services": list(query.services)},
                rows=count,
                bytes=count * ROW_BYTES,
            )
        ]

    def fetch_piece(self, piece: Piece) -> Tables:
        services = set(piece.request["services"])
        rows = []
        for each in self._alerts():
            labels = each["labels"]
            start, end = each["starts"], each["ends"]
            service = next((labels[k] for k in self._service_labels if labels.get(k)), "")
            if start >= piece.window.end or end <= piece.window.start:
                continue
            if services and service not in services:
                continue
            row = alert(
                labels,
                service,
                max(start, piece.window.start),
                end if end < piece.window.end else None,
                began_before=start < piece.window.start,
                **{f"annotation.{key}": value for key, value in each["annotations"].items()},
                state=each["state"],
            )
            rows.append(row)
        yield "changes", conform("changes", rows)

    def close(self) -> None:
        self.client.close()

    def _alerts(self) -> list[dict[str, Any]]:
        return self.client.call("GET", "/api/v2/alerts", _read)


def _read(body: bytes) -> list[dict[str, Any]]:
    answer = parse_json(body)
    try:
        return [
            {
                "labels": {str(k): str(v) for k, v in each["labels"].items()},
                "annotations": {str(k): str(v) for k, v in (each.get("annotations") or {}).items()},
                "starts": time_ns(each["startsAt"]),
                "ends": time_ns(each["endsAt"]),
                "state": str(each.get("status", {}).get("state", "")),
            }
            for each in answer
        ]
    except (KeyError, TypeError, AttributeError, RecordingError) as error:
        raise Garbled(f"not alerts ({error!r})"[:200]) from None


def connect(settings: Settings) -> Alertmanager:
    """The source that a section describes; fields are those of `http.connection` and
    service_labels. Raises ConfigError.
    """
    to = connection(settings)
    return Alertmanager(
        Client(settings.name, to), service_labels=settings.texts("service_labels", SERVICE_LABELS)
    )
