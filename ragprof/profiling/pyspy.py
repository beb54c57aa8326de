"""py-spy: another process seen from outside, without its help."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragprof.profiles.combine import LABEL, combined
from ragprof.profiles.content import Content
from ragprof.profiles.model import Label, Profile, ProfileBuilder
from ragprof.profiles.read import profiles_of
from ragprof.profiling import permissions
from ragprof.profiling.engine import SessionError

GRACE = 10.0
"""Seconds that py-spy gets to write its file after it was told to stop."""
START = 60.0
"""Seconds that py-spy gets to find its way into the process."""
FROZEN = 2.0
"""Seconds that a process may be held still at one point before py-spy is made to let it go."""

Progress = Callable[[float, float], None]
"""Called with the seconds that have passed and those asked for."""


class AttachError(SessionError):
    """A process that cannot be looked into: says why, and the way out."""


@dataclass(frozen=True)
class Options:
    """What py-spy looks at."""

    hz: float = 100.0
    native: bool = False
    """Frames of C, C++ and Cython extensions as well."""
    idle: bool = False
    """Threads that do not use a CPU as well."""
    gil: bool = False
    """Only the thread that holds the interpreter."""
    subprocesses: bool = False
    nonblocking: bool = False
    """Do not pause the process: less disturbance, and now and then a wrong stack."""

    def words(self) -> list[str]:
        """As arguments of ``py-spy record``."""
        switches = ("native", "idle", "gil", "subprocesses", "nonblocking")
        chosen = [f"--{name}" for name in switches if getattr(self, name)]
        return ["--rate", str(max(1, round(self.hz))), "--full-filenames", *chosen]


def program() -> str | None:
    """py-spy beside this Python, else on the PATH; None when it is not installed."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def record(
    pid: int, seconds: float, options: Options, progress: Progress | None = None
) -> tuple[Profile, bool]:
    """Sample a process; returns the Profile and whether Ctrl-C cut it short.

    Weights are wall nanoseconds, 1 / rate for every look. Raises AttachError.
    """
    found = _program()
    with tempfile.TemporaryDirectory(prefix="ragprof-attach-") as folder:
        out = Path(folder) / "profile.json"
        command = [
            found, "record", "--pid", str(pid), "--format", "speedscope", "--output", str(out),
            "--duration", str(math.ceil(seconds) + 1), *options.words(),
        ]  # fmt: skip
        began = time.monotonic()
        said, cut = _run(command, pid, seconds, progress)
        took = time.monotonic() - began
        if not out.exists():
            if cut and not permissions.is_refusal(said):
                raise AttachError("stopped before anything was seen; give it more time")
            raise AttachError(permissions.explain(said, pid, permissions.facts(pid)))
        profile = read(out.read_text("utf-8", "replace"), pid, f"process {pid}")
    notes = [f"py-spy looked for {min(took, seconds):.1f} s at {options.hz:g} Hz"]
    if cut:
        notes.append(f"stopped by Ctrl-C after {took:.1f} of {seconds:g} s")
    elif took < seconds - 0.5:
        notes.append(f"process {pid} ended after {took:.1f} of {seconds:g} s")
    if errors := re.search(r"Samples: \d+ Errors: ([1-9]\d*)", said):
        notes.append(f"{errors[1]} looks gave no stack")
    if not len(profile) and not options.idle:
        notes.append("no thread used a CPU in that time; idle=True shows what they wait in")
    return profile.named(profile.name, *notes), cut


def _run(
    command: Sequence[str], pid: int, seconds: float, progress: Progress | None
) -> tuple[str, bool]:
    """Run py-spy until it is done, the time is up, or Ctrl-C; returns what it said."""
    held = _Held(pid)
    # Its words go into a file, so that a full pipe never stops it.
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, process_group=0
        )
        cut, sampling = False, False
        began = started = time.monotonic()
        try:
            while process.poll() is None:
                now = time.monotonic()
                if not sampling:
                    sampling = _began(words.fileno())
                    began = now
                if progress:
                    progress(min(now - began, seconds), seconds)
                if now - began >= seconds or now - started >= seconds + START or held.still(now):
                    process.send_signal(signal.SIGINT)
                    break
                time.sleep(0.05)
        except KeyboardInterrupt:
            cut = True
            process.send_signal(signal.SIGINT)
        finally:
            _end(process)
        words.seek(0)
        return words.read().decode("utf-8", "replace"), cut


