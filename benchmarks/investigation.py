"""How long an investigation of a large Recording takes, and whether it finds the same.

    python benchmarks/investigation.py [--recording REC] [--rows 1000000 ...]

A real Recording (or one that the demo records now) is made longer by repeating its requests, see
enlarge.py, to at least so many spans, logs and samples each. `rp.investigate` then runs in a fresh
process on 2 cores: wall and CPU seconds (of all its threads, imports apart), the largest resident
memory of the process (VmHWM, imports and tables included), seconds by phase, and whether the first
finding is that of the short Recording. `--address-space GIB` forbids the process more address
space than that. `--report` also runs `ragprof investigate REC --out DIR` as a command.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

CORES = 2
PHASES = {
    "read tables": (
        "ragprof.recording:Recording.table",
        "ragprof.recording:Recording.to_pandas",
    ),
    "forest": ("ragprof.investigation.run:build_forest",),
    "stages": ("ragprof.investigation.run:stages_of",),
    "critical path": ("ragprof.analysis.critical_path:sections",),
    "onset and groups": ("ragprof.analysis.populations:choose",),
    "path elements": ("ragprof.analysis.contributions:path",),
    "attributes of requests": (
        "ragprof.analysis.attributes:per_request",
        "ragprof.analysis.attributes:differences",
    ),
    "metrics": ("ragprof.analysis.metric_shifts:points", "ragprof.analysis.metric_shifts:shifts"),
    "samples on requests": ("ragprof.analysis.functions:on_requests",),
    "detectors and ranking": ("ragprof.investigation.run:ranked",),
    "gain": ("ragprof.investigation.run:gain",),
    "logs": ("ragprof.analysis.log_templates:changes",),
    "joins": ("ragprof.analysis.joins:coverage",),
}
FIRST = ("kind", "stage", "service", "span", "function", "resource")
"""What must be equal in the first findings."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recording", type=Path, metavar="REC")
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6])
    parser.add_argument("--distinct-bodies", action="store_true", help="no two logs are equal")
    parser.add_argument("--address-space", type=float, metavar="GIB")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the long Recordings here")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.recording, args.address_space)))
        return 0
    with tempfile.TemporaryDirectory(prefix="ragprof-benchmark-") as temporary:
        folder = args.keep or Path(temporary)
        small = args.recording or record(folder)
        edges, finding = of_short(small)
        results = []
        for rows in args.rows:
            long = folder / f"{rows}{'-distinct' * args.distinct_bodies}.ragprof"
            enlarged(small, long, rows, edges, args.distinct_bodies)
            result = measured(long, args.address_space)
            result["same_finding"] = result["finding"] == finding
            if args.report:
                result["report"] = reported(long, folder / f"{rows}-report")
            results.append(result)
            if not args.json:
                show(result)
    if args.json:
        print(json.dumps({"machine": machine(), "short_finding": finding, "results": results}))
    else:
        print(f"The short Recording's first finding: {finding}\n{machine()}")
    return 0 if all(result["same_finding"] for result in results) else 1


def record(folder: Path) -> Path:
    """A short Recording of the demo with a fault."""
    command = [sys.executable, "-m", "ragprof", "demo", "--record-only", "--seconds", "15"]
    subprocess.run([*command, "--out", str(folder / "demo")], check=True, stdout=sys.stderr)
    return folder / "demo" / "recording.ragprof"


