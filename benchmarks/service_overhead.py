"""What observing costs a request: the same FastAPI service without and with each part, in pairs.

    python benchmarks/service_overhead.py [--rounds 20] [--requests 400] [--json]

One process per variant, driven in its own event loop without a network. In every round each
variant handles the same number of requests, in an order drawn anew; what is compared is CPU time
per request of the same round, so what else the machine does falls on both. Brackets are 95 %
intervals over the rounds (Student's t). Log lines go to /dev/null, spans to a collector on loopback
that throws them away (in another process); metrics are not scraped meanwhile. `nothing` and
`nothing again` are the same: their difference is the noise.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    "nothing": None,
    "nothing again": None,
    "metrics": {"metrics": True},
    "logging": {"logging": True},
    "tracing": {"tracing": True},
    "tracing, 1 % sampled": {"tracing": True, "sample_ratio": 0.01},
    "all": {"metrics": True, "logging": True, "tracing": True, "event_loop": True},
}
PARTS = ("metrics", "logging", "tracing", "event_loop")
T95 = {4: 2.78, 9: 2.26, 14: 2.14, 19: 2.09, 29: 2.05, 39: 2.02, 59: 2.00}
PACKAGES = ("fastapi", "starlette", "prometheus-client", "structlog", "opentelemetry-sdk")


def serve_requests(variant: str) -> None:
    """One variant: for every number on stdin, that many requests and their CPU ns on stdout."""
    from fastapi import FastAPI

    sys.path.insert(0, str(ROOT / "tests"))
    from asgi_driver import call, http_scope

    answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    app: Any = FastAPI()

    @app.get("/items/{item}")
    async def read(item: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"item": item}

    options = VARIANTS[variant]
    if options is not None:
        from ragprof.service import instrument

        instrument(
            app,
            "benchmark",
            otlp_endpoint=os.environ["COLLECTOR"],
            **dict.fromkeys(PARTS, False) | options,
        )

    async def main() -> None:
        for line in sys.stdin:
            began = time.process_time_ns()
            for number in range(int(line)):
                await call(app, http_scope(f"/items/{number}"))
            print(time.process_time_ns() - began, file=answers, flush=True)

    asyncio.run(main())


def collect() -> None:
    """A collector that throws spans away; prints its port."""

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Sink) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


def start(*argv: str, **environment: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.Popen(
        [sys.executable, __file__, *argv],
        env=env | {"PYTHONPATH": str(ROOT)} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def measure(rounds: int, requests: int) -> dict[str, list[float]]:
    """CPU microseconds per request of each variant, one number per round."""
    collector = start("--collect")
    assert collector.stdout is not None
    url = f"http://127.0.0.1:{collector.stdout.readline().strip()}"
    running = {name: start("--serve", name, COLLECTOR=url) for name in VARIANTS}
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    try:
        for round_ in range(rounds + 1):
            order = list(VARIANTS)
            random.shuffle(order)
            for name in order:
                process = running[name]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{requests}\n")
                process.stdin.flush()
                spent = int(process.stdout.readline())
                if round_:  # the first one warms up
                    found[name].append(spent / requests / 1000)
    finally:
        for process in (*running.values(), collector):
            process.terminate()
            process.wait()
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval."""
    freedom = len(values) - 1
    t = T95[max((known for known in T95 if known <= freedom), default=4)]
    return statistics.mean(values), t * statistics.stdev(values) / len(values) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--collect", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve_requests(args.serve)
        return
    if args.collect:
        collect()
        return
    found = measure(args.rounds, args.requests)
    base = found["nothing"]
    rows = []
    for name, values in found.items():
        added = [value - other for value, other in zip(values, base, strict=True)]
        mean, half = interval(added) if name != "nothing" else (0.0, 0.0)
        rows.append(
            {
                "variant": name,
                "cpu_us": round(statistics.mean(values), 1),
                "added_us": round(mean, 1),
                "added_us_low": round(mean - half, 1),
                "added_us_high": round(mean + half, 1),
            }
        )
    about = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "rounds": args.rounds,
        "requests": args.requests,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if args.json:
        print(json.dumps({"about": about, "rows": rows}))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print("| observed | CPU of a request | added |\n|---|---|---|")
    for row in rows:
        added = (
            f"{row['added_us']:+.0f} µs ({row['added_us_low']:+.0f} to {row['added_us_high']:+.0f})"
        )
        shown = "-" if row["variant"] == "nothing" else added
        print(f"| {row['variant']} | {row['cpu_us']:.0f} µs | {shown} |")


if __name__ == "__main__":
    main()
