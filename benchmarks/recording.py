"""How fast a recording is written, opened and queried, by its number of spans.

    python benchmarks/recording.py [SPANS ...]

Prints per size: rows appended per second (rows given as Arrow tables; and once as mappings),
seconds to compact at close, size on disk, seconds and memory to open, seconds of one query and of
a slice of a hundredth. Each size runs in a process of its own, so that memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ragprof.journal import Journal
from ragprof.tables import SCHEMAS

T0 = 1_750_000_000_000_000_000
BATCH = 50_000


def spans(first: int, count: int) -> pa.Table:
    """Spans ten microseconds apart with two attributes, from the given number on."""
    numbers = pa.array(range(first, first + count), pa.int64())
    digits = pc.utf8_lpad(numbers.cast(pa.string()), 32, "0")
    names = pa.array(["GET /ask", "embed", "retrieve", "rerank", "generate"])
    fields = SCHEMAS["spans"]
    return pa.table(
        {
            "trace_id": digits,
            "span_id": pc.utf8_slice_codeunits(digits, 16),
            "trace_key": numbers,
            "span_key": numbers,
            "parent_key": pa.repeat(pa.scalar(0, pa.int64()), count),
            "service": pa.repeat("rag-api", count),
            "name": names.take(pa.array([n % 5 for n in range(count)])),
            "start": pc.add(pc.multiply(numbers, 10_000), T0).cast(fields.field("start").type),
            "duration_ns": pc.multiply(numbers, 7),
            "attributes": pa.array(
                [[("db.system", "sqlite"), ("rows", str(n % 100))] for n in range(count)],
                fields.field("attributes").type,
            ),
        }
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(path: Path, count: int) -> dict[str, Any]:
    batch = min(count, BATCH)
    tables = [spans(n * batch, batch) for n in range(count // batch)] if count <= 10**6 else None
    before = peak_mib()
    seconds = 0.0
    journal = Journal(path)
    for n in range(count // batch):
        rows = tables[n] if tables else spans(n * batch, batch)
        start = time.perf_counter()
        journal.append("spans", rows)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    journal.close()
    return {
        "spans": count,
        "append_per_s": round(count / seconds),
        "close_s": round(time.perf_counter() - start, 2),
        "write_added_mib": round(peak_mib() - before),
        "disk_mib": round(sum(f.stat().st_size for f in path.iterdir()) / 2**20, 1),
    }


def read(path: Path) -> dict[str, Any]:
    import ragprof.recording  # its imports are not part of opening

    before = peak_mib()
    start = time.perf_counter()
    recording = ragprof.open(path)
    recording.describe()
    opened = time.perf_counter() - start
    memory = peak_mib() - before
    start = time.perf_counter()
    recording.sql("select name, count(*), quantile_cont(duration_ns, 0.95) from spans group by 1")
    queried = time.perf_counter() - start
    first, last = (instant.value for instant in recording.window)
    start = time.perf_counter()
    recording.slice(since=first, until=first + (last - first) // 100)
    return {
        "open_ms": round(opened * 1000, 2),
        "open_added_mib": round(memory, 1),
        "query_s": round(queried, 2),
        "slice_s": round(time.perf_counter() - start, 2),
    }


def mappings(path: Path) -> int:
    """Rows per second given as mappings, keys computed."""
    rows = [
        {
            "trace_id": f"{n // 10:032x}",
            "span_id": f"{n:016x}",
            "parent_span_id": f"{n - 1:016x}",
            "service": "rag-api",
            "name": "embed",
            "start": T0 + n,
            "duration_ns": n,
            "attributes": {"db.system": "sqlite", "rows": n},
        }
        for n in range(50_000)
    ]
    with Journal(path) as journal:
        start = time.perf_counter()
        for n in range(0, len(rows), 500):
            journal.append("spans", rows[n : n + 500])
        return round(len(rows) / (time.perf_counter() - start))


def main(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            result: dict[str, Any] = {}
            for step in ("write", "read"):
                done = subprocess.run(
                    [sys.executable, __file__, step, f"{folder}/{size}.ragprof", str(size)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                result |= json.loads(done.stdout)
            print(json.dumps(result), flush=True)
        print(json.dumps({"append_mappings_per_s": mappings(Path(folder) / "rows.ragprof")}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        print(json.dumps(write(Path(sys.argv[2]), int(sys.argv[3]))))
    elif sys.argv[1:2] == ["read"]:
        print(json.dumps(read(Path(sys.argv[2]))))
    else:
        main([int(size) for size in sys.argv[1:]] or [10**5, 10**6, 10**7])
