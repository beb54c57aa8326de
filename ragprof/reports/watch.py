"""`ragprof watch`: alerts come in over loopback, one after the other is investigated.

Each investigation is a process of its own, with a time limit; it leaves one folder. Alerts that
come too fast, or again too soon, are counted and not investigated. The oldest folders go when there
are too many or they are too large.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError
from ragprof.monitoring.payload import Alert

PAYLOAD, ANSWER, LOG = "alert.json", "watch.json", "watch.log"
MOST_WAITING = 20
_RUN = "import sys; from ragprof.cli import main; sys.exit(main())"
_FOLDER = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9_.-]{1,80}(-\d+)?")


class WatchError(RagprofError):
    """A watch that cannot begin."""


@dataclass
class Limits:
    """What a watch may use. `again` (s): the same alert is not investigated sooner than that."""

    again: float = 1800.0
    timeout: float = 900.0  # seconds of one investigation
    keep: int = 20  # folders
    megabytes: float = 500.0  # of all folders


@dataclass
class Watch:
    """Alerts that wait, and what became of the others. `subject`: a Recording or a .toml."""

    subject: Path
    out: Path
    limits: Limits = field(default_factory=Limits)
    told: Callable[[str], None] = lambda text: None
    counts: collections.Counter[str] = field(default_factory=collections.Counter)

    def __post_init__(self) -> None:
        self._waiting: collections.deque[Alert] = collections.deque()
        self._last: dict[str, float] = {}
        self._change = threading.Condition()
        self._stopped = False
        self._child: subprocess.Popen[bytes] | None = None
        self.running = ""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WatchError(
                f"{self.out} cannot be made: {error.strerror}; choose another --out"
            ) from None
        if not os.access(self.out, os.W_OK):
            raise WatchError(f"{self.out} is read-only; choose another --out")

    def take(self, alerts: list[Alert]) -> dict[str, int]:
        """Queue what is to be investigated; says how many were queued and why others were not."""
        counts: collections.Counter[str] = collections.Counter()
        with self._change:
            now = time.monotonic()
            self._last = {k: at for k, at in self._last.items() if now - at < self.limits.again}
            for alert in alerts:
                counts[self._taken(alert, now)] += 1
            self.counts.update(counts)
            self._change.notify_all()
        return dict(counts)

    def _taken(self, alert: Alert, now: float) -> str:
        if not alert.firing:
            return "resolved"
        if alert.identity in self._last:
            return "again too soon"
        if len(self._waiting) >= MOST_WAITING:
            return "too many waiting"
        self._last[alert.identity] = now
        self._waiting.append(alert)
        return "queued"

    def run(self) -> None:
        """Investigate one alert after the other until `stop`."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stopped or bool(self._waiting))
                if self._stopped:
                    return
                alert = self._waiting.popleft()
            self.investigate(alert)

    def stop(self) -> None:
        """End `run`, and the investigation that it is at."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        child = self._child
        if child is not None:
            _kill(child)

    def investigate(self, alert: Alert) -> Path:
        """One alert -> its folder, with alert.json, the report and watch.json about how it went."""
        self._make_room()
        folder = self._folder(alert)
        content = {"version": "4", "alerts": [alert.to_dict()]}
        (folder / PAYLOAD).write_text(json.dumps(content, indent=1), encoding="utf-8")
        self.running = folder.name
        self.told(f"{alert.name}: investigating into {folder}")
        began = time.monotonic()
        code = self._child_run(folder)
        self.running = ""
        answer = self._answer(alert, folder, code, time.monotonic() - began)
        (folder / ANSWER).write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
        self.counts[answer["state"]] += 1
        self.told(f"{alert.name}: {answer['summary']}")
        return folder

    def status(self) -> dict[str, Any]:
        """For JSON: what waits, what runs, counts, and the folders, the newest first."""
        with self._change:
            waiting = [alert.name for alert in self._waiting]
        return {
            "subject": str(self.subject),
            "waiting": waiting,
            "running": self.running,
            "counts": dict(self.counts),
            "reports": [_read(folder) for folder in reversed(self.folders())],
        }

    def folders(self) -> list[Path]:
        """The folders of investigations, the oldest first."""
        return sorted(
            path for path in self.out.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name)
        )

    def _child_run(self, folder: Path) -> int | None:
        """The exit code of the investigation; None when it ran out of time."""
        command = [sys.executable, "-c", _RUN, "investigate", str(self.subject)]
        command += ["--alert", str(folder / PAYLOAD), "--out", str(folder)]
        with (folder / LOG).open("wb") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            try:
                return self._child.wait(self.limits.timeout)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _kill(self._child)
                self._child = None

    def _answer(
        self, alert: Alert, folder: Path, code: int | None, seconds: float
    ) -> dict[str, Any]:
        state = "timeout" if code is None else "investigated" if code == 0 else "failed"
        summary = f"ran longer than {self.limits.timeout:g} s" if code is None else ""
        with contextlib.suppress(OSError, ValueError, KeyError):
            found = json.loads((folder / "findings.json").read_text("utf-8"))
            summary = summary or str(found["summary"])
        if not summary:
            lines = (folder / LOG).read_text("utf-8", "replace").strip().splitlines()
            summary = lines[-1][:500] if lines else f"ended with exit code {code}"
        return {
            "alert": alert.name,
            "labels": dict(alert.labels),
            "starts": datetime.fromtimestamp(alert.starts, UTC).isoformat(),
            "state": state,
            "summary": summary,
            "seconds": round(seconds, 3),
            "report": "report.html" if (folder / "report.html").is_file() else None,
        }

    def _folder(self, alert: Alert) -> Path:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", alert.name)[:60]
        base = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}"
        for number in range(1000):
            folder = self.out / (f"{base}-{number}" if number else base)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
        raise WatchError(f"{self.out} has too many folders named {base}; clean it up")

    def _make_room(self) -> None:
        """Remove the oldest folders until one more fits."""
        folders = self.folders()
        sizes = {folder: _size(folder) for folder in folders}
        while folders and (
            len(folders) >= self.limits.keep
            or sum(sizes[each] for each in folders) > self.limits.megabytes * 1e6
        ):
            shutil.rmtree(folders.pop(0), ignore_errors=True)


def _read(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / ANSWER).read_text("utf-8"))
        if isinstance(content, dict):
            return {"folder": folder.name, **content}
    return {"folder": folder.name, "state": "running or stopped", "summary": "", "report": None}


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it started; it leads its own session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM if child.poll() is None else signal.SIGKILL)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
