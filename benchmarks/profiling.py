"""What profiling costs: sessions of each engine, and the continuous profiling of a service.

    python benchmarks/profiling.py [--rounds 7] [--seconds 1.0]

Sessions: the same work bare and under each engine in turn, in CPU time of this process; the ratio
is the median over the rounds. Continuous: requests of an ASGI application with a span each, served
in turn with and without `setup_profiling`, and what it costs to keep one slow request.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

import ragprof as rp
from ragprof.profiling.session import ENGINES
from ragprof.sampler import sharing
from ragprof.service.profiling import setup_profiling

CALLS = 40_000  # function calls in one piece of work
TOKEN = "a-token-for-the-benchmark"


def leaf(number: int) -> int:
    return number * 3 % 7


def branch(number: int) -> int:
    return leaf(number) + leaf(number + 1)


def work(pieces: int) -> int:
    """Calls and little else: the worst that a tracer can meet."""
    total = 0
    for piece in range(pieces):
        for number in range(CALLS // 3):
            total += branch(number + piece)
    return total


def cpu(function: Callable[[], Any]) -> float:
    gc.collect()
    began = time.process_time()
    function()
    return time.process_time() - began


def sessions(rounds: int, seconds: float) -> None:
    pieces = max(1, round(seconds / max(cpu(lambda: work(3)) / 3, 1e-6)))
    found: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    bare_all = []
    for _ in range(rounds):
        bare = cpu(lambda: work(pieces))
        bare_all.append(bare)
        for engine in ENGINES:
            session = rp.profile(engine=engine)
            session.start()
            spent = cpu(lambda: work(pieces))
            session.stop()
            found[engine].append(spent / bare)
    print(f"sessions: {pieces} x {CALLS:,} calls, {statistics.median(bare_all):.2f} s of CPU bare")
    for engine in ENGINES:
        ratios = sorted(found[engine])
        low, high = ratios[0], ratios[-1]
        print(
            f"  {engine:<13} x {statistics.median(ratios):.3f}  ({low:.3f} to {high:.3f}; "
            f"{rounds} rounds)"
        )


class Service:
    """An ASGI application whose requests compute and wait, with a span each."""

    def __init__(self) -> None:
        self.tracer = TracerProvider().get_tracer("benchmark")
        self.app: Any = self._answer

    def add_middleware(self, kind: Any, **options: Any) -> None:
        self.app = kind(self.app, **options)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        for _ in range(4):
            work(1)
            await asyncio.sleep(0.001)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def request(self) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            return None

        scope = {"type": "http", "path": "/ask", "method": "GET", "headers": []}
        with self.tracer.start_as_current_span("GET /ask"):
            await self.app(scope, receive, send)

    def serve(self, requests: int, at_once: int) -> None:
        async def main() -> None:
            for _ in range(requests // at_once):
                await asyncio.gather(*(self.request() for _ in range(at_once)))

        asyncio.run(main())


def continuous(rounds: int, seconds: float) -> None:
    one = cpu(lambda: Service().serve(10, 10)) / 10
    requests = max(20, round(3 * seconds / one / 20) * 20)
    ratios, own, keeping = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            bare = cpu(lambda: Service().serve(requests, 20))
            service = Service()
            profiler = setup_profiling(
                service, TOKEN, slow=60, folder=Path(folder), kept_per_minute=10_000
            )
            assert profiler is not None
            before = sharing.running()
            assert before is not None, profiler.problem
            began = time.monotonic()
            spent = cpu(partial(service.serve, requests, 20))
            took = time.monotonic() - began
            profiler.stop()
            ratios.append(spent / bare)
            own.append(float(profiler.ring.stats["cost_seconds"]) / took)
            end = time.time_ns()
            traces = [
                trace
                for line in profiler.ring.lines()
                if line["type"] == "samples"
                for trace in dict.fromkeys(line["columns"]["trace_id"])
                if trace
            ][:50]

            def keep(profiler: Any = profiler, traces: list[str] = traces, end: int = end) -> None:
                profiler.ring.open = True
                profiler.ring.written_ns = end + 1
                for trace in traces:
                    profiler.ended("/ask", trace, end - 60 * 10**9, end, 1.0)
                profiler.keeper.wait(60)
                profiler.ring.open = False

            if traces:
                keeping.append(cpu(keep) / len(traces))
        stored = [path.stat().st_size for path in Path(folder).iterdir()]
    print(f"continuous: {requests} requests of {one * 1000:.1f} ms CPU, 20 at once")
    print(f"  CPU with / without  x {statistics.median(ratios):.3f}  "
          f"({min(ratios):.3f} to {max(ratios):.3f}; {rounds} rounds)")  # fmt: skip
    print(f"  the sampler's own cost  {statistics.median(own):.2%} of one core")
    print(f"  keeping one slow request  {statistics.median(keeping) * 1000:.2f} ms of CPU, "
          f"{statistics.median(stored):.0f} bytes on disk")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of CPU in each round")
    args = parser.parse_args()
    print(
        f"Python {platform.python_version()}, pyinstrument {version('pyinstrument')}, "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    )
    sessions(args.rounds, args.seconds)
    continuous(args.rounds, args.seconds)


if __name__ == "__main__":
    main()
