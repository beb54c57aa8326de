"""Runs a parameterised notebook with papermill, and says itself how that went."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from ragprof.errors import RagprofError
from ragprof.reports import catalogue, html, kernel, parameters, status

NOTEBOOK, PAGE = "report.ipynb", "report.html"
TIMEOUT = 900.0  # seconds

Progress = Callable[[int, int, str], None]
"""Called with the number of the cell that begins, the number of cells, and what the cell is."""


class ReportError(RagprofError):
    """A report that was begun and did not end well: a failing cell, a timeout, a signal.

    `status` is what status.json says.
    """

    def __init__(self, message: str, status: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP came in: ends the run as Ctrl-C does."""


@dataclass
class _Run:
    """What the engine sees and tells: the cell that runs and the time that is left."""

    deadline: float
    cell_timeout: float
    told: Callable[[int, int, str], None]
    kernels: type[Any]
    cell: int = -1
    line: str = ""
    kernel_pids: list[int] = field(default_factory=list)

    def begin(self, index: int, cells: list[Any]) -> None:
        self.cell, self.line = index, first_line(cells[index].source)
        self.told(index, len(cells), self.line)

    def seconds(self, cell: Any) -> float:
        return max(0.01, min(self.cell_timeout, self.deadline - time.monotonic()))


def run(
    notebook: str | Path,
    out: str | Path,
    values: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
    cell_timeout: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run `notebook` (a path, or the name of a bundled one) with `values`; returns report.html.

    Leaves report.ipynb, report.html and status.json in `out`, also after a failure. `timeout` is
    for the whole run, `cell_timeout` for each cell, both in seconds.

    Raises NotebookError and ParameterError before anything runs, and ReportError for a failing
    cell, a timeout or a kernel that died; Ctrl-C and SIGTERM leave the status and no kernel.
    """
    entry = catalogue.find(notebook)
    checked = parameters.check(entry.parameters, values or {}, entry.name)
    folder = Path(out).absolute()
    began = time.monotonic()
    with _folder(folder), _signals():
        state: dict[str, Any] = {
            "state": "running",
            "notebook": entry.name,
            "title": entry.title,
            "path": str(entry.path),
            "parameters": checked,
            "timeout_seconds": timeout,
            "started": _now(),
            "ended": None,
            "seconds": None,
            "pid": os.getpid(),
            "pid_began": status.began(os.getpid()),
            "cell": None,
            "error": None,
        }

        def told(index: int, count: int, line: str) -> None:
            state["cell"] = {"number": index + 1, "of": count, "line": line}
            status.write(folder, state)
            if progress:
                progress(index + 1, count, line)

        status.write(folder, state)
        for name in (NOTEBOOK, PAGE):  # what an earlier run left would pass for this one's
            (folder / name).unlink(missing_ok=True)
        try:
            _execute(entry, folder / NOTEBOOK, checked, timeout, cell_timeout or timeout, told)
            state["state"] = "ok"
        except ReportError as error:
            state.update(state=error.status["state"], error=error.status["error"])
            _finish(folder, state, began)
            raise ReportError(_with_files(str(error), folder), state) from None
        except BaseException as error:
            stopped = "SIGTERM or SIGHUP" if isinstance(error, Stopped) else "Ctrl-C"
            interrupted = isinstance(error, KeyboardInterrupt)
            message = f"stopped by {stopped}" if interrupted else str(error)
            state.update(
                state="failed", error={"name": type(error).__name__, "message": message[:2000]}
            )
            _finish(folder, state, began)
            raise
        _finish(folder, state, began)
    return folder / PAGE


def first_line(source: str) -> str:
    """The first line of a cell that is code, else the first that is not blank."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("#")), (lines or [""])[0])[:120]


def _finish(folder: Path, state: dict[str, Any], began: float) -> None:
    state["ended"] = _now()
    state["seconds"] = round(time.monotonic() - began, 3)
    if (folder / NOTEBOOK).is_file():
        page = html.page(catalogue.load(folder / NOTEBOOK), state)
        part = folder / f".{PAGE}.{os.getpid()}"
        part.write_text(page, "utf-8")
        part.replace(folder / PAGE)
    status.write(folder, state)


def _with_files(message: str, folder: Path) -> str:
    kept = folder / NOTEBOOK
    return f"{message}. What ran until then is in {kept}" if kept.is_file() else message


def _execute(
    entry: catalogue.Entry,
    target: Path,
    values: dict[str, Any],
    timeout: float,
    cell_timeout: float,
    told: Callable[[int, int, str], None],
) -> None:
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from ragprof.reports import engine

    engine.register()
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # we say what went wrong
    files = Path(tempfile.mkdtemp(prefix="ragprof-kernel-"))
    watched = _Run(
        time.monotonic() + timeout, cell_timeout, told, kernel.manager_class(files, target.parent)
    )
    try:
        papermill.execute_notebook(
            _literal(entry.path),
            _literal(target),
            values,
            engine_name=engine.NAME,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=max(1, int(min(timeout, 120))),
            watched=watched,
        )
    except PapermillExecutionError as error:
        raise _failed(
            watched, "failed", f"failed: {error.ename}: {error.evalue}", error.ename, error.evalue
        ) from None
    except (CellTimeoutError, TimeoutError):
        whole = time.monotonic() >= watched.deadline - 0.05
        limit = f"the report's {timeout:g} s" if whole else f"the cell's {cell_timeout:g} s"
        raise _failed(
            watched, "timeout", f"ran past {limit}; allow more with --timeout", "Timeout", limit
        ) from None
    except DeadKernelError:
        text = "killed the kernel (out of memory, or a crash in native code)"
        raise _failed(watched, "failed", text, "DeadKernel", text) from None
    except RuntimeError as error:
        if watched.cell >= 0:
            raise
        text = f"the kernel did not start: {error}"
        raise ReportError(
            f"{entry.name}: {text}",
            {"state": "failed", "error": {"name": "Kernel", "message": text, "cell": None}},
        ) from None
    finally:
        kernel.end(watched.kernels.kernels)
        shutil.rmtree(files, ignore_errors=True)


def _failed(run: _Run, state: str, text: str, name: str, message: str) -> ReportError:
    cell = {"number": run.cell + 1, "line": run.line}
    error = {"name": name, "message": message[:2000], "cell": cell}
    return ReportError(
        f"cell {run.cell + 1} (`{run.line}`) {text[:500]}", {"state": state, "error": error}
    )


def _literal(path: Path) -> str:
    """A path for papermill, which fills in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The folder, made if need be and held against a second run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RagprofError(
            f"{folder} cannot be used for a report: {error.strerror}; choose another --out"
        ) from None
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RagprofError(
                f"another report is being written into {folder}; choose another --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        if not os.access(folder, os.W_OK):
            raise RagprofError(f"{folder} is read-only; choose another --out")
        yield
    finally:
        os.close(held)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the run as Ctrl-C does, so that no kernel stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show_progress(index: int, count: int, line: str) -> None:
    """Progress on stderr: one changing line in a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if index == count else ""
        print(f"\r\x1b[Kreport: cell {index} of {count}  {line[:60]}", end=end, file=sys.stderr)
        sys.stderr.flush()
