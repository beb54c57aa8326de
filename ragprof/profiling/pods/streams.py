"""One recording over the streams of a process in a container: sends py-spy, takes the profile.

The recorder (`inside/record.*`) writes its protocol among py-spy's own messages, in lines that
begin with ``@ragprof``: ready, target PID UID:GID self UID:GID, started, nonblocking, code N,
bytes N, failed WHY.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ragprof.profiles.content import MOST_BYTES
from ragprof.profiling import permissions
from ragprof.profiling.pods.cluster import PodError

STDIN, STDOUT, STDERR, STATUS = 0, 1, 2, 3
GRACE = 60.0  # seconds, beyond those of the recording, until it counts as hung
CHUNK = 1 << 16
MARK = "@ragprof "
_BROKEN: tuple[type[Exception], ...] = (OSError,)
with contextlib.suppress(ModuleNotFoundError):  # a part of kubernetes
    from websocket import WebSocketException

    _BROKEN = (OSError, WebSocketException)

Progress = Callable[[float], None]
"""Called with the seconds recorded so far."""


@dataclass
class Recorded:
    """What came out of a recorder."""

    content: bytes = b""
    said: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    status: str = ""
    """Why the process could not be run, in Kubernetes' words; empty when it ran."""
    stopped_after: float | None = None
    """Seconds until Ctrl-C, if it came."""

    @property
    def failed(self) -> str:
        """The recorder's own reason, or py-spy's last words."""
        if "failed" in self.facts:
            return self.facts["failed"]
        words = [line for line in self.said if line and not line.startswith("py-spy>")]
        if "Stack backtrace:" in words:
            words = words[: words.index("Stack backtrace:")]
        return " ".join(words) or self.status or "it ended without a word"

    @property
    def refused(self) -> bool:
        """Whether the process may not be read; py-spy says it otherwise with --subprocesses."""
        said = self.failed
        return permissions.is_refusal(said) or "No python processes found" in said

    def take(self, line: str) -> str:
        """One line of the protocol, or of py-spy's messages; returns the keyword, or ""."""
        if not line.startswith(MARK):
            self.said.append(line.strip())
            return ""
        word, _, rest = line.removeprefix(MARK).strip().partition(" ")
        self.facts[word] = rest
        return word


def record(
    stream: Any,
    seconds: float,
    py_spy: bytes = b"",
    progress: Progress = lambda done: None,
    *,
    attached: bool = False,
) -> Recorded:
    """Drive a recorder to its end. Ctrl-C ends the recording early and keeps what there is.

    ``attached``: the recorder runs already and is waiting for py-spy, all that it writes goes to
    its log as well, and the log has the profile.

    Raises `PodError` when it hangs or its output is cut short, KeyboardInterrupt on a second Ctrl-C
    or on one before the recording has started.
    """
    recorded, pending = Recorded(), b""
    began: float | None = None
    deadline = time.monotonic() + seconds + GRACE
    messages = STDOUT if attached else STDERR
    try:
        if attached:
            _send(stream, py_spy)
        while True:
            try:
                alive = _updated(stream, 0.1)
                if not attached:
                    recorded.content += stream.read_channel(STDOUT)
                pending += stream.read_channel(messages)
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    word = recorded.take(line.decode("utf-8", "replace"))
                    if word == "ready" and not attached:
                        _send(stream, py_spy)
                    elif word == "started":
                        began = time.monotonic()
                        deadline = began + seconds + GRACE
                if began is not None and recorded.stopped_after is None:
                    progress(min(seconds, time.monotonic() - began))
            except KeyboardInterrupt:
                if began is None or recorded.stopped_after is not None:
                    raise
                recorded.stopped_after = time.monotonic() - began
                deadline = time.monotonic() + GRACE
                _send(stream, b"stop\n")
            if not alive:
                break
            if len(recorded.content) + len(pending) > MOST_BYTES:
                raise PodError("the container sends more than any profile has; it is not read on.")
            if time.monotonic() > deadline:
                raise PodError(
                    f"the recorder gave no answer for {GRACE:g} s after its time: "
                    f"{recorded.failed}."
                )
    finally:
        recorded.status = _status(stream.read_channel(STATUS))
        stream.close()
    if pending:
        recorded.take(pending.decode("utf-8", "replace"))
    expected = recorded.facts.get("bytes")
    if expected is not None and len(recorded.content) != int(expected):
        raise PodError(
            f"the profile arrived incomplete: {len(recorded.content)} of {expected} bytes; "
            "try again."
        )
    return recorded


def run(stream: Any, seconds: float = 30) -> tuple[bytes, str, str]:
    """A short command to its end: output, messages, and Kubernetes' status ("" is success)."""
    try:
        deadline = time.monotonic() + seconds
        out, err = b"", b""
        while _updated(stream, 1) and time.monotonic() < deadline:
            out += stream.read_channel(STDOUT)
            err += stream.read_channel(STDERR)
        if stream.is_open():
            raise PodError(f"a command in the container did not end within {seconds:g} s.")
        out += stream.read_channel(STDOUT)
        err += stream.read_channel(STDERR)
        return out, err.decode("utf-8", "replace"), _status(stream.read_channel(STATUS))
    finally:
        stream.close()


def _updated(stream: Any, timeout: float) -> bool:
    """Take in what has come; False once the other side has ended."""
    if not stream.is_open():
        return False
    try:
        stream.update(timeout=timeout)
    except _BROKEN:
        stream.close()
        return False
    return True


def _send(stream: Any, content: bytes) -> None:
    """Whether it arrives is seen by what comes back: the other side may have ended."""
    with contextlib.suppress(*_BROKEN):
        for low in range(0, len(content), CHUNK):
            stream.write_channel(STDIN, content[low : low + CHUNK])


def _status(content: bytes) -> str:
    try:
        status = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace").strip()
    return "" if status.get("status") == "Success" else str(status.get("message") or status)
