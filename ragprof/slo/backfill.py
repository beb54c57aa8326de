"""A Prometheus started on a Recording's data, so that Prometheus itself evaluates expressions.

The points become blocks by ``promtool tsdb create-blocks-from openmetrics``. Blocks have no
staleness markers, so staleness is inferred: a series counts as gone `STALE` scrape intervals after
its last point (``--query.lookback-delta``), where a live Prometheus would have marked it.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from ragprof.errors import RagprofError
from ragprof.monitoring.promql import Selector, quoted
from ragprof.slo.counters import scrape_interval
from ragprof.slo.prometheus import Prometheus, Row
from ragprof.slo.samples import recorded
from ragprof.sources.source import SourceError

if TYPE_CHECKING:
    from ragprof.recording import Recording

STALE = 1.5
"""Scrape intervals without a point after which a series is stale."""
STARTS = 120.0  # seconds until Prometheus must answer, on a loaded machine
_LIBC = ctypes.CDLL(None)
_KEEP = "100y"  # retention: a Recording may be older than Prometheus would keep


class BackfillError(RagprofError):
    """Prometheus is not installed, or does not take the Recording's data."""


@dataclass(frozen=True)
class Backfilled:
    """A running Prometheus with the data of a Recording; times in s since 1970."""

    url: str
    since: float
    until: float
    interval: float
    lookback: float


@contextmanager
def prometheus_on(recording: Recording, metrics: Iterable[str]) -> Iterator[Backfilled]:
    """Start a Prometheus with the series of some metrics; it ends with the context.

    Raises BackfillError without the programs, without such series, and when it does not start.
    """
    promtool, program = _program("promtool"), _program("prometheus")
    wanted = sorted({*metrics, "up"})
    rows = recorded(recording, [Selector(name) for name in wanted], 0.0, math.inf)
    if not any(found for each, found in rows.items() if each.metric != "up"):
        raise BackfillError(
            f"{recording.path} has none of the metrics {', '.join(wanted)}; record with --metrics "
            "URL, or name other rules"
        )
    times = [row[1] for found in rows.values() for row in found]
    interval = scrape_interval(times, default=1.0)
    lookback = max(STALE * interval, 0.001)
    folder = Path(tempfile.mkdtemp(prefix="ragprof-prometheus-"))
    try:
        with (folder / "points.txt").open("w", encoding="utf-8") as file:
            write_openmetrics(file, rows)
        data = folder / "data"
        data.mkdir()
        made = subprocess.run(
            [promtool, "tsdb", "create-blocks-from", "openmetrics",
             str(folder / "points.txt"), str(data)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        (folder / "points.txt").unlink()
        if made.returncode:
            raise BackfillError(
                f"promtool does not take the points of {recording.path}: "
                f"{made.stderr.strip()[-300:]}; report this"
            )
        begin, end = min(each[0] for each in times), max(each[-1] for each in times)
        with _started(program, folder, lookback) as url:
            yield Backfilled(url, float(begin), float(end), interval, lookback)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_openmetrics(file: TextIO, rows: dict[Selector, list[Row]]) -> None:
    """Points as OpenMetrics text without types, series by series, times in seconds."""
    for each, found in rows.items():
        for labels, times, values in found:
            inside = ",".join(
                f"{_label(name)}={quoted(value)}"
                for name, value in sorted(labels.items())
                if name != "__name__"
            )
            head = f"{each.metric}{{{inside}}}"
            # Two points at one time would be refused: the later one counts.
            last = np.append(np.diff(np.round(times, 3)) > 0, True)
            for time_, value in zip(times[last], values[last], strict=True):
                file.write(f"{head} {_value(value)} {time_:.3f}\n")
    file.write("# EOF\n")


@contextmanager
def _started(program: str, folder: Path, lookback: float) -> Iterator[str]:
    (folder / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", f"--storage.tsdb.retention.time={_KEEP}",
        f"--query.lookback-delta={math.ceil(lookback * 1000)}ms",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the terminal's Ctrl-C is for us
            preexec_fn=_end_with_parent,
        )
    try:
        deadline = time.monotonic() + STARTS
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                text = (folder / "log").read_text(errors="replace")[-300:]
                raise BackfillError(f"Prometheus did not start: {text.strip()}; see its version")
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _end_with_parent() -> None:
    """Nobody else knows of this server: it ends with us, however we end."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _answers(url: str) -> bool:
    try:
        with Prometheus(url, retries=0) as prometheus:
            prometheus.query("1", time.time())
    except SourceError:
        return False
    return True


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BackfillError(
            f"{name} is not on the PATH; rules on a recording are evaluated by Prometheus: install "
            "it (on Debian: apt-get install prometheus)"
        )
    return found


def _label(name: str) -> str:
    return "".join(
        each if each.isascii() and (each.isalnum() or each == "_") else "_" for each in name
    )


def _value(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
