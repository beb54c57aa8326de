"""HTTP calls of the checks: a few seconds, few retries, JSON or text."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ragprof.errors import RagprofError
from ragprof.sources.http import Client, Connection

T = TypeVar("T")
WAITS = 60.0  # seconds for a marked line or span to come through


class CallError(RagprofError):
    """An address that is none."""


def client(name: str, url: str) -> Client:
    """A client for one address; raises CallError when it is none."""
    if not url.startswith(("http://", "https://")):
        raise CallError(f"{name}: {url!r} is not an address; write it like http://127.0.0.1:9090")
    return Client(name, Connection(url.rstrip("/"), retries=1, timeout=20))


def get(name: str, url: str, path: str, params: dict[str, Any] | None = None) -> Any:
    """JSON of a GET. Raises SourceError."""
    made = client(name, url)
    try:
        return made.json("GET", path, params=params)
    finally:
        made.close()


def post(name: str, url: str, path: str, content: Any) -> Any:
    """JSON, or the text, of a POST of JSON. Raises SourceError."""
    made = client(name, url)
    try:
        return made.call("POST", path, lambda body: body, json=content)
    finally:
        made.close()


def until(look: Callable[[], T | None], seconds: float = WAITS, every: float = 0.5) -> T | None:
    """What `look` finds, asked again until it finds something or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(every)