def of_short(small: Path) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Begin, split and end of what is repeated (ns), and the first finding."""
    import ragprof as rp

    found = rp.investigate(rp.open(small))
    if found.verdict != "cause_found":
        raise SystemExit(f"{small}: no cause found, so there is nothing to find in a longer one")
    edges = (found.baseline_window[0].value, found.window[0].value, found.window[1].value)
    return edges, first_of(found)


def first_of(found: Any) -> dict[str, Any]:
    if found.findings.empty:
        return {"verdict": found.verdict}
    return {name: str(found.findings.iloc[0][name]) for name in FIRST}


def enlarged(
    small: Path, long: Path, rows: int, edges: tuple[int, int, int], distinct: bool
) -> None:
    """Make the long Recording, unless it is there."""
    if long.exists():
        return
    from enlarge import enlarge

    import ragprof as rp

    began = time.process_time()
    counts = enlarge(rp.open(small), long, rows, edges, distinct)
    print(f"{long.name}: {counts}, made in {time.process_time() - began:.0f} s", file=sys.stderr)


def measured(long: Path, address_space: float | None) -> dict[str, Any]:
    """The result of `measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", "--recording", str(long)]
    if address_space:
        command += ["--address-space", str(address_space)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(path: Path, address_space: float | None) -> dict[str, Any]:
    """Investigate in this process: times, memory, phases, the first finding."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if address_space:
        limit = int(address_space * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import ragprof as rp

    clock = Phases()
    importlib.import_module("ragprof.investigation.run")
    for phase, places in PHASES.items():
        for place in places:
            clock.watch(phase, place)
    imported = peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    recording = rp.open(path)
    found = rp.investigate(recording)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "recording": path.name,
        "rows": {name: entry["rows"] for name, entry in recording.manifest["tables"].items()},
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "imports_mib": round(imported),
        "peak_mib": round(peak_mib()),
        "phases_cpu_s": clock.seconds(cpu),
        "finding": first_of(found),
        "summary": found.summary,
    }


class Phases:
    """CPU seconds by phase; a phase within another counts only for itself."""

    def __init__(self) -> None:
        self._own: dict[str, float] = {}
        self._inner: list[float] = []

    def watch(self, phase: str, place: str) -> None:
        """Replace a function, named `module:qualified.name`, by one that is timed."""
        module, _, path = place.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, name, self._timed(phase, getattr(owner, name)))

    def _timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            began = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                took = time.process_time() - began
                self._own[phase] = self._own.get(phase, 0.0) + took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return timed

    def seconds(self, whole: float) -> dict[str, float]:
        """The longest first; `rest` is what no phase covers."""
        rest = {"rest": whole - sum(self._own.values())}
        ordered = sorted((self._own | rest).items(), key=lambda item: -item[1])
        return {phase: round(seconds, 2) for phase, seconds in ordered}


def peak_mib() -> float:
    """The largest resident memory of this process so far (VmHWM), in MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.M)
    return int(found[1]) / 1024 if found else float("nan")


def reported(long: Path, out: Path) -> dict[str, float]:
    """`ragprof investigate REC --out DIR` as a command, with all its processes."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:CORES])
    wall = time.perf_counter()
    command = [sys.executable, "-m", "ragprof", "investigate", str(long), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    os.sched_setaffinity(0, cores)
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}")
    return {
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib_of_one_process": round(used.ru_maxrss / 1024),
        "html_mib": round((out / "report.html").stat().st_size / 2**20, 1),
    }


def show(result: dict[str, Any]) -> None:
    rows = ", ".join(f"{count:,} {name}" for name, count in result["rows"].items())
    print(f"{result['recording']}: {rows}")
    print(
        f"  {result['wall_s']} s wall, {result['cpu_s']} s CPU, {result['peak_mib']:,} MiB "
        f"({result['imports_mib']} of them after the imports)"
    )
    for phase, seconds in result["phases_cpu_s"].items():
        print(f"  {seconds:8.2f} s  {phase}")
    same = "the same" if result["same_finding"] else "ANOTHER"
    print(f"  finding: {same} as in the short Recording: {result['summary']}")
    if "report" in result:
        print(f"  with the report: {result['report']}")


def machine() -> str:
    """Size of the machine and versions."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = " ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "pyarrow"))
    return (
        f"{CORES} of {os.cpu_count()} cores, {gib:.0f} GiB, Python {platform.python_version()}, "
        f"{packages}, ragprof {version('ragprof')}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
