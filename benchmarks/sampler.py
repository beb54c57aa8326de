"""What the sampler sees and what it costs: labels, rates, CPU seconds per request, idle loop.

    python benchmarks/sampler.py [--rounds 5] [--seconds 5] [--json]

Each request has a span of its own and runs the function of its slot, so the stack tells which
labels are right: those of the requests of this slot. Runs with and without the sampler alternate;
the cost is the difference of CPU seconds per request with a 95 % interval over the pairs
(Student's t), also as a share of one core. All at the default rate and budget. Rates are by CPU
seconds of the process; the effective one leaves out all ticks but those
that the budget takes away, `delivered` counts what came.
`looks` are all that were taken, by wall second.
The last line is the least that any such sampler costs on this machine at this moment: an idle loop
interrupted a hundred times a second by a handler that does nothing.
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

# argv: how, concurrency, seconds. A request takes about 2 ms of CPU in pieces between
# awaits; an endpoint in a worker thread some 15 ms at once.
PROGRAM = """
import asyncio, json, resource, sys, time
import anyio, anyio.to_thread
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
    burn(600000)
''', scope)
    return scope[f"request_{slot}"], scope[f"endpoint_{slot}"]
async def client(slot, end):
    global done
    request, endpoint = make(slot)
    mine = truth[slot] = []
    while time.monotonic() < end:
        with tracer.start_as_current_span("r") as span:
            mine.append(format(span.get_span_context().span_id, "016x"))
            if how == "anyio":  # as frameworks run sync endpoints
                await anyio.to_thread.run_sync(endpoint)
            else:
                await request(0.003 * concurrency)
        done += 1
        if how == "anyio":
            await asyncio.sleep(0.01 * concurrency)
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

RATES = ("effective_hz", "delivered_hz", "looks_hz", "round_hz")
CASES = [("loop", 1), ("loop", 20), ("loop", 200), ("anyio", 8), ("idle", 0)]


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
        truth = {int(slot): set(spans) for slot, spans in result.pop("truth").items()}
        given = right = running = labelled = 0
        for sample in file.samples:
            for function in sample.functions:
                name, _, slot = function.partition("_")
                if name in ("request", "endpoint") and slot.isdigit():
                    known = sample.label != ("", "")
                    given += known
                    right += known and sample.label[1] in truth[int(slot)]
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
            "delivered_hz": file.stats["delivered_hz"],
            "round_hz": file.stats["round_hz"],
            "looks_hz": file.stats["looks"] / file.stats["elapsed_seconds"],
            "own_cost": file.stats["cost_seconds"] / file.stats["elapsed_seconds"],
        }


def measure(how: str, concurrency: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Interleaved runs of one case, summed up."""
    pairs: list[float] = []
    base: list[float] = []
    requests: list[int] = []
    on: list[dict[str, Any]] = []
    for number in range(rounds):
        order = [True, False] if number % 2 else [False, True]
        runs = {sampled: run_once(how, concurrency, seconds, sampled) for sampled in order}
        cost = {s: r["cpu"] / (r["requests"] or seconds) for s, r in runs.items()}
        pairs.append(cost[True] - cost[False])
        base.append(cost[False])
        requests.append(runs[False]["requests"])
        on.append(runs[True])
    mean = statistics.fmean(pairs)
    spread = _spread(pairs)
    own = [run["own_cost"] for run in on]
    # From seconds per request, or per second of an idle loop, to the share of one core.
    per_second = statistics.fmean(requests) / seconds if how != "idle" else 1.0
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
        **{key: statistics.fmean(run[key] for run in on) for key in RATES},
        "own_cost_share": [statistics.fmean(own), _spread(own)],
        "added_cpu_of_core": [
            (mean - spread) * per_second,
            mean * per_second,
            (mean + spread) * per_second,
        ],
        "added_cpu_share": mean / scale,
        "added_cpu_interval": [(mean - spread) / scale, (mean + spread) / scale],
    }


def _spread(values: list[float]) -> float:
    """Half of the 95 % interval of the mean."""
    half: float = statistics.stdev(values) / len(values) ** 0.5 * T95.get(len(values) - 1, 2.2)
    return half


BARE = """
import asyncio, resource, signal, sys
async def main():
    await asyncio.sleep(0.3)
    if sys.argv[2] == "True":
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    used = resource.getrusage(resource.RUSAGE_SELF)
    before = used.ru_utime + used.ru_stime
    await asyncio.sleep(float(sys.argv[1]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    print(used.ru_utime + used.ru_stime - before)
asyncio.run(main())
"""


def bare_timer(rounds: int, seconds: float) -> tuple[float, float]:
    """Share of a core that a handler adds which does nothing, and half its 95 % interval."""
    pairs = []
    for _ in range(rounds):
        cpu = [
            float(
                subprocess.run(
                    [sys.executable, "-c", BARE, str(seconds), str(on)],
                    capture_output=True, text=True, check=True,
                ).stdout
            )
            for on in (False, True)
        ]  # fmt: skip
        pairs.append((cpu[1] - cpu[0]) / seconds)
    return statistics.fmean(pairs), _spread(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measure(*case, max(arguments.rounds, 2), arguments.seconds) for case in CASES]
    bare = bare_timer(max(arguments.rounds, 2), arguments.seconds)
    if arguments.json:
        version = sys.version.split()[0]
        print(json.dumps({"python": version, "rows": rows, "bare_timer": bare}, indent=2))
        return
    load = os.getloadavg()
    print(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load average {load[1]:.1f},"
        f" {arguments.rounds} pairs of {arguments.seconds:g} s"
    )
    print(
        "| case | right of given | labelled of running | Hz asked, effective, delivered, looks"
        " | rounds Hz | own cost, of one core | added CPU, of one core | added CPU of a request |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["added_cpu_interval"]
        core = row["added_cpu_of_core"]
        own, spread = row["own_cost_share"]
        rates = ", ".join(f"{row[key]:.1f}" for key in RATES[:3])
        request = f"{row['added_cpu_share']:+.1%} ({low:+.1%} to {high:+.1%})"
        print(
            f"| {row['case']} {row['concurrent'] or ''} | {_percent(row['right_of_given'])}"
            f" | {_percent(row['labelled_of_running'])} of {row['running_samples']}"
            f" | {row['asked_hz']:g}, {rates} | {row['round_hz']:.1f}"
            f" | {own:.2%} ± {spread:.2%}"
            f" | {core[1]:+.2%} ({core[0]:+.2%} to {core[2]:+.2%})"
            f" | {'-' if row['case'] == 'idle' else request} |"
        )
    print(f"\nA handler that does nothing, 100 Hz: {bare[0]:+.2%} ± {bare[1]:.2%} of one core")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
