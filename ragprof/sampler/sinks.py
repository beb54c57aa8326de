"""Who gets what is sampled besides the spool file: a session, the ring of the last minutes.

A sink has `write(lines)`, lines as in the spool, and `close()`. It may come and go from any thread;
the sampler takes it in between two ticks, so that a sink never sees half of anything.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Protocol

Line = dict[str, Any]


class Sink(Protocol):
    """Takes lines of the spool. Errors that it raises take it out, and nothing else."""

    def write(self, lines: list[Line]) -> bool:
        """Take the lines; False when frames and stacks must be told anew."""
        ...

    def close(self) -> None: ...

    def forked(self) -> bool:
        """Called in a forked child: whether the sink goes on there, emptied."""
        ...


class Sinks:
    """The sinks of one sampler, and those that wait to come in or to go."""

    def __init__(self) -> None:
        self.present: list[Sink] = []
        self._coming: deque[tuple[Sink, threading.Event]] = deque()
        self._going: deque[tuple[Sink, threading.Event]] = deque()

    def ask_in(self, sink: Sink) -> threading.Event:
        """Set once the sink is in, or the sampler has ended."""
        done = threading.Event()
        self._coming.append((sink, done))
        return done

    def ask_out(self, sink: Sink) -> threading.Event:
        """Set once the sink has all that is for it, or the sampler has ended."""
        done = threading.Event()
        self._going.append((sink, done))
        return done

    @property
    def pending(self) -> bool:
        """Whether a sink waits to come in or to go."""
        return bool(self._coming or self._going)

    def write(self, lines: list[Line]) -> bool:
        """Give the lines to every sink; False when frames and stacks must be told anew."""
        complete = True
        for sink in list(self.present):
            complete = self._give(sink, lines) and complete
        return complete

    def settle(self, hello: list[Line], goodbye: list[Line]) -> bool:
        """Let in and out who waits, right after a write; True when a sink came in."""
        while self._going:
            sink, done = self._going.popleft()
            if sink in self.present:
                self._give(sink, goodbye)
                self.present.remove(sink)
            done.set()
        came = False
        while self._coming:
            sink, done = self._coming.popleft()
            self.present.append(sink)
            self._give(sink, hello)
            came = True
            done.set()
        return came

    def close(self) -> None:
        """The sampler has ended: every sink is told, nobody waits any longer."""
        self.settle([], [])
        for sink in self.present:
            try:
                sink.close()
            except Exception:  # noqa: BLE001, S112  # the others are told as well
                continue
        self.present.clear()

    def forked(self) -> list[Sink]:
        """The sinks that go on in a forked child; the others are the parent's alone."""
        return [sink for sink in self.present if sink.forked()]

    def _give(self, sink: Sink, lines: list[Line]) -> bool:
        try:
            return not lines or sink.write(lines)
        except Exception:  # noqa: BLE001  # a broken sink is no reason to end the sampling
            if sink in self.present:
                self.present.remove(sink)
            return True
