"""Processes below a child, and facts about them at 1 Hz from /proc and the cgroup.

Names are those of OpenTelemetry's semantic conventions where these have one; sources are
proc(5), cgroups v1 and v2, and the kernel's PSI documentation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

Fact = tuple[str, float, str, str, dict[str, str]]
"""Name, value, unit (UCUM), type (gauge or counter), labels."""


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat."""

    pid: int
    parent: int
    group: int
    start_ticks: int  # since boot; with the pid it names the process for good
    state: str
    cpu_user: float  # seconds
    cpu_system: float  # seconds
    threads: int
    resident: int  # bytes


def read(pid: int) -> Process | None:
    """The process, or None when it is gone."""
    try:
        content = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = content.rpartition(")")[2].split()  # the name before it may hold anything
    return Process(
        pid=pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        start_ticks=int(fields[19]),
        state=fields[0],
        cpu_user=int(fields[11]) / TICKS,
        cpu_system=int(fields[12]) / TICKS,
        threads=int(fields[17]),
        resident=int(fields[21]) * PAGE,
    )


def children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(PROC / str(pid) / "task"):
            path = PROC / str(pid) / "task" / task / "children"
            found.extend(int(word) for word in path.read_text().split())
    except FileNotFoundError:
        return _children_by_scan(pid) if (PROC / str(pid)).exists() else []
    except OSError:
        pass
    return found


def _children_by_scan(pid: int) -> list[int]:
    """For kernels without /proc/PID/task/TID/children."""
    processes = (read(each) for each in everyone())
    return [each.pid for each in processes if each is not None and each.parent == pid]


def tree(roots: Iterable[int]) -> list[int]:
    """The living roots and all their descendants, parents first."""
    found: list[int] = []
    todo = list(roots)
    while todo:
        pid = todo.pop(0)
        if pid not in found and (PROC / str(pid)).exists():
            found.append(pid)
            todo.extend(children(pid))
    return found


def everyone() -> list[int]:
    """All processes that /proc shows."""
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def command(pid: int) -> list[str]:
    """The command line, empty when it cannot be read."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def is_python(pid: int) -> bool:
    """Whether the program that runs is a Python interpreter."""
    try:
        name = Path(os.readlink(PROC / str(pid) / "exe")).name
    except OSError:
        name = Path((command(pid) or [""])[0]).name
    return name.startswith("python")


def started(process: Process) -> int:
    """When it started, ns since 1970."""
    boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boot + process.start_ticks * (1_000_000_000 // TICKS)


def open_files(pid: int) -> int | None:
    try:
        return len(os.listdir(PROC / str(pid) / "fd"))
    except OSError:
        return None


def waited_for_cpu(pid: int) -> float | None:
    """Seconds that its living threads were runnable and had no CPU (schedstat, field 2)."""
    total = 0
    try:
        for task in os.listdir(PROC / str(pid) / "task"):
            total += int((PROC / str(pid) / "task" / task / "schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # gone, or a kernel without it
        return None
    return total / 1e9


class Facts:
    """Reads facts; remembers CPU times, from which utilisation is told."""

    def __init__(self) -> None:
        self._cpu: dict[tuple[int, int], tuple[float, float]] = {}

    def of(self, pids: Sequence[int]) -> list[Fact]:
        """Facts of these processes, of their cgroups and of the machine, now."""
        facts: list[Fact] = []
        seen: dict[tuple[int, int], tuple[float, float]] = {}
        for pid in pids:
            process = read(pid)
            if process is None or process.state == "Z":
                continue
            key, now = (pid, process.start_ticks), time.monotonic()
            cpu = process.cpu_user + process.cpu_system
            seen[key] = (now, cpu)
            label = {"process": str(pid)}
            facts += [
                ("process.cpu.time", cpu, "s", "counter", label),
                ("process.memory.usage", float(process.resident), "By", "gauge", label),
                ("process.thread.count", float(process.threads), "{thread}", "gauge", label),
            ]
            if key in self._cpu:
                before, used = self._cpu[key]
                if now > before:
                    share = max(0.0, (cpu - used) / (now - before))
                    facts.append(("process.cpu.utilization", share, "1", "gauge", label))
            waited = waited_for_cpu(pid)
            if waited is not None:
                facts.append(("process.cpu.wait_time", waited, "s", "counter", label))
            files = open_files(pid)
            if files is not None:
                facts.append(
                    ("process.open_file_descriptor.count", float(files), "{file}", "gauge", label)
                )
        self._cpu = seen
        for group in sorted({path for pid in pids for path in cgroup_folders(pid)}):
            facts += cgroup_facts(group)
        return facts + machine_facts()


def cgroup_folders(pid: int) -> list[Path]:
    """The folders that hold the CPU controller of this process: v2, else v1."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            candidates = [CGROUPS / path.lstrip("/"), CGROUPS / "unified" / path.lstrip("/")]
        elif "cpu" in controllers.split(","):
            names = (controllers, "cpu")
            candidates = [CGROUPS / name / path.lstrip("/") for name in names]
            # inside a container the path is the host's, the mount is the group itself
            candidates += [CGROUPS / name for name in names]
        else:
            continue
        folders += [each for each in candidates if (each / "cpu.stat").exists()][:1]
    return folders


def cgroup_facts(folder: Path) -> list[Fact]:
    """CPU time lost to the cgroup's quota, and its CPU pressure."""
    label = {"cgroup": str(folder.relative_to(CGROUPS)) if folder != CGROUPS else "/"}
    values = _pairs(folder / "cpu.stat")
    facts: list[Fact] = []
    if "throttled_usec" in values:
        seconds = values["throttled_usec"] / 1e6
        facts.append(("cgroup.cpu.throttled_time", seconds, "s", "counter", label))
    elif "throttled_time" in values:
        seconds = values["throttled_time"] / 1e9
        facts.append(("cgroup.cpu.throttled_time", seconds, "s", "counter", label))
    if "nr_throttled" in values:
        facts.append(
            ("cgroup.cpu.throttled_periods", values["nr_throttled"], "{period}", "counter", label)
        )
    return facts + _pressure(folder / "cpu.pressure", "cgroup.cpu.pressure", label)


def machine_facts() -> list[Fact]:
    """CPU pressure, steal and utilisation of the whole machine."""
    facts = _pressure(PROC / "pressure" / "cpu", "system.cpu.pressure", {})
    try:
        first = (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return facts
    times = [int(word) / TICKS for word in first]
    if len(times) >= 8:
        facts.append(("system.cpu.steal", times[7], "s", "counter", {}))
        busy = sum(times[:3]) + sum(times[5:8])
        facts.append(("system.cpu.time", busy, "s", "counter", {"cpu.mode": "busy"}))
    return facts


def _pressure(path: Path, name: str, label: dict[str, str]) -> list[Fact]:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # absent, or PSI is switched off
        return []
    facts: list[Fact] = []
    for line in lines:
        kind, *words = line.split()
        if kind == "some":
            values = dict(word.split("=") for word in words)
            facts.append((f"{name}.some.avg10", float(values["avg10"]) / 100, "1", "gauge", label))
            facts.append(
                (f"{name}.some.total", float(values["total"]) / 1e6, "s", "counter", label)
            )
    return facts


def _pairs(path: Path) -> dict[str, float]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {key: float(value) for key, value in (line.split() for line in lines if line)}
