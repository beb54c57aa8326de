"""Lines of a child's stdout and stderr -> rows of `logs`.

A line that is a JSON object is a log record: structlog, python-json-logger, the JSON forms of
loguru, ECS and Datadog all differ in key names only. Any other line is kept as text; a traceback
becomes one record.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from ragprof.sources.ids import SPAN, TRACE, normal_id
from ragprof.sources.log_names import (
    BODIES,
    LEVELS,
    REQUEST_IDS,
    SERVICES,
    SPANS,
    TIMES,
    TRACES,
    severity_of_number,
)
from ragprof.sources.otlp import severity

MAX_LINE = 64 << 10  # bytes of a line that are kept
NEAR = 3600 * 1_000_000_000  # ns; a time further from its arrival is not when it was logged

_LEVEL_AT_START = re.compile(
    r"^\W{0,2}(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b", re.IGNORECASE
)
_LEVEL_INSIDE = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL)\b")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRACEBACK = "Traceback (most recent call last):"


def row(line: str, arrived: int, service: str, stream: str) -> dict[str, Any]:
    """One line as a row of `logs`.

    `arrived` (ns since 1970) is its time when it names none of its own, or one without a time
    zone. `service` is that of the process; `stream` is stdout or stderr.
    """
    content = _object(line)
    if content is None:
        plain = _COLOURS.sub("", line).rstrip()
        return {
            "time": arrived,
            "severity": _severity_of_text(plain),
            "service": service,
            "body": plain,
            "trace_id": "",
            "span_id": "",
            "request_id": "",
            "attributes": [("log.iostream", stream)],
        }
    flat = _flat(content)
    time = _take(flat, TIMES, lambda value: _time(value, arrived))
    level = _take(flat, LEVELS, _severity)
    body = _take(flat, BODIES, lambda value: value if isinstance(value, str) else None)
    trace_id = _take(flat, TRACES, lambda value: normal_id(value, TRACE))
    span_id = _take(flat, SPANS, lambda value: normal_id(value, SPAN))
    request_id = _take(flat, REQUEST_IDS, lambda value: value if isinstance(value, str) else None)
    named = _take(flat, SERVICES, lambda value: value if isinstance(value, str) else None)
    attributes = [(key, _text(value)) for key, value in flat.items()]
    return {
        "time": time or arrived,
        "severity": level or "",
        "service": named or service,
        "body": body or "",
        "trace_id": trace_id or "",
        "span_id": (span_id or "") if trace_id else "",
        "request_id": request_id or "",
        "attributes": [*attributes, ("log.iostream", stream)],
    }


class Lines:
    """Cuts one stream of bytes into records: lines, with each traceback kept whole."""

    def __init__(self) -> None:
        self.cut = 0  # lines longer than MAX_LINE, of which the rest was left out
        self._rest = b""
        self._skipping = False
        self._traceback: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        """The records that `data` completes."""
        *whole, rest = (self._rest + data).split(b"\n")
        records: list[str] = []
        for raw in whole:
            if self._skipping:
                self._skipping = False
                continue
            records += self._line(self._kept(raw))
        if self._skipping:
            rest = b""
        elif len(rest) > MAX_LINE:
            records += self._line(self._kept(rest))
            self._skipping, rest = True, b""
        self._rest = rest
        return records

    def idle(self) -> list[str]:
        """A traceback that has no last line yet, when the stream was silent for a while."""
        records = ["\n".join(self._traceback)] if self._traceback else []
        self._traceback = []
        return records

    def close(self) -> list[str]:
        """What is left when the stream ends."""
        records = self._line(self._kept(self._rest)) if self._rest else []
        self._rest = b""
        return records + self.idle()

    def _kept(self, raw: bytes) -> str:
        if len(raw) > MAX_LINE:
            self.cut += 1
            raw = raw[:MAX_LINE]
        return raw.decode("utf-8", "replace").rstrip("\r")

    def _line(self, line: str) -> list[str]:
        if self._traceback:
            self._traceback.append(line)
            size = len(self._traceback)
            if size < 1000 and (line.startswith((" ", "\t")) or line == _TRACEBACK):
                return []
            record, self._traceback = "\n".join(self._traceback), []
            return [record]
        if line.endswith(_TRACEBACK):
            self._traceback = [line]
            return []
        return [line] if line.strip() else []


def _object(line: str) -> dict[str, Any] | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content else None


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """Objects one level down become dotted keys: ECS and Datadog nest their ids."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat.update({f"{key}.{inner}": each for inner, each in value.items()})
        else:
            flat[key] = value
    return flat


def _take(flat: dict[str, Any], names: tuple[str, ...], read: Any) -> Any:
    """The first of `names` that can be read, taken out of `flat`; None when there is none."""
    for name in names:
        if name in flat:
            value = read(flat[name])
            if value is not None:
                del flat[name]
                return value
    return None


def _time(value: Any, arrived: int) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if not abs(value) < 1e20:  # also NaN, and integers too large for a float
            return None
        # seconds, milliseconds, microseconds or nanoseconds, told by magnitude
        for scale in (1_000_000_000, 1_000_000, 1000, 1):
            ns = round(value * scale)
            if abs(ns - arrived) < NEAR:
                return ns
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        if moment.tzinfo is None:  # a naive time may be of any zone
            return None
        since = moment - _EPOCH
        ns = ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
        return ns if abs(ns - arrived) < NEAR else None
    return None


def _severity(value: Any) -> str | None:
    if isinstance(value, str):
        return severity(value) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return severity_of_number(value)
    return None


def _severity_of_text(line: str) -> str:
    first = line.split("\n", 1)[0]
    if _TRACEBACK in first:
        return "error"
    found = _LEVEL_AT_START.match(first) or _LEVEL_INSIDE.search(first[:80])
    return severity(found.group(1)) if found else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
