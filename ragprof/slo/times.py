"""Windows as people give them: ``30d`` ago, or an instant with a zone."""

from __future__ import annotations

import time
from datetime import datetime

from ragprof.errors import RagprofError
from ragprof.slo.rulefile import RuleError, seconds


class TimeError(RagprofError):
    """A time that cannot be read."""


def instant(text: str, name: str, now: float | None = None) -> float:
    """``30d`` (ago), ``now`` or ISO 8601 with a zone, in s since 1970. Raises TimeError."""
    now = time.time() if now is None else now
    if text == "now":
        return now
    try:
        return now - seconds(text)
    except RuleError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TimeError(
            f"{name} {text!r} is not a time; write 30d, 6h, or 2026-01-31T10:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise TimeError(f"{name} {text!r} has no time zone; end it with Z")
    return moment.timestamp()
