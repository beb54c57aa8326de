"""CPU clocks of threads: whether a thread ran between two looks, or waited."""

from __future__ import annotations

import sys
import time

_LINUX = sys.platform == "linux"


def thread_cpu_ns(native_id: int) -> int:
    """CPU time of a thread of this process, in ns; -1 when it has ended or cannot be told.

    The Linux clock id of a thread is made from its system id (`MAKE_THREAD_CPUCLOCK`), which the
    kernel checks. `time.pthread_getcpuclockid` gives the same number but reads freed memory when
    the thread has just ended.
    """
    if not _LINUX:
        return -1
    try:
        return time.clock_gettime_ns((~native_id << 3) | 6)
    except OSError:
        return -1
