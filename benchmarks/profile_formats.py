"""Reading pprof and speedscope against what PyPI offers, and writing them: CPU seconds and ratios.

Two shapes: samples that repeat (22 samples a stack, as profilers give them) and samples that are
all distinct stacks. Seeded; run it as ``python benchmarks/profile_formats.py [LARGEST]``. The peers
are the protobuf library with a loop over its messages, the json module alone (a floor for JSON),
and the readers of flamegraph-textual, those of the viewer flameshow, in an environment of their own
that ``tests/profiles/install.sh peers`` makes. Each reads the same file in the same run.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ragprof.profiles.content import Content
from ragprof.profiles.model import Frame, Profile, ProfileBuilder
from ragprof.profiles.read import profiles_of
from ragprof.profiles.write import LossWarning, encoded

FUNCTIONS = 2_000
LIMIT = 2_000_000_000
PEERS = Path.home() / ".cache/ragprof/tools/peers/bin/python"
PEER_LIMIT = 100_000  # above it the peer takes minutes and gigabytes

PEER = """
import sys, time, importlib
name, path = sys.argv[1:]
module = importlib.import_module(f"flamegraph_textual.parsers.{name}_parser")
data = open(path, "rb").read()
parser = module.ProfileParser if name == "pprof" else module.SpeedscopeParser
began = time.process_time()
parser(path).parse(data)
print(time.process_time() - began)
"""


def made(samples: int, stacks: int) -> Profile:
    """``samples`` on ``stacks`` random stacks of 10 to 40 frames."""
    random = np.random.default_rng(samples + stacks)
    builder = ProfileBuilder(name=f"{samples} samples")
    for index in range(FUNCTIONS):
        builder.frame(
            Frame(f"package.module{index % 97}:method_{index}", "", f"module{index % 97}.py", index)
        )
    lengths = random.integers(10, 41, stacks)
    flat = random.zipf(1.5, int(lengths.sum())) % FUNCTIONS
    ids = builder.stacks(flat, flat % 50 + 1, lengths)
    chosen = ids if samples == stacks else random.choice(ids, samples)
    builder.samples(chosen, np.full(samples, 1e7))
    return builder.build()


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """The best of some runs."""
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def ours(data: bytes) -> float:
    """Our reader, from the bytes of the file to a Profile."""
    return seconds(lambda: profiles_of(Content(data, "x", LIMIT)))


def protobuf_walk(data: bytes) -> float:
    """The protobuf library's C parser and a loop that collects locations and values."""
    message = _pprof_message()

    def work() -> None:
        profile = message()
        profile.ParseFromString(gzip.decompress(data))
        rows = [(tuple(one.location_id), tuple(one.value)) for one in profile.sample]
        stacks: dict[tuple[int, ...], int] = {}
        for locations, _ in rows:
            stacks.setdefault(locations, len(stacks))

    return seconds(work, 1)


def _pprof_message() -> type:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="p", syntax="proto3")
    kinds = {"i": 3, "s": 9, "m": 11}
    for name, parts in {
        "Profile": "sample_type:m:ValueType:1 sample:m:Sample:2 location:m:Location:4 "
        "function:m:Function:5 string_table:s::6",
        "ValueType": "type:i::-1 unit:i::-2",
        "Sample": "location_id:i::1 value:i::2",
        "Location": "id:i::-1 line:m:Line:4",
        "Line": "function_id:i::-1 line:i::-2",
        "Function": "id:i::-1 name:i::-2 filename:i::-4 start_line:i::-5",
    }.items():
        message = file.message_type.add(name=name)
        for part in parts.split():
            field, kind, of, number = part.split(":")
            message.field.add(
                name=field,
                number=abs(int(number)),
                type=kinds[kind],
                label=1 if int(number) < 0 else 3,
                type_name=f".p.{of}" if of else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type = message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Profile"))
    return found


def peer(name: str, data: bytes, samples: int) -> float | None:
    """flamegraph-textual's reader; None when it is not installed or the file too large for it."""
    if not PEERS.exists() or samples > PEER_LIMIT:
        return None
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = [str(PEERS), "-c", PEER, name, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def row(what: str, mine: float, others: dict[str, float | None]) -> str:
    """One line: our seconds, and each peer's with the ratio."""
    cells = [
        f"{name} -" if other is None else f"{name} {other:.3f} s ({other / mine:.1f}x)"
        for name, other in others.items()
    ]
    return f"  {what:<18} ragprof {mine:7.3f} s   {'   '.join(cells)}"


def main(largest: int) -> None:
    warnings.simplefilter("ignore", LossWarning)
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, "
        f"protobuf {version('protobuf')}, {os.cpu_count()} cores, flamegraph-textual "
        f"{'in ' + str(PEERS.parent.parent.name) if PEERS.exists() else 'not installed'}"
    )
    for samples in (10_000, 100_000, 1_000_000):
        if samples > largest:
            break
        for stacks in (samples // 22, samples):
            profile = made(samples, stacks)
            pprof = encoded(profile, "pprof")
            speedscope = encoded(profile, "speedscope")
            print(
                f"{samples:,} samples on {stacks:,} stacks: "
                f"pprof {len(pprof) / 1e6:.1f} MB, speedscope {len(speedscope) / 1e6:.1f} MB"
            )
            textual = peer("pprof", pprof, samples)
            others = {"protobuf walk": protobuf_walk(pprof), "flamegraph-textual": textual}
            print(row("read pprof", ours(pprof), others))
            floor = seconds(lambda data=speedscope: json.loads(data), 1)
            textual = peer("speedscope", speedscope, samples)
            others = {"json.loads alone": floor, "flamegraph-textual": textual}
            print(row("read speedscope", ours(speedscope), others))
            for name in ("pprof", "speedscope", "collapsed"):
                wrote = seconds(lambda name=name, profile=profile: encoded(profile, name), 1)
                print(row(f"write {name}", wrote, {}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
