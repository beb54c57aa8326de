"""Worker threads walked for minutes while they churn: crash, deadlock, wrong label, growth.

    python benchmarks/sampler_stress.py [--seconds 600] [--threads 8]

A child process under the sampler, with a budget that lets it walk twenty times a second, has
threads that end and begin, objects in cycles with finalisers, generators, deep recursion and
exceptions. Each piece of work runs a function of its own number inside its own span, so a wrong
label shows. The child must keep beating, end by itself, and its labels must all be right.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from spools import read_spools  # noqa: E402

SILENCE_SECONDS = 60.0  # without a beat for so long, it hangs

PROGRAM = """
import concurrent.futures, contextvars, gc, json, os, resource, sys, threading, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("stress")
seconds, threads = float(sys.argv[1]), int(sys.argv[2])
truth, failures, end = {}, [], time.monotonic() + seconds
gc.set_threshold(50, 5, 5)

class Cycle:
    def __init__(self, depth):
        self.me, self.text = self, "x" * depth
    def __del__(self):
        sum(n for n in range(5))

def generate(n):
    for i in range(n):
        yield from (Cycle(i) for _ in range(2))

def recurse(depth):
    return Cycle(depth) if depth == 0 else recurse(depth - 1)

def fail(depth):
    try:
        if depth == 0:
            raise ValueError("as intended")
        fail(depth - 1)
    except ValueError as error:
        if depth % 3 == 0:
            raise RuntimeError(str(depth)) from error
        raise

def churn():
    for _ in generate(10):
        pass
    recurse(60)
    try:
        fail(12)
    except (RuntimeError, ValueError):
        pass
    sys._getframe().f_locals
    time.sleep(0.0005)

def make(slot):
    scope = {"churn": churn}
    exec(f"def work_{slot}():\\n    for _ in range(12): churn()", scope)
    return scope[f"work_{slot}"]

works = [make(slot) for slot in range(64)]

def piece(slot):
    with tracer.start_as_current_span("piece") as span:
        truth.setdefault(slot, []).append(format(span.get_span_context().span_id, "016x"))
        works[slot]()

def own_thread(slot):
    while time.monotonic() < end:
        inner = threading.Thread(target=piece, args=(slot,))
        inner.start()
        inner.join()

def pooled(slots):
    while time.monotonic() < end:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:  # its threads end soon
            for slot in slots:
                with tracer.start_as_current_span("caller"):
                    pool.submit(contextvars.copy_context().run, piece, slot)

def guarded(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        failures.append(repr(error))

own = [threading.Thread(target=guarded, args=(own_thread, slot)) for slot in range(threads // 2)]
pools = [threading.Thread(target=guarded, args=(pooled, range(8 + 8 * n, 16 + 8 * n)))
         for n in range(min((threads + 1) // 2, 7))]
for thread in own + pools:
    thread.start()
while time.monotonic() < end:
    began = time.monotonic()
    while time.monotonic() < began + 0.02:  # ticks come while it runs
        churn()
    time.sleep(0.05)
    print(int(time.monotonic()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
for thread in own + pools:
    thread.join()
with open(sys.argv[3], "w") as file:
    json.dump({"truth": truth, "failures": failures}, file)
"""


def stress(folder: Path, seconds: float, threads: int) -> dict[str, object]:
    """Run the child for `seconds`; what it did and what was found wrong."""
    answer, beats = folder / "answer.json", folder / "beats"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAGPROF", "PYTHONPATH"))}
    env |= {
        "RAGPROF_SPOOL": str(folder / "spool"),
        "RAGPROF_SAMPLER_BUDGET": "0.5",
        "PYTHONPATH": str(ROOT / "ragprof" / "sampler" / "bootstrap"),
        "PYTHONFAULTHANDLER": "1",
    }
    hung = False
    with beats.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(seconds), str(threads), str(answer)],
            env=env,
            stdout=output,
        )
        size, since = -1, time.monotonic()
        while child.poll() is None:
            time.sleep(0.5)
            if beats.stat().st_size != size:
                size, since = beats.stat().st_size, time.monotonic()
            elif time.monotonic() - since > SILENCE_SECONDS:
                hung = True
                child.kill()
                child.wait()
    memory = [int(line.split()[1]) for line in beats.read_text().splitlines() if " " in line]
    result: dict[str, object] = {
        "python": sys.version.split()[0],
        "seconds": seconds,
        "exit_code": child.returncode,
        "hung": hung,
        "max_rss_kib": [memory[len(memory) // 4], memory[-1]] if memory else [],
    }
    if child.returncode:
        return result
    found = json.loads(answer.read_text())
    truth = {int(slot): set(ids) for slot, ids in found["truth"].items()}
    (file,) = read_spools(folder / "spool")
    given = wrong = 0
    for sample in file.samples:
        for function in sample.functions:
            name, _, slot = function.partition("_")
            if name == "work" and slot.isdigit() and sample.label != ("", ""):
                given += 1
                wrong += sample.label[1] not in truth[int(slot)]
                break
    return result | {
        "failures": found["failures"],
        "pieces": sum(len(ids) for ids in truth.values()),
        "samples": len(file.samples),
        "labelled": given,
        "wrong_labels": wrong,
        "stats": file.stats,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = stress(Path(folder), arguments.seconds, arguments.threads)
    print(json.dumps(result, indent=2))
    clean = not (
        result["exit_code"]
        or result["hung"]
        or result["failures"]
        or result["wrong_labels"]
        or (isinstance(result["stats"], dict) and result["stats"]["disabled"])
    )
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
