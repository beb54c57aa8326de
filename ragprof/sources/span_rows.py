"""Rows of `spans` put together one by one, for the forms that come as JSON.

What OTLP calls a span that cannot be placed is refused here by the same words.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa

from ragprof.sources.otlp import KINDS, LATEST_NS, STATUSES, Pairs, table
from ragprof.tables import SPANS


class SpanRows:
    """Columns of `spans` without the keys; `refused`: reason -> spans."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self._columns: dict[str, list[Any]] = {
            name: [] for name in SPANS.names if not name.endswith("_key")
        }

    def __len__(self) -> int:
        return len(self._columns["span_id"])

    def add(
        self,
        *,
        trace: str,
        span: str,
        parent: str,
        service: str,
        scope: str,
        name: str,
        kind: str,
        start: int | None,
        duration: int | None,
        status: str,
        status_message: str,
        attributes: Pairs,
        resource: Pairs,
        events: list[dict[str, Any]],
        links: list[dict[str, Any]],
    ) -> None:
        """One span. Ids are in the one form, empty when there is none; times in ns."""
        if not trace:
            self.refused["span without a valid trace id"] += 1
            return
        if not span:
            self.refused["span without a valid span id"] += 1
            return
        if start is None or not 0 < start <= LATEST_NS:
            self.refused["span without a usable start"] += 1
            return
        if duration is None:
            self.refused["span that has not ended (kept with duration 0)"] += 1
        elif duration < 0:
            self.refused["span ended before it began (kept with duration 0)"] += 1
        row = {
            "trace_id": trace,
            "span_id": span,
            "parent_span_id": "" if parent == span else parent,
            "service": service,
            "scope": scope,
            "name": name,
            "kind": kind if kind in KINDS else KINDS[0],
            "start": start,
            "duration_ns": min(max(0, duration or 0), LATEST_NS - start),
            "status": status if status in STATUSES else STATUSES[0],
            "status_message": status_message,
            "attributes": attributes,
            "resource": resource,
            "events": json.dumps(events, ensure_ascii=False) if events else "[]",
            "links": json.dumps(links, ensure_ascii=False) if links else "[]",
        }
        for column, value in row.items():
            self._columns[column].append(value)

    def table(self) -> pa.Table:
        """The rows so far, columns as `otlp.spans` has them."""
        try:
            return table(SPANS, self._columns)
        except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot hold
            return table(SPANS, {name: _encodable(rows) for name, rows in self._columns.items()})


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return tuple(map(_encodable, value)) if isinstance(value, tuple) else value


def distinct(pairs: Pairs) -> Pairs:
    """Pairs with each key once; the last value counts."""
    return list(dict(pairs).items())
