"""Rows of `changes` that a recorder sees by itself: starts, exits, restarts, version flips."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping
from typing import Any

KINDS = ("deploy", "restart", "config", "alert", "scaling", "mark")
MAX_TEXT = 200  # characters of a command line in a row's text


def row(
    kind: str,
    text: str,
    service: str = "",
    attributes: Mapping[str, Any] | None = None,
    *,
    at: int | None = None,
) -> dict[str, Any]:
    """One moment; `at` is ns since 1970, now by default."""
    return {
        "time": time.time_ns() if at is None else at,
        "end": None,
        "kind": kind,
        "service": service,
        "text": text,
        "attributes": [(key, str(value)) for key, value in (attributes or {}).items()],
    }


def started(pid: int, command: list[str], service: str, at: int) -> dict[str, Any]:
    text = f"process {pid} started: {shlex.join(command)[:MAX_TEXT]}"
    return row("restart", text, service, {"event": "start", "process": pid}, at=at)


def ended(pid: int, service: str, code: int | None = None) -> dict[str, Any]:
    """`code` is the exit code as far as it is known; negative: the signal that ended it."""
    attributes: dict[str, Any] = {"event": "end", "process": pid}
    how = ""
    if code is not None:
        attributes["exit_code"] = code
        how = f" (signal {-code})" if code < 0 else f" (exit code {code})"
    return row("restart", f"process {pid} ended{how}", service, attributes)


def version(service: str, pid: int, before: str, now: str) -> dict[str, Any]:
    attributes = {"process": pid, "before": before, "after": now}
    return row("deploy", f"service.version {before} -> {now}", service, attributes)


class StartTimes:
    """Restarts told from `process_start_time_seconds`, which every Prometheus client exposes."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def seen(self, url: str, service: str, seconds: float) -> dict[str, Any] | None:
        """A row when the process behind `url` is another than at the last scrape."""
        with self._lock:
            before = self._last.get((url, service))
            self._last[url, service] = seconds
        if before is None or abs(before - seconds) < 1:
            return None
        text = f"the process behind {url} was restarted"
        attributes = {"event": "start", "url": url}
        return row("restart", text, service, attributes, at=round(seconds * 1e9))
