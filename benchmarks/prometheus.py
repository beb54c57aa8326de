"""One million points of Prometheus into columns: ragprof beside prometheus-api-client.

Both get the same answer of the HTTP API (1,000 series of 1,000 points) as bytes. The peer's way is
`json` and `MetricRangeDataFrame`. Ours ends in Arrow tables with the labels stored once. Time is
CPU time, memory the peak of the resident size above what it was with the bytes read.

    python benchmarks/prometheus.py [POINTS_PER_SERIES]
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERIES = 1000
RUNS = 3


def answer(points: int) -> bytes:
    """A matrix with counters, gauges and what is no number."""
    dice = random.Random(1)
    result = []
    for number in range(SERIES):
        labels = {
            "__name__": f"rag_{number % 40}_total",
            "instance": f"10.0.{number // 250}.{number % 250}:8000",
            "job": "rag-api",
            "service": "rag-api",
            "endpoint": f"/api/v1/{number % 7}",
        }
        value = 0
        values = []
        for at in range(points):
            value += dice.randrange(50)
            text = repr(dice.random()) if number % 4 == 0 else str(value)
            values.append([1_795_000_000 + at * 15 + 0.123, text if at % 500 else "NaN"])
        result.append({"metric": labels, "values": values})
    data = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    return json.dumps(data, separators=(",", ":")).encode()


def ours(body: bytes) -> int:
    from ragprof.sources import prometheus_matrix
    from ragprof.sources.prometheus_series import Metadata, tables

    _, points = tables(
        prometheus_matrix.parse(body), [], Metadata(), lambda labels: labels["service"]
    )
    return int(points.num_rows)


def peer(body: bytes) -> int:
    from prometheus_api_client import MetricRangeDataFrame

    return len(MetricRangeDataFrame(json.loads(body)["data"]["result"]))


def one(which: str, path: str) -> None:
    """In a process of its own: seconds and bytes of the best run, as JSON."""
    work = {"ours": ours, "peer": peer}[which]
    small = answer(2)
    work(small)  # imports
    body = Path(path).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = kilobytes("VmRSS")
    best, rows, grown = 1e9, 0, 0
    for number in range(RUNS):
        begin = time.process_time()
        rows = work(body)
        best = min(best, time.process_time() - begin)
        if not number:
            grown = kilobytes("VmHWM") - before
    print(json.dumps({"seconds": best, "kilobytes": grown, "rows": rows}))


def kilobytes(field: str) -> int:
    """A line of /proc/self/status: VmRSS is the resident size, VmHWM its peak."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0])


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.json"
        path.write_bytes(answer(points))
        size = path.stat().st_size
        found = {}
        for which in ("peer", "ours"):
            run = subprocess.run(
                [sys.executable, __file__, "--one", which, str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            found[which] = json.loads(run.stdout)
    assert found["ours"]["rows"] == found["peer"]["rows"] == SERIES * points
    names = ("prometheus-api-client", "pandas", "pyarrow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores")
    print(f"{SERIES * points:,} points, {SERIES:,} series, {size / 1e6:.1f} MB")
    for which, title in (("peer", "MetricRangeDataFrame"), ("ours", "ragprof")):
        seconds, megabytes = found[which]["seconds"], found[which]["kilobytes"] / 1000
        rate = SERIES * points / seconds
        print(f"{title:<22} {seconds:7.3f} s CPU  {rate:12,.0f} points/s  {megabytes:8.0f} MB more")
    faster = found["peer"]["seconds"] / found["ours"]["seconds"]
    smaller = found["ours"]["kilobytes"] / found["peer"]["kilobytes"]
    print(f"ratio: {faster:.1f} times faster, {smaller:.2f} of the memory")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3])
    else:
        main()
