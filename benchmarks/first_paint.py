"""Size of the flame graph page and time to its first paint in Chromium, 10^5 and 10^6 samples.

The page is opened from a file in a headless Chromium, anew for each run; the times are the
browser's own: first contentful paint, and the moment when the whole graph is drawn (the mark
``drawn``). The median of five runs. Run: ``python benchmarks/first_paint.py [LARGEST]``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from flamegraph import FUNCTIONS

from ragprof.flamegraph import html
from ragprof.profiles.model import Frame, Profile, ProfileBuilder

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chromium import started

RUNS = 5
TIMES = """
const paint = performance.getEntriesByName("first-contentful-paint")[0];
const drawn = performance.getEntriesByName("drawn")[0];
return [paint && paint.startTime, drawn && drawn.startTime];
"""


def timed(samples: int) -> Profile:
    """Samples of four threads over ten minutes, so that the page has every view."""
    random = np.random.default_rng(samples)
    builder = ProfileBuilder(name=f"{samples:,} samples")
    for index in range(FUNCTIONS):
        builder.frame(Frame(f"package.module{index % 97}:Class{index % 13}.method_{index}"))
    stacks = samples // 22
    lengths = random.integers(10, 41, stacks)
    flat = random.zipf(1.5, int(lengths.sum())) % FUNCTIONS
    ids = builder.stacks(flat, np.zeros_like(flat), lengths)
    runs = np.repeat(random.choice(ids, samples // 4 + 1), 4)[:samples]  # a stack stays a while
    times = 1_700_000_000 * 10**9 + np.sort(random.integers(0, 600 * 10**9, samples))
    builder.samples(runs, np.full(samples, 1e7), times=times, threads=np.arange(samples) // 4 % 4)
    return builder.build()


def main(largest: int) -> None:
    print("samples      page kB   first paint ms   graph drawn ms")
    for samples in (100_000, 1_000_000):
        if samples > largest:
            break
        page = html(timed(samples))
        paints, graphs = [], []
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "flame.html"
            path.write_text(page, encoding="utf-8")
            for run in range(RUNS):
                with started(Path(temporary) / f"profile{run}") as browser:
                    browser.get(path.as_uri())
                    paint, drawn = None, None
                    while paint is None or drawn is None:
                        paint, drawn = browser.execute_script(TIMES)  # type: ignore[no-untyped-call]
                    paints.append(paint)
                    graphs.append(drawn)
                    version = browser.capabilities["browserVersion"]
        print(
            f"{samples:<10,} {len(page.encode()) / 1e3:9.0f} {statistics.median(paints):16.0f} "
            f"{statistics.median(graphs):16.0f}",
            flush=True,
        )
    print(f"Chromium {version}, headless, page opened from a file")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
