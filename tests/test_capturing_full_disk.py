"""A recorder whose disk fills up: it says so, the child is unharmed, what was written opens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragprof import recording
from ragprof.journal import STREAMS

LIMITED = """
import resource, signal, sys
import ragprof.cli
if {limit}:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
sys.exit(ragprof.cli.main())
"""
# Random text, which no compression saves. The first lines are on the disk before it fills up.
TALKER = """
import os, sys, time
for number in range(400):
    print(number, os.urandom(4000).hex(), flush=True)
    while number == 39 and not (os.path.exists(sys.argv[1]) and os.path.getsize(sys.argv[1])):
        time.sleep(0.05)
sys.exit(3)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder with 2 MiB of room and 0; or any folder and a limit of bytes for each file."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield folder, 0
        subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        yield folder, 1 << 20


def test_a_recorder_on_a_full_disk(small: tuple[Path, int], tmp_path: Path) -> None:
    folder, limit = small
    path = folder / "r.ragprof"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit=limit), "record", "--no-stacks",
         "--out", str(path), "--", sys.executable, "-c", TALKER,
         str(path / STREAMS / "logs.arrows")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 400  # the child was not held up and lost nothing
    assert "space" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 3, done.stderr
    elsewhere = tmp_path / "elsewhere.ragprof"
    shutil.copytree(path, elsewhere)
    rec = recording.open(elsewhere)
    numbers = sorted(int(body.split()[0]) for body in rec.to_pandas("logs").body)
    assert numbers
    assert numbers == list(range(len(numbers)))
    assert rec.table("changes").num_rows >= 1
