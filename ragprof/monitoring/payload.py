"""What Alertmanager sends: webhook payloads (version 4) and the alerts of its API (v2)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ragprof.errors import RagprofError

LARGEST = 1 << 20  # bytes
MOST_ALERTS = 1000
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


class PayloadError(RagprofError):
    """A payload that is not one of Alertmanager's."""


@dataclass(frozen=True)
class Alert:
    """One alert; times in s since 1970, `ends` is None while it fires."""

    name: str
    labels: Mapping[str, str]
    starts: float
    ends: float | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def firing(self) -> bool:
        return self.ends is None

    @property
    def identity(self) -> str:
        """The labels as one text: what tells alerts apart."""
        return json.dumps(dict(self.labels), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """As a payload that `read` takes."""
        return {
            "status": "firing" if self.firing else "resolved",
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "startsAt": _text(self.starts),
            "endsAt": "0001-01-01T00:00:00Z" if self.ends is None else _text(self.ends),
        }


def read(data: bytes, where: str = "the payload") -> list[Alert]:
    """The alerts of a payload. Raises PayloadError that names the field."""
    if len(data) > LARGEST:
        raise PayloadError(f"{where} is larger than {LARGEST:,} bytes; set max_alerts lower")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise PayloadError(f"{where} is not JSON; give what Alertmanager sent") from None
    if isinstance(content, dict):
        content = content.get("alerts", [content] if "labels" in content else None)
    if not isinstance(content, list) or not content:
        raise PayloadError(f"{where} has no 'alerts'; give what Alertmanager sent")
    if len(content) > MOST_ALERTS:
        raise PayloadError(f"{where} has more than {MOST_ALERTS} alerts; set max_alerts lower")
    return [_alert(entry, f"{where}: alert {number}") for number, entry in enumerate(content, 1)]


def named(text: str, labels: Mapping[str, str]) -> Alert:
    """An alert as in the annotation's command: ``NAME@TIME``. Raises PayloadError."""
    name, at, when = text.rpartition("@")
    if not at or not name:
        raise PayloadError(
            f"--alert {text!r} is neither a file nor NAME@TIME; write it like "
            "HighLatency@2026-01-31T10:00:00Z"
        )
    return Alert(name, {**labels, "alertname": name}, _seconds(when, f"--alert {text!r}: time"))


def _alert(entry: Any, at: str) -> Alert:
    if not isinstance(entry, dict):
        raise PayloadError(f"{at} is no object; give what Alertmanager sent")
    labels, annotations = (_texts(entry, name, at) for name in ("labels", "annotations"))
    if not labels.get("alertname"):
        raise PayloadError(f"{at}: label 'alertname' is missing; give what Alertmanager sent")
    ends = entry.get("endsAt")
    # While it fires, a webhook has a zero time there and the API has a guess.
    over = _seconds(ends, f"{at}: 'endsAt'") if ends and entry.get("status") == "resolved" else None
    starts = _seconds(entry.get("startsAt"), f"{at}: 'startsAt'")
    return Alert(labels["alertname"], labels, starts, over, annotations)


def _texts(entry: Mapping[str, Any], name: str, at: str) -> dict[str, str]:
    value = entry.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise PayloadError(f"{at}: {name!r} is not an object of texts; give what Alertmanager sent")
    return value


def _seconds(value: Any, at: str) -> float:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise PayloadError(f"{at} is not a time; write it like 2026-01-31T10:00:00Z")
    try:  # Go writes nanoseconds, which datetime does not read
        moment = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    except ValueError:
        raise PayloadError(f"{at} is not a time; write it like 2026-01-31T10:00:00Z") from None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() + float(found[2] or 0)


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
