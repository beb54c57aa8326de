"""Runs a program under a tracer: this file is the child's main script, started by its path.

Standard library only, and pyinstrument when that is the engine.
usage: inside.py ENGINE OUT HZ (script | module) NAME ARGUMENTS…
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

TYPE_CHECKING = False  # the program's process shall not pay for `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

_HERE = os.path.abspath(__file__)


def main() -> int:
    """Run the program as `python NAME ARGUMENTS…` would; returns its exit code for `sys.exit`."""
    engine, out, hz, kind, name, *arguments = sys.argv[1:]
    sys.argv[:] = [name, *arguments]
    sys.path[0] = os.getcwd() if kind == "module" else os.path.dirname(os.path.abspath(name))
    run, end = _cprofile(out) if engine == "cprofile" else _pyinstrument(out, float(hz))
    try:
        if kind == "module":
            run(runpy.run_module, name, run_name="__main__", alter_sys=True)
        else:
            run(runpy.run_path, name, run_name="__main__")
    except KeyboardInterrupt as error:
        end()
        _tell(error)
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except SystemExit:
        end()
        raise
    except BaseException as error:  # noqa: BLE001  # as the interpreter ends a program
        end()
        _tell(error)
        return 1
    end()
    return 0


def _cprofile(out: str) -> tuple[Callable[..., Any], Callable[[], None]]:
    import cProfile

    profiler = cProfile.Profile()

    def end() -> None:
        profiler.disable()
        profiler.dump_stats(out)

    return profiler.runcall, end


def _pyinstrument(out: str, hz: float) -> tuple[Callable[..., Any], Callable[[], None]]:
    from pyinstrument import Profiler

    profiler = Profiler(interval=1 / hz, async_mode="disabled")

    def run(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        profiler.start()
        try:
            return function(*arguments, **keywords)
        finally:
            if profiler.is_running:
                profiler.stop()

    def end() -> None:
        if profiler.last_session is not None:
            profiler.last_session.save(out)

    return run, end


def _tell(error: BaseException) -> None:
    """As the interpreter tells of an error, without the frames that run the program."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.abspath(file) != _HERE and "runpy" not in file and "cProfile" not in file:
            break
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


if __name__ == "__main__":
    sys.exit(main())
