"""Flame graphs of 10^4, 10^5 and 10^6 samples: time and size of layout, SVG and HTML.

Two shapes: samples that repeat (about 22 samples a stack, as profilers give them) and samples that
are all distinct stacks. Seeded; run it as ``python benchmarks/flamegraph.py [LARGEST]``.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from ragprof.flamegraph import html, svg
from ragprof.flamegraph.layout import layout
from ragprof.profiles.model import Frame, Profile, ProfileBuilder

FUNCTIONS = 2_000


def made(samples: int, stacks: int) -> Profile:
    """``samples`` on ``stacks`` random stacks of 10 to 40 frames with shared beginnings."""
    random = np.random.default_rng(samples + stacks)
    builder = ProfileBuilder(name=f"{samples:,} samples")
    for index in range(FUNCTIONS):
        builder.frame(Frame(f"package.module{index % 97}:Class{index % 13}.method_{index}"))
    lengths = random.integers(10, 41, stacks)
    flat = random.zipf(1.5, int(lengths.sum())) % FUNCTIONS
    ids = builder.stacks(flat, np.zeros_like(flat), lengths)
    chosen = ids if samples == stacks else random.choice(ids, samples)
    builder.samples(chosen, np.full(samples, 1e7))
    return builder.build()


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """The best of three runs, and the result."""
    best, result = float("inf"), None
    for _ in range(3):
        began = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - began)
    return best, result


def main(largest: int) -> None:
    print("samples    stacks     layout s   svg s   svg kB   html s   html kB   boxes   peak MB")
    for samples in (10_000, 100_000, 1_000_000):
        if samples > largest:
            break
        for stacks in (samples // 22, samples):
            profile = made(samples, stacks)
            layout_s, boxes = seconds(lambda profile=profile: layout(profile))
            svg_s, picture = seconds(lambda profile=profile: svg(profile))
            html_s, page = seconds(lambda profile=profile: html(profile))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{samples:<10,} {stacks:<10,} {layout_s:8.3f} {svg_s:7.3f} "
                f"{len(picture) / 1e3:8.0f} {html_s:8.3f} {len(page) / 1e3:9.0f} "
                f"{len(boxes.frame):7,} {peak:9.0f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