class _Held:
    """Whether a process stands still under py-spy.

    One that is killed just while py-spy takes hold of it stops at its exit. py-spy can neither
    seize it again nor see it end, so both wait for ever (remoteprocess, pull request 106); when
    py-spy goes, the process ends.
    """

    def __init__(self, pid: int) -> None:
        import psutil

        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):
            self._process = psutil.Process(pid)
        self._switches, self._since = -1, time.monotonic()

    def still(self, now: float) -> bool:
        import psutil

        if self._process is None:
            return False
        try:
            traced = self._process.status() == psutil.STATUS_TRACING_STOP
            switches = sum(self._process.num_ctx_switches())
        except psutil.Error:
            return False
        if not traced or switches != self._switches:
            self._switches, self._since = switches, now
        return now - self._since >= FROZEN


def _began(words: int) -> bool:
    """Whether py-spy has said that it samples."""
    return b"Sampling process" in os.pread(words, 1 << 16, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for py-spy to write; a second Ctrl-C, or too long a wait, kills it."""
    try:
        process.wait(GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()


def dump(pid: int, options: Options) -> Profile:
    """The stack of every thread now: one sample per thread, counted.

    Labels: process, thread_name, state (running or waiting), gil (yes, or empty). Raises
    AttachError.
    """
    switches = ("native", "nonblocking")
    chosen = [f"--{name}" for name in switches if getattr(options, name)]
    threads = _dumped(pid, chosen)
    for child in _children(pid) if options.subprocesses else ():
        with contextlib.suppress(AttachError):  # no Python, or it has ended meanwhile
            threads += _dumped(child, chosen)
    return read_dump(threads, f"process {pid}", only_gil=options.gil)


def _dumped(pid: int, chosen: list[str]) -> list[dict[str, Any]]:
    command = [_program(), "dump", "--pid", str(pid), "--json", "--full-filenames", *chosen]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=START)
    except subprocess.TimeoutExpired:
        raise AttachError(
            f"process {pid} was not read within {START:g} s; try --nonblocking"
        ) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace")
        raise AttachError(permissions.explain(said, pid, permissions.facts(pid)))
    threads: list[dict[str, Any]] = json.loads(done.stdout)
    return threads


def _children(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def read(text: str, pid: int, name: str) -> Profile:
    """py-spy's speedscope file as one Profile, with the labels process and thread_name.

    Raises `ProfileError` when it is none.
    """
    content = Content(text.encode("utf-8", "replace"), "attached.speedscope.json")
    if isinstance(content.document, dict) and content.document.get("profiles") == []:
        return ProfileBuilder(name=name).build()
    whole = combined(profiles_of(content, format="speedscope"))
    labels = {key: label for key, label in whole.labels.items() if key != LABEL}
    if "process" not in labels:
        labels["process"] = Label(np.zeros(len(whole), dtype=np.int64), (str(pid),))
    return whole._with(labels=labels).named(name)


def read_dump(threads: list[dict[str, Any]], name: str, only_gil: bool = False) -> Profile:
    """py-spy's dump as JSON, with the label gil besides those of its format."""
    threads = [one for one in threads if one["owns_gil"] or not only_gil]
    content = Content(json.dumps(threads).encode(), "attached.dump.json")
    (found,) = profiles_of(content, format="pyspy_dump")
    holds = np.array([bool(one["owns_gil"]) for one in threads], dtype=np.int64)
    labels = {**found.labels, "gil": Label(holds, ("", "yes"))}
    return found._with(labels=labels).named(name)


def _program() -> str:
    found = program()
    if found is None:
        raise AttachError('py-spy is not installed: pip install "ragprof[lab]"')
    return found
