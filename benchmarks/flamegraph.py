"""Collapsed stacks to SVG for 10^4, 10^5 and 10^6 samples: ragprof beside other writers.

Two shapes of input: samples that repeat (about 22 a stack, as profilers give them), and samples
that are all distinct stacks. Every program reads the same collapsed file and writes an SVG. Times
are CPU seconds, user and system, so that other work on the machine does not count; of whole
processes, start included, with their peak memory, and of ragprof alone, as a service or a notebook
that has it loaded sees it.

The others: inferno; py-spy's writer, which is inferno as a library behind a sampler and has no way
in for a file, so it is inferno's row; flameprof, which reads cProfile's data instead of stacks, so
it draws a profile of as many functions. They are looked for in INFERNO_FLAMEGRAPH and FLAMEPROF, in
the PATH, and where ``tests/profiles/install.sh`` and ``tests/profiles/install.sh peers`` put them.
What is not installed is said and left out. Run: ``python benchmarks/flamegraph.py [LARGEST]``.
"""

from __future__ import annotations

import cProfile
import importlib.metadata
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ragprof.flamegraph import html, svg
from ragprof.flamegraph.layout import layout
from ragprof.profiles.model import Frame, Profile, ProfileBuilder
from ragprof.profiles.read import read_profile

FUNCTIONS = 2_000
CACHE = Path(os.environ.get("RAGPROF_TOOLS", Path.home() / ".cache/ragprof/tools"))
TOOLS = f"{CACHE}/bin:{CACHE}/peers/bin"
OURS = (
    "import sys;from pathlib import Path;from ragprof.profiles.read import read_profile;"
    "from ragprof.flamegraph import svg;"
    "Path(sys.argv[2]).write_text(svg(read_profile(sys.argv[1])), encoding='utf-8')"
)


def made(samples: int, stacks: int) -> Profile:
    """``samples`` on ``stacks`` random stacks of 10 to 40 frames with shared beginnings."""
    random = np.random.default_rng(samples + stacks)
    builder = ProfileBuilder(name=f"{samples:,} samples")
    for index in range(FUNCTIONS):
        builder.frame(Frame(f"service.part{index % 97}:method_{index}"))
    lengths = random.integers(10, 41, stacks)
    flat = random.zipf(1.5, int(lengths.sum())) % FUNCTIONS
    ids = builder.stacks(flat, np.zeros_like(flat), lengths)
    chosen = ids if samples == stacks else random.choice(ids, samples)
    builder.samples(chosen, np.full(samples, 1e7))
    return builder.build()


def write_lines(profile: Profile, path: Path) -> None:
    """One line per sample, as a sampler writes them before anything is folded."""
    names = [frame.function for frame in profile.frames]
    stacks = [
        ";".join(
            names[frame]
            for frame in profile.stack_frames[
                profile.stack_offsets[at] : profile.stack_offsets[at + 1]
            ].tolist()
        )
        for at in range(profile.stack_count)
    ]
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{stacks[stack]} 1\n" for stack in profile.sample_stacks.tolist())


def process(command: list[str], folder: Path, out: Path | None = None) -> tuple[float, float]:
    """CPU seconds and peak MB of a program, the better of two runs; the first writes bytecode."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # flameprof's script starts the first Python of the PATH: let it be the one beside it.
    environment["PATH"] = f"{Path(command[0]).parent}:{environment['PATH']}"
    best, peak = float("inf"), 0.0
    for _ in range(2):
        with open(out or os.devnull, "wb") as target:
            child = subprocess.Popen(
                command, stdout=target, stderr=subprocess.DEVNULL, env=environment
            )
            _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{command[0]} failed")
        best = min(best, usage.ru_utime + usage.ru_stime)
        peak = max(peak, usage.ru_maxrss / 1024)
    return best, peak


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds, the best of two runs, and the result."""
    best, result = float("inf"), None
    for _ in range(2):
        result = None  # the last one's memory
        began = time.process_time()
        result = work()
        best = min(best, time.process_time() - began)
    return best, result


def program(variable: str, name: str) -> str | None:
    """The path of a peer, or None after saying that it is not there."""
    found = os.environ.get(variable) or shutil.which(name) or shutil.which(name, path=TOOLS)
    if found is None:
        print(f"{name} is not installed: left out")
    return found


def inferno_version(path: str) -> str:
    """As cargo noted it beside the programs that it installed."""
    noted = Path(path).parents[1] / ".crates.toml"
    found = re.search(r'"inferno (\S+)', noted.read_text("utf-8")) if noted.exists() else None
    return f"inferno {found[1]}" if found else "inferno"


def statistics(path: Path, functions: int = FUNCTIONS) -> None:
    """cProfile's data of a program with as many functions, for flameprof."""
    ends = {*range(29, functions, 30), functions - 1}
    lines = [f"def f{at}(): {'pass' if at in ends else f'f{at + 1}()'}" for at in range(functions)]
    lines.append("for _ in range(3):\n  " + ";".join(f"f{at}()" for at in range(0, functions, 30)))
    profile = cProfile.Profile()
    profile.run(compile("\n".join(lines), "generated", "exec"))  # type: ignore[arg-type]
    pstats.Stats(profile).dump_stats(str(path))


def main(largest: int) -> None:
    inferno = program("INFERNO_FLAMEGRAPH", "inferno-flamegraph")
    flameprof = program("FLAMEPROF", "flameprof")
    version = inferno_version(inferno) if inferno else ""
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, numpy {np.__version__}, "
        f"ragprof {importlib.metadata.version('ragprof')}, {version}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print("\ncollapsed file to SVG, whole processes")
        print("samples    stacks     ragprof s    MB   inferno s    MB   inferno/ragprof")
        rows = []
        for samples in (10_000, 100_000, 1_000_000):
            if samples > largest:
                break
            for stacks in (samples // 22, samples):
                source = folder / f"{samples}-{stacks}.txt"
                write_lines(made(samples, stacks), source)
                its = float("nan")
                own, peak = process(
                    [sys.executable, "-c", OURS, str(source), str(folder / "x.svg")], folder
                )
                line = f"{samples:<10,} {stacks:<10,} {own:8.2f} {peak:6.0f}"
                if inferno:
                    its, its_peak = process([inferno, str(source)], folder, folder / "y.svg")
                    line += f"   {its:8.2f} {its_peak:6.0f}   {its / own:8.2f}"
                print(line, flush=True)
                rows.append((samples, stacks, source, its))
        if flameprof:
            data = folder / "stats.prof"
            statistics(data)
            took, peak = process([flameprof, str(data)], folder, folder / "z.svg")
            print(
                f"flameprof, cProfile data of {FUNCTIONS:,} functions: {took:.2f} s, {peak:.0f} MB"
            )
        print("\nragprof loaded: read, layout, SVG; the page")
        print(
            "samples    stacks       read s   layout s    svg s   inferno/(read+svg)   page s   kB"
        )
        for samples, stacks, source, its in rows:
            read_s, read = seconds(lambda source=source: read_profile(source))
            profile: Profile = read  # type: ignore[assignment]
            layout_s, _ = seconds(lambda profile=profile: layout(profile))
            svg_s, _ = seconds(lambda profile=profile: svg(profile))
            page_s, page = seconds(lambda profile=profile: html(profile))
            print(
                f"{samples:<10,} {stacks:<10,} {read_s:8.3f} {layout_s:10.3f} {svg_s:8.3f} "
                f"{its / (read_s + svg_s):20.2f} {page_s:8.3f} "
                f"{len(page) / 1e3:4.0f}",  # type: ignore[arg-type]
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
