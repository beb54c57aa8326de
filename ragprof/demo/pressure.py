"""Pressure on the CPU from outside: `python -m ragprof.demo.pressure PARENT SECONDS burn`, or
`… stop PID SHARE`, which lets a process run for that share of each tenth of a second.

It ends after SECONDS, or when PARENT is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

PERIOD = 0.1  # seconds


def burn() -> None:
    """Compute for one period."""
    until = time.monotonic() + PERIOD
    while time.monotonic() < until:
        sum(range(1000))


def stop(pid: int, share: float) -> None:
    """Stop a process for a part of one period."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(PERIOD * (1 - share))
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(PERIOD * share)


def again(work: Callable[[], None], parent: int, seconds: float) -> None:
    """Repeat until the time is over or the parent is gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and os.getppid() == parent:
        work()


def main(argv: Sequence[str] | None = None) -> int:
    """Run as said above; a process that is stopped goes on in any case."""
    words = list(sys.argv[1:] if argv is None else argv)
    parent, seconds, what = int(words[0]), float(words[1]), words[2]
    signal.signal(signal.SIGTERM, _leave)
    if what == "burn":
        again(burn, parent, seconds)
        return 0
    pid, share = int(words[3]), float(words[4])
    try:
        again(lambda: stop(pid, share), parent, seconds)
    except ProcessLookupError:
        return 0
    return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    raise SystemExit(main())
