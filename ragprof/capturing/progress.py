"""What a recorder shows on stderr while it records, and how the children's output passes by."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

SHOWN = ("spans", "logs", "metrics", "samples", "refused")


class Progress:
    """Context manager; a live line on a terminal, otherwise nothing until the summary."""

    def __init__(
        self, out: Path, taken: Callable[[], dict[str, int]], *, shown: bool = True
    ) -> None:
        self._out, self._taken = out, taken
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._rest: dict[int, bytes] = {}  # by descriptor: the begin of a line
        self._live: Live | None = None
        if shown and sys.stderr is not None and sys.stderr.isatty():
            console = Console(stderr=True)
            self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            with self._lock:
                self._print_rests()
                self._live.stop()

    def show(self) -> None:
        if self._live is not None:
            with self._lock:
                self._print_rests()  # a prompt, perhaps
                self._live.update(Text(self.line(), no_wrap=True), refresh=True)

    def line(self) -> str:
        """One line: how long, and what was taken."""
        taken = self._taken()
        seconds = time.monotonic() - self._began
        parts = [f"{taken.get(name, 0):,} {name}" for name in SHOWN]
        return f"recording {self._out.name}  {seconds:.0f} s  " + "  ".join(parts)

    def pass_on(self, fd: int, data: bytes) -> None:
        """Write a child's bytes to our own stdout (1) or stderr (2), above the live line."""
        with self._lock:
            if self._live is None or not os.isatty(fd):
                _write(fd, data)
                return
            # Python writes a line and its end apart, and only whole lines fit above ours.
            whole, end, rest = (self._rest.pop(fd, b"") + data).rpartition(b"\n")
            if end:
                self._print(whole)
            if rest:
                self._rest[fd] = rest

    def _print_rests(self) -> None:
        for fd in list(self._rest):
            self._print(self._rest.pop(fd))

    def _print(self, data: bytes) -> None:
        if self._live is not None:
            text = Text.from_ansi(data.decode("utf-8", "replace"))
            self._live.console.print(text, soft_wrap=True)


def _write(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError:  # nobody reads our output any more: the recording goes on
            return
