"""Faults of the machine: less CPU than before, by a limit or by a busy neighbour.

They run beside the service, which stays as it is, and end with the demo or by themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ragprof.capturing import processes

LONGEST = 1900.0  # seconds
PERIOD = 0.1  # seconds, the kernel's default
LIMIT = 1.3
"""The limit, as a multiple of what the service used: it suffices on average and hurts in bursts."""
LEAST = 0.05  # cores


@contextmanager
def cpu_limit(pid: int) -> Iterator[Callable[[], None]]:
    """The service's CPU limit is set to little more than it uses: by a cgroup where that is
    allowed, else by stopping it for a part of each tenth of a second, as cpulimit does."""
    began, used = time.monotonic(), cpu_seconds(pid)
    folder = own_group(pid)
    stopper: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        cores = max(LEAST, LIMIT * (cpu_seconds(pid) - used) / (time.monotonic() - began))
        if folder is not None:
            allow(folder, cores)
        else:
            stopper.append(run("stop", str(pid), str(min(0.9, cores))))

    try:
        yield start
    finally:
        for child in stopper:
            child.terminate()
            child.wait(10)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)  # whatever became of who stopped it
        if folder is not None:
            leave(folder)


@contextmanager
def busy_neighbour(pid: int) -> Iterator[Callable[[], None]]:
    """Other programs compute on every core of the machine, two on each."""
    neighbours: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        cores = len(os.sched_getaffinity(0))
        neighbours.extend(run("burn") for _ in range(2 * cores))

    try:
        yield start
    finally:
        for child in neighbours:
            child.terminate()
        for child in neighbours:
            child.wait(10)


def run(*words: str) -> subprocess.Popen[bytes]:
    """Start `python -m ragprof.demo.pressure`; it ends by itself when this process has gone."""
    command = [sys.executable, "-m", "ragprof.demo.pressure", str(os.getpid()), str(LONGEST)]
    return subprocess.Popen([*command, *words])


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; 0 when it is gone."""
    found = processes.read(pid)
    return 0.0 if found is None else found.cpu_user + found.cpu_system


def own_group(pid: int) -> Path | None:
    """A new cgroup without a limit, below the process's own and with the process in it; None where
    that is not allowed."""
    for base in processes.cgroup_folders(pid):
        folder = base / f"ragprof-demo-{pid}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if any((folder / name).exists() for name in ("cpu.cfs_quota_us", "cpu.max")):
                (folder / "cgroup.procs").write_text(str(pid))
                return folder
        except OSError:
            pass
        leave(folder)
    return None


def allow(folder: Path, cores: float) -> None:
    """Let the cgroup use that much CPU time in each period."""
    period, quota = int(PERIOD * 1e6), int(cores * PERIOD * 1e6)
    if (folder / "cpu.max").exists():
        (folder / "cpu.max").write_text(f"{quota} {period}")
        return
    (folder / "cpu.cfs_period_us").write_text(str(period))
    (folder / "cpu.cfs_quota_us").write_text(str(quota))


def leave(folder: Path) -> None:
    """Give the processes of a cgroup back to its parent, and remove it."""
    with suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            (folder.parent / "cgroup.procs").write_text(pid)
    with suppress(OSError):
        folder.rmdir()
