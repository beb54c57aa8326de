"""`ragprof record -- CMD…`: record a service until it ends, Ctrl-C, or --duration."""

from __future__ import annotations

import argparse
import importlib.abc
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ragprof.errors import RagprofError

if TYPE_CHECKING:
    from ragprof.capturing.child import Child

NOT_FOUND = 127  # as shells answer
ROWS = ("spans", "logs", "metrics", "samples", "changes")  # tables of the summary
PASSED_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN", "SIGTTOU")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "ragprof record [--out NAME.ragprof] [--duration S] [--metrics URL]... [--service NAME] "
        "[--hz N] [--no-stacks] [--json] (--pid PID | -- CMD…)"
    )
    parser.add_argument("--out", type=Path, help="folder to write (recording-TIME.ragprof)")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument(
        "--metrics", action="append", default=[], metavar="URL", help="metrics page to scrape"
    )
    parser.add_argument("--service", default="", metavar="NAME", help="OTEL_SERVICE_NAME, if unset")
    parser.add_argument("--hz", type=float, default=100, metavar="N", help="stacks per second")
    parser.add_argument("--no-stacks", action="store_true", help="do not sample stacks")
    parser.add_argument("--pid", type=int, help="record a process that runs already")
    parser.add_argument(
        "--json", action="store_true", help="summary as JSON on stdout; CMD's stdout to stderr"
    )
    parser.add_argument("command", nargs="*", metavar="CMD", help="the command, after --")


def run(args: argparse.Namespace) -> int:
    _without_pandas()
    from ragprof.capturing.child import CommandNotFound
    from ragprof.capturing.recorder import Recorder

    if (args.pid is None) == (not args.command):
        raise RagprofError("Give either a command after `--` or a process by --pid.")
    if args.hz <= 0 or args.hz > 1000 or (args.duration is not None and args.duration <= 0):
        raise RagprofError("--hz is between 0 and 1000 and --duration above 0; correct them.")
    missing = _missing(args)  # asked first, so that no empty recording takes the name
    if missing:
        print(f"ragprof record: {missing[1]}", file=sys.stderr)
        return missing[0]
    out = args.out or Path(time.strftime("recording-%Y%m%dT%H%M%S.ragprof"))
    recorder = Recorder(
        out,
        metrics_urls=args.metrics,
        sample_hz=0 if args.no_stacks else args.hz,
        stdout=2 if args.json else 1,
    )
    code, problem = 0, ""
    began = False
    try:
        with _signals() as state, recorder:
            began = True
            try:
                if args.pid is not None:
                    recorder.watch(args.pid)
                    _watch(args.pid, args.duration, state)
                else:
                    child = recorder.start(args.command, service=args.service)
                    code = _follow(child, args.duration, state)
            except CommandNotFound as error:
                code, problem = NOT_FOUND, str(error)
            except RagprofError as error:
                code, problem = 1, str(error)
    except RagprofError as error:  # at the end: the recording could not be closed
        if not began:
            raise
        code, problem = code or 1, str(error)
    taken, refused = recorder.taken(), recorder.refused()
    if args.json:
        rows = {name: taken.get(name, 0) for name in ROWS}
        summary = {"recording": str(out), "exit_code": code, "rows": rows, "refused": refused}
        print(json.dumps(summary | ({"problem": problem} if problem else {})))
    else:
        _tell(out, recorder.children, taken, refused, code)
    if problem:
        print(f"ragprof record: {problem}", file=sys.stderr)
    return code


def _missing(args: argparse.Namespace) -> tuple[int, str] | None:
    """Exit code and message when there is nothing to record."""
    from ragprof.capturing import processes

    if args.pid is not None:
        if processes.read(args.pid) is None:
            return 1, f"No process has the id {args.pid}; look it up with `ps`."
        return None
    name = args.command[0]
    if shutil.which(name) is not None:
        return None
    if os.sep in name and os.path.exists(name):
        return 1, f"{name!r} cannot be started; check that it is executable."
    return NOT_FOUND, f"{name!r} does not exist; check the command after `--` and the PATH."


class _NoPandas(importlib.abc.MetaPathFinder):
    """Hides pandas from the import system."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _without_pandas() -> None:
    """Keep Arrow from loading pandas at its first array: that takes longer than all the rest."""
    import pyarrow as pa

    hidden = _NoPandas()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])  # Arrow asks once; its conversions to pandas ask again
    finally:
        sys.meta_path.remove(hidden)


class _State:
    """Signals that came in, in order."""

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.interrupts = 0


@contextmanager
def _signals() -> Iterator[_State]:
    """Collect signals, to be passed on, instead of dying by them."""
    state = _State()

    def handle(number: int, frame: FrameType | None) -> None:
        state.pending.append(number)

    numbers = [signal.SIGINT, *(getattr(signal, name) for name in PASSED_ON)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(child: Child, duration: float | None, state: _State) -> int:
    """Wait for the child, pass signals on; its exit code as shells give it."""
    until = None if duration is None else time.monotonic() + duration
    while child.wait(0.1) is None:
        while state.pending:
            _pass_on(child, state.pending.pop(0), state)
        if until is not None and time.monotonic() >= until:
            child.stop()
            code = child.returncode or 0
            return 0 if code in _ENDED_BY_US else code
    child.close()
    code = child.returncode or 0
    return 128 - code if code < 0 else code


# How a child ends that we stopped: by the signal, or with the code that stands for it.
_ENDED_BY_US = {
    sign * number + base
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    for sign, base in ((-1, 0), (1, 128))
}


def _pass_on(child: Child, number: int, state: _State) -> None:
    if number != signal.SIGINT:
        child.signal(number)
        return
    # A terminal sends Ctrl-C to the whole group; pressed again it gets stronger.
    state.interrupts += 1
    stronger = {1: signal.SIGINT, 2: signal.SIGTERM}.get(state.interrupts, signal.SIGKILL)
    child.signal(stronger, group=True)


def _watch(pid: int, duration: float | None, state: _State) -> None:
    from ragprof.capturing import processes

    began = processes.read(pid)
    if began is None:
        raise RagprofError(f"No process has the id {pid}; look it up with `ps`.")
    until = None if duration is None else time.monotonic() + duration
    while not state.pending and (until is None or time.monotonic() < until):
        now = processes.read(pid)
        if now is None or now.start_ticks != began.start_ticks or now.state == "Z":
            return
        time.sleep(0.1)


def _tell(out: Path, children: list[Child], taken: dict[str, int], refused: int, code: int) -> None:
    rows = ", ".join(f"{taken.get(name, 0):,} {name}" for name in ROWS)
    print(f"{out}: {rows}, {refused:,} refused", file=sys.stderr)
    if children and not taken.get("spans"):
        print(
            f"no spans came in: {shlex.join(children[0].command)[:80]} is not instrumented with "
            "OpenTelemetry, or got no request; try `opentelemetry-instrument` before it",
            file=sys.stderr,
        )
    if children and code:
        print(f"the command ended with exit code {code}", file=sys.stderr)
