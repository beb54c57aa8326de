"""`rp.attach`: a process that runs already, seen from outside for some seconds."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

from ragprof.profiles.model import Profile
from ragprof.profiling import pyspy
from ragprof.profiling.pyspy import AttachError, Options, Progress

LONGEST = 24 * 3600.0


def attach(
    pid: int | None = None,
    *,
    pod: str | None = None,
    container: str | None = None,
    seconds: float = 10.0,
    hz: float = 100.0,
    native: bool = False,
    idle: bool = False,
    gil: bool = False,
    subprocesses: bool = False,
    nonblocking: bool = False,
    progress: bool | None = None,
    **ladder: Any,
) -> Profile:
    """Profile process ``pid`` for ``seconds`` by py-spy, without changing or stopping it.

    A Profile of wall nanoseconds of threads that use a CPU, with the labels process and
    thread_name. ``native`` adds frames of C extensions, ``idle`` threads that wait, ``gil`` keeps
    only the holder of the interpreter, ``subprocesses`` adds the children, ``nonblocking`` does not
    pause the process. ``seconds=0``: the stack of every thread now, one sample each, also of those
    that wait. Ctrl-C (in a notebook: interrupt) ends early and keeps what there is; a note says so.

    ``pod="namespace/name"`` profiles a ``container`` of a Kubernetes pod; ``pid`` is then one in
    the container, if given; ``ladder``: further arguments of `ragprof.profiling.pods.attach`.

    Raises AttachError, with the way out, when there is no such process, it is no Python, or it may
    not be read (another user, Yama, capabilities, a container); PodError for a pod.
    """
    if pod is not None:
        from ragprof.profiling import pods

        return pods.attach(
            pod, container=container, pid=pid, seconds=seconds, hz=hz, native=native,
            idle=idle, gil=gil, subprocesses=subprocesses, nonblocking=nonblocking,
            progress=progress, **ladder,
        )  # fmt: skip
    if pid is None or ladder:
        wrong = (
            f"{', '.join(ladder)} belongs to a pod" if ladder else "there is nothing to attach to"
        )
        raise AttachError(f"{wrong}: give pid=…, or pod='namespace/name'")
    options = Options(hz, native, idle, gil, subprocesses, nonblocking)
    check(seconds, options)
    if seconds == 0:
        return pyspy.dump(pid, options)
    with shown_progress(progress) as told:
        return pyspy.record(pid, seconds, options, told)[0]


def check(seconds: float, options: Options) -> None:
    """Raises AttachError for numbers that cannot be."""
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST):
        raise AttachError(f"seconds is between 0 and {LONGEST:g}; correct it")
    if not (math.isfinite(options.hz) and 1 <= options.hz <= 1000):
        raise AttachError("hz is between 1 and 1000; correct it")


@contextlib.contextmanager
def shown_progress(wanted: bool | None = None, text: str = "sampling") -> Iterator[Progress | None]:
    """A bar on stderr; None: only on a terminal."""
    if wanted is None:
        wanted = sys.stderr is not None and sys.stderr.isatty()
    if not wanted:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text)
        yield lambda passed, whole: bar.update(task, completed=passed, total=whole)
