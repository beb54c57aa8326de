"""What the sampler sees and what it costs: labels, rates, CPU seconds per request, idle loop.

    python benchmarks/sampler.py [--rounds 6] [--seconds 2] [--json]

Each request runs a function of its own name in its own span, so the stack tells which label is
right. Runs with and without the sampler alternate; the cost is the difference of CPU seconds per
request with a 95 % interval over the pairs (Student's t). All at the default rate and budget.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from spools import read_spools  # noqa: E402

T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 11: 2.20}

# argv: how, concurrency, seconds. A request takes about 2 ms of CPU in pieces between awaits.
PROGRAM = """
import asyncio, json, resource, sys, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("benchmark")
how, concurrency, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
truth, done = {}, 0
def burn(rounds):
    n = 0
    for _ in range(rounds):
        n += 1
    return n
def make(slot):
    scope = {"asyncio": asyncio, "burn": burn}
    exec(f'''async def request_{slot}(pause):
    for _ in range(4):
        burn(12000)
        await asyncio.sleep(pause)
def endpoint_{slot}():
    burn(48000)
''', scope)
    return scope[f"request_{slot}"], scope[f"endpoint_{slot}"]
async def client(slot, end):
    global done
    request, endpoint = make(slot)
    # One span for each slot's function: as many labels as there are requests at once.
    with tracer.start_as_current_span("r") as span:
        ids = span.get_span_context()
        truth[slot] = [format(ids.trace_id, "032x"), format(ids.span_id, "016x")]
        while time.monotonic() < end:
            if how == "workers":
                await asyncio.to_thread(endpoint)
            else:
                await request(0.003 * concurrency)
            done += 1
async def main():
    await asyncio.sleep(0.3)
    used = resource.getrusage(resource.RUSAGE_SELF)
    before = used.ru_utime + used.ru_stime
    end = time.monotonic() + seconds
    if how == "idle":
        await asyncio.sleep(seconds)
    else:
        await asyncio.gather(*(client(slot, end) for slot in range(concurrency)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu": used.ru_utime + used.ru_stime - before, "requests": done,
                      "truth": truth}))
asyncio.run(main())
"""

CASES = [("loop", 1), ("loop", 20), ("loop", 200), ("workers", 8), ("idle", 0)]


def run_once(how: str, concurrency: int, seconds: float, sampled: bool) -> dict[str, Any]:
    """One run of the program; with the sampler also what its spool says."""
    with tempfile.TemporaryDirectory() as folder:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAGPROF", "PYTHONPATH"))}
        if sampled:
            env["RAGPROF_SPOOL"] = folder
            env["PYTHONPATH"] = str(ROOT / "ragprof" / "sampler" / "bootstrap")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how, str(concurrency), str(seconds)],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        result: dict[str, Any] = json.loads(done.stdout)
        if not sampled:
            return result
        (file,) = read_spools(Path(folder))
        truth = {int(slot): tuple(label) for slot, label in result["truth"].items()}
        given = right = running = labelled = 0
        for sample in file.samples:
            for function in sample.functions:
                name, _, slot = function.partition("_")
                if name in ("request", "endpoint") and slot.isdigit():
                    known = sample.label != ("", "")
                    given += known
                    right += known and sample.label == truth[int(slot)]
                    running += sample.state == "running"
                    labelled += sample.state == "running" and known
                    break
        return result | {
            "given": given,
            "right": right,
            "running": running,
            "labelled": labelled,
            "asked_hz": file.stats["asked_hz"],
            "effective_hz": file.stats["effective_hz"],
            "own_cost": file.stats["cost_seconds"] / file.stats["elapsed_seconds"],
        }


def measure(how: str, concurrency: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Interleaved runs of one case, summed up."""
    pairs: list[float] = []
    base: list[float] = []
    on: list[dict[str, Any]] = []
    for number in range(rounds):
        order = [True, False] if number % 2 else [False, True]
        runs = {sampled: run_once(how, concurrency, seconds, sampled) for sampled in order}
        cost = {s: r["cpu"] / (r["requests"] or seconds) for s, r in runs.items()}
        pairs.append(cost[True] - cost[False])
        base.append(cost[False])
        on.append(runs[True])
    mean = statistics.fmean(pairs)
    spread = statistics.stdev(pairs) / len(pairs) ** 0.5 * T95.get(len(pairs) - 1, 2.2)
    # Busy: relative to a request without the sampler. Idle: CPU seconds per second, of one core.
    scale = 1.0 if how == "idle" else statistics.fmean(base)
    total = {key: sum(run[key] for run in on) for key in ("given", "right", "running", "labelled")}
    return {
        "case": how,
        "concurrent": concurrency,
        "right_of_given": total["right"] / total["given"] if total["given"] else None,
        "labelled_of_running": total["labelled"] / total["running"] if total["running"] else None,
        "running_samples": total["running"],
        "asked_hz": on[0]["asked_hz"],
        "effective_hz": statistics.fmean(run["effective_hz"] for run in on),
        "own_cost_share": statistics.fmean(run["own_cost"] for run in on),
        "added_cpu_share": mean / scale,
        "added_cpu_interval": [(mean - spread) / scale, (mean + spread) / scale],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measure(*case, max(arguments.rounds, 2), arguments.seconds) for case in CASES]
    if arguments.json:
        print(json.dumps({"python": sys.version.split()[0], "rows": rows}, indent=2))
        return
    print(f"Python {sys.version.split()[0]}, {arguments.rounds} pairs of {arguments.seconds:g} s")
    print("| case | right of given | labelled of running | Hz asked, got | own cost | added CPU |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["added_cpu_interval"]
        print(
            f"| {row['case']} {row['concurrent'] or ''} | {_percent(row['right_of_given'])}"
            f" | {_percent(row['labelled_of_running'])} of {row['running_samples']}"
            f" | {row['asked_hz']:g}, {row['effective_hz']:.1f} | {row['own_cost_share']:.2%}"
            f" | {row['added_cpu_share']:+.1%} ({low:+.1%} to {high:+.1%}) |"
        )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
