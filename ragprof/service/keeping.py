"""What slow requests did, kept on disk: a rolling folder of samples, bounded in size.

One file per request, gzip of JSON lines: a line of type `request`, then lines as the sampler's
spool has them. Several workers may share a folder.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import stat
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragprof.sampler import sharing
from ragprof.sampler.ring import Ring

_NAME = re.compile(r"^(\d{1,20})-(\d{1,20})-(\d+)-([0-9a-f]{32})\.jsonl\.gz$")
SETTLE = 2.0  # seconds to wait until the last samples of a request are in the ring


@dataclass(frozen=True)
class Request:
    """A request that was slow; times in ns since 1970."""

    trace_id: str
    endpoint: str
    start_ns: int
    end_ns: int
    threshold_seconds: float
    pid: int = 0
    service: str = ""


class KeptFolder:
    """The rolling folder: the oldest files go when it is larger than `most_bytes`."""

    def __init__(self, path: Path | None, most_bytes: int) -> None:
        self.path = path or default_folder()
        self.most_bytes = most_bytes
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def store(self, request: Request, lines: list[dict[str, Any]]) -> Path:
        """Write one request; the file appears complete. Raises OSError."""
        name = f"{request.start_ns}-{request.end_ns}-{request.pid}-{request.trace_id}.jsonl.gz"
        rows = [{"type": "request", **asdict(request)}, *lines]
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        part = self.path / f".{name}.part"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(gzip.compress(text.encode(), 5, mtime=0))
        target = self.path / name
        part.replace(target)
        self.prune()
        return target

    def prune(self) -> None:
        """Delete the oldest files beyond the size, and what a killed writer left."""
        entries = []
        now = time.time()
        with os.scandir(self.path) as found:
            for entry in found:
                with contextlib.suppress(OSError):  # another worker deletes as well
                    state = entry.stat(follow_symlinks=False)
                    if _NAME.match(entry.name):
                        entries.append((state.st_mtime, state.st_size, entry.path))
                    elif entry.name.endswith(".part") and now - state.st_mtime > 60:
                        os.unlink(entry.path)
        size = sum(size for _, size, _ in entries)
        for _, one, path in sorted(entries):
            if size <= self.most_bytes:
                return
            with contextlib.suppress(OSError):
                os.unlink(path)
            size -= one

    def find(self, since_ns: int = 0, until_ns: int | None = None) -> list[Path]:
        """Files of requests that overlap the window, the newest first."""
        found = []
        for path in self.path.glob("*.jsonl.gz"):
            named = _NAME.match(path.name)
            if named is None:
                continue
            start, end = int(named[1]), int(named[2])
            if end >= since_ns and (until_ns is None or start <= until_ns):
                found.append((start, path))
        return [path for _, path in sorted(found, reverse=True)]


def read(path: Path) -> tuple[Request, list[dict[str, Any]]] | None:
    """A kept request and its lines; None when it is gone or damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            first, *lines = [json.loads(line) for line in stream]
        fields = {name: first[name] for name in Request.__dataclass_fields__}
        return Request(**fields), lines
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def default_folder() -> Path:
    """A folder of this user in the temporary folder; never one that somebody else made."""
    path = Path(tempfile.gettempdir()) / f"ragprof-kept-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    state = path.lstat()
    if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077:
        return path
    return Path(tempfile.mkdtemp(prefix="ragprof-kept-"))


class Keeper:
    """Keeps the samples of requests that were slow, in a thread that lives while there is work."""

    def __init__(self, ring: Ring, folder: KeptFolder, per_minute: int) -> None:
        self.ring, self.folder = ring, folder
        self.kept = 0
        self.skipped = 0
        """Slow requests beyond the rate at which they are kept."""
        self.empty = 0
        """Slow requests of which no sample was left."""
        self.problem = ""
        self._per_minute = per_minute
        self._recent: deque[float] = deque(maxlen=per_minute)
        self._waiting: deque[Request] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def keep(self, request: Request) -> bool:
        """Ask to keep a request that has just ended; False when too many were slow."""
        now = time.monotonic()
        if os.getpid() != self._pid:  # a forked worker: threads and locks are the parent's
            self._pid, self._thread, self._lock = os.getpid(), None, threading.Lock()
            self._waiting.clear()
        with self._lock:
            if len(self._recent) == self._per_minute and now - self._recent[0] < 60:
                self.skipped += 1
                return False
            self._recent.append(now)
            self._waiting.append(request)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="ragprof-keeper", daemon=True
                )
                self._thread.start()
        return True

    def wait(self, seconds: float) -> bool:
        """Until all that was asked for is kept; False when that takes longer."""
        until = time.monotonic() + seconds
        while self._thread is not None and time.monotonic() < until:
            time.sleep(0.01)
        return self._thread is None

    def _run(self) -> None:
        for request in self._requests():
            try:
                self._keep(request)
            except OSError as error:
                self.problem = f"{self.folder.path}: {error.strerror or error}"

    def _requests(self) -> Iterator[Request]:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                request = self._waiting.popleft()
            yield request

    def _keep(self, request: Request) -> None:
        until = time.monotonic() + SETTLE
        while self.ring.open and self.ring.written_ns <= request.end_ns:
            if time.monotonic() > until:
                break
            sharing.flush_soon()
            time.sleep(0.02)
        lines = self.ring.lines(request.start_ns, request.end_ns, {request.trace_id})
        if not any(line["type"] == "samples" for line in lines):
            self.empty += 1
            return
        self.folder.store(request, lines)
        self.kept += 1
        self.problem = ""
