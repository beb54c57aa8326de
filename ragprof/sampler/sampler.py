"""The sampler of one process: a timer whose handler looks at what the main thread is doing."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  # wrapped before it is first used
import os
import sys
import threading
import time
from types import FrameType
from typing import Any

from .awaiting import Suspended
from .blocking import Blocking
from .budget import Budget
from .clocks import thread_cpu_ns
from .loops import Loops, running_loop
from .ownership import Timer
from .pauses import Pauses, Point
from .spans import UNKNOWN, Label, SpanReader
from .spool import Spool
from .stacks import StackTable
from .workers import Workers, current_frames

FLUSH_SECONDS = 0.25
ADAPT_SECONDS = 1.0
LAG_SECONDS = 0.005  # shorter lags are told as the longest of a flush
MAX_ROWS = 20_000  # kept in memory when the disk does not take them

COLUMNS = (
    "time",
    "weight_ns",
    "stack_id",
    "thread",
    "task",
    "state",
    "wait",
    "trace_id",
    "span_id",
)


class Sampler:
    """Samples this process into a file of the folder `spool` from `start` to `stop`.

    `hz` is the rate asked for running code, `budget` the most that sampling may cost, as a share
    of one core. Nothing here raises into the application: what goes wrong ends the sampling, and
    the reason is in the `stats` of the spool.
    """

    def __init__(self, spool: str, hz: float = 100.0, budget: float = 0.01) -> None:
        self._folder = spool
        self._hz = min(max(hz, 1.0), 1000.0)
        self._share = budget
        self._timer = Timer(self._tick, self._stolen, self._before_exec, self._after_fork)
        self._spans = SpanReader()
        self._stacks = StackTable()
        self._loops = Loops()
        self._blocking = Blocking()
        self._suspended = Suspended(self._stacks, self._spans)
        self._workers = Workers(self._spans)
        self._pauses = Pauses()
        self.running = False
        self.disabled = ""
        self._begin()

    def _begin(self) -> None:
        """State of one process: set at the start, and anew in a forked child."""
        self._budget = Budget(self._hz, self._share)
        self._spool: Spool | None = None
        self._pid = os.getpid()
        self._main = threading.get_native_id()
        self._busy = False
        self._rows: list[list[Any]] = []
        self._open_rows: dict[tuple[Any, ...], list[Any]] = {}  # waits, prolonged until stored
        self._points: list[Point] = []
        self._ticks = 0
        self._samples = 0
        self._missed = 0.0
        self._lost = 0
        self._torn = 0
        self._unsampled: set[int] = set()
        now = time.monotonic_ns()
        self._started = self._last_tick = self._last_round = now
        self._last_walk = self._last_flush = self._last_adapt = now
        self._due = self._next_round = now
        self._last_cpu = time.thread_time_ns()
        self._last_place = (0, 0)
        self._threads: dict[int, tuple[int, int, int]] = {}  # CPU time and place, at last look
        self._last_process_cpu = time.process_time_ns()
        self._contended = False  # other threads used up the time since the last round
        self._asked_walk = 0  # when a walk of the tasks was asked for; 0: none is pending
        self._loop: Any = None
        self._longest_lag = 0.0
        self._modules = 0
        self._complete = False

    def start(self) -> bool:
        """Begin; False when the timer has another owner (`disabled` says so)."""
        if self.running:
            return True
        try:
            self._open()
            self.disabled = self._timer.take()
            if self.disabled:
                self._flush(final=True)
                return False
            self._look_around()
            self._learn_modules()
            self._pauses.start()
            self.running = True
            atexit.register(self.stop)
            self._last_tick = self._due = time.monotonic_ns()
            self._last_cpu = time.thread_time_ns()
            self._timer.arm(self._budget.tick_period)
        except Exception as error:  # noqa: BLE001  # the application goes on without us
            self._fail(error)
            return False
        return True

    def stop(self) -> None:
        """End, give the timer back and store what is left."""
        if not self.running:
            return
        self._end("")

    def _end(self, reason: str) -> None:
        self.running = False
        self.disabled = self.disabled or reason
        self._timer.release()
        self._pauses.stop()
        self._workers.unwrap()
        atexit.unregister(self.stop)
        if self._pid == os.getpid():
            self._flush(final=True)

    def _open(self) -> None:
        start_ns = time.time_ns()
        self._spool = Spool(self._folder, self._pid, start_ns)
        self._spool.write(
            [
                {
                    "type": "process",
                    "pid": self._pid,
                    "start_ns": start_ns,
                    "python": sys.version.split()[0],
                    "argv": list(getattr(sys, "orig_argv", sys.argv)),
                    "service": os.environ.get("OTEL_SERVICE_NAME", ""),
                    "hz": self._hz,
                }
            ]
        )

    def _fail(self, error: Exception) -> None:
        """Sampling ends, the application does not."""
        try:
            self._end(f"{type(error).__name__}: {error}")
        except Exception:  # noqa: BLE001  # nothing that goes wrong here is the application's
            self.running = False
            self._timer.disarm()

    # What the timer calls.

    def _tick(self, signum: int, frame: FrameType | None) -> None:
        if not self.running or frame is None:
            return
        if self._busy:  # it came while the tasks are walked: once more, soon
            self._timer.arm(0.001)
            return
        self._busy = True
        cpu = time.thread_time_ns()
        now = time.monotonic_ns()
        try:
            if not self._complete:
                self._look_around()
            self._observe_main(frame, now, cpu)
            self._last_cpu = time.thread_time_ns()
            self._budget.spend_tick((self._last_cpu - cpu) / 1e9)
            if now >= self._next_round:
                self._round(now)
                cpu, self._last_cpu = self._last_cpu, time.thread_time_ns()
                self._budget.spend_round((self._last_cpu - cpu) / 1e9)
        except Exception as error:
            if _is_foreign(error):
                raise
            self._fail(error)
        finally:
            self._busy = False
            if self.running:
                self._arm(now)

    def _arm(self, now: int) -> None:
        """The next tick, on the grid of the period."""
        period = int(self._budget.tick_period * 1e9)
        late = now - self._due
        if late >= period:
            self._missed += late // period
            self._due += late // period * period
        self._due += period
        self._timer.arm((self._due - time.monotonic_ns()) / 1e9)

    def _observe_main(self, frame: FrameType, now: int, cpu: int) -> None:
        elapsed = now - self._last_tick
        used = cpu - self._last_cpu
        self._last_tick = now
        self._ticks += 1
        place, self._last_place = self._last_place, (id(frame), frame.f_lasti)
        loop = running_loop() if self._loops.asyncio is not None else None
        if loop is not self._loop:
            self._loop, self._loops.frame, self._asked_walk = loop, 0, 0
        if loop is not None and used * 2 < elapsed and self._loops.is_idle(frame):
            return  # the loop has nothing to do
        state, wait = self._state(frame, used, elapsed, place == self._last_place)
        if wait == "gil":
            self._points.append([time.time_ns(), "python.gil.wait", (elapsed - used) / 1e9, {}])
        task = self._loops.current_task(loop) if loop is not None else None
        self._add(
            elapsed,
            self._stacks.of_frame(frame, self._loops.boundary, self._loops.frame),
            self._main,
            self._suspended.number(task) if task is not None else 0,
            state,
            wait,
            self._spans.current(),
        )

    def _state(self, frame: FrameType, used: int, elapsed: int, stayed: bool) -> tuple[str, str]:
        """Whether a thread runs or waits, and on what.

        CPU time against wall time since the last look decides; but a look often falls into work
        that began after the last one, so little CPU time alone is no proof. Proof is a primitive
        that waits, having been in the same call all the time, or threads that use up the time.
        """
        if used * 2 >= elapsed:
            return "running", ""
        wait = self._blocking.primitive(frame)
        if wait:
            return "waiting", wait
        called = self._blocking.call(frame)
        if called:
            return "waiting", called
        if used * 4 >= elapsed:
            return "running", ""
        late = elapsed > 2.5e9 * self._budget.tick_period
        if late:
            wait = self._blocking.entered(frame)
            if wait:
                return "waiting", wait
        if called is not None and (stayed or late):
            return "waiting", ""
        # It goes on in small steps, or not at all, while others use up the time.
        return ("waiting", "gil") if self._contended else ("running", "")

    def _add(
        self, weight: int, stack: int, thread: int, task: int, state: str, wait: str, label: Label
    ) -> None:
        """Keep a sample; one that goes on waiting as before makes its row longer instead."""
        if not stack:
            return
        self._samples += 1
        if state != "running":
            key = (thread, task, stack, wait, label)
            row = self._open_rows.get(key)
            if row is not None:
                row[0] = time.time_ns()
                row[1] += weight
                return
        if len(self._rows) >= MAX_ROWS:
            self._lost += 1
            return
        row = [time.time_ns(), weight, stack, thread, task, state, wait, label[0], label[1]]
        self._rows.append(row)
        if state != "running":
            self._open_rows[key] = row

    # The second rate: worker threads here, suspended tasks in a callback inside the loop.

    def _round(self, now: int) -> None:
        if len(threading._active) > 1:  # type: ignore[attr-defined]
            self._observe_threads(now)
        else:
            self._contended = False
        self._last_round = now
        if self._loop is not None and not self._asked_walk:
            self._asked_walk = now
            try:
                self._loop.call_soon_threadsafe(self._walk, self._loop)
            except RuntimeError:  # it is closing
                self._asked_walk = 0
        if now - self._last_flush >= FLUSH_SECONDS * 1e9:
            if len(sys.modules) != self._modules:
                self._learn_modules()
            self._flush()
        self._next_round = now + int(min(self._budget.round_period, FLUSH_SECONDS) * 1e9)

    def _observe_threads(self, now: int) -> None:
        elapsed = now - self._last_round
        known = {
            thread.ident: thread.native_id
            for thread in list(threading._active.values())  # type: ignore[attr-defined]
        }
        me = threading.get_ident()
        before = {ident: self._workers.now(ident) for ident in known if ident is not None}
        frames = current_frames()
        looked: dict[int, tuple[int, int, int]] = {}
        process_cpu = time.process_time_ns()
        self._contended = (process_cpu - self._last_process_cpu) * 4 >= elapsed * 3
        self._last_process_cpu = process_cpu
        for ident, frame in frames.items():
            if ident == me:
                continue
            native = known.get(ident)
            used_now = thread_cpu_ns(native) if native else -1
            if native is None or used_now < 0:
                self._unsampled.add(ident)
                continue
            place = (id(frame), frame.f_lasti)
            looked[native] = (used_now, *place)
            if self._workers.is_idle(frame):
                continue
            last = self._threads.get(native, (used_now, 0, 0))
            work = before.get(ident, (None, UNKNOWN))
            label = work[1]
            state, wait = self._state(frame, used_now - last[0], elapsed, place == last[1:])
            if state == "waiting" and not label[0]:
                continue
            stack = self._stacks.of_frame(frame, self._loops.boundary)
            if frame.f_lasti != place[1] or self._workers.now(ident) != work:
                self._torn += 1  # the thread went on meanwhile: stack and label may not fit
                continue
            self._add(elapsed, stack, native, 0, state, wait, label)
        self._threads = looked

    def _walk(self, loop: Any) -> None:
        """In the loop: lag, and the tasks that are suspended."""
        if not self.running or self._busy:
            self._asked_walk = 0
            return
        self._busy = True
        began = time.thread_time_ns()
        try:
            now = time.monotonic_ns()
            lag = (now - self._asked_walk) / 1e9 if self._asked_walk else 0.0
            self._asked_walk = 0
            self._longest_lag = max(self._longest_lag, lag)
            if lag >= LAG_SECONDS:
                self._points.append([time.time_ns(), "python.event_loop.lag", lag, {}])
            self._loops.note_frame(loop, sys._getframe().f_back)
            elapsed = now - self._last_walk
            self._last_walk = now
            fresh = min(elapsed, int(self._budget.round_period * 1e9))
            for task, stack, wait, label, before in self._suspended.walk(self._loops.tasks(loop)):
                weight = elapsed if before else fresh
                self._add(weight, stack, self._main, task, "awaiting", wait, label)
        except Exception as error:
            if _is_foreign(error):
                raise
            self._fail(error)
        finally:
            self._busy = False
            self._budget.spend_round((time.thread_time_ns() - began) / 1e9)

    def _look_around(self) -> None:
        """Until asyncio, OpenTelemetry and anyio are loaded: are they now?"""
        known = self._loops.asyncio is not None
        if self._loops.ready() and not known:
            self._learn_modules()
        self._spans.ready()
        self._workers.wrap()
        self._complete = self._workers.complete and self._loops.asyncio is not None

    def _learn_modules(self) -> None:
        """Modules have been loaded: take in their primitives."""
        self._modules = len(sys.modules)
        self._blocking.refresh()
        self._suspended.refresh()

    # The spool.

    def _flush(self, final: bool = False) -> None:
        now = time.monotonic_ns()
        self._last_flush = now
        if self._longest_lag:
            if self._longest_lag < LAG_SECONDS:
                self._points.append(
                    [time.time_ns(), "python.event_loop.lag", self._longest_lag, {}]
                )
            self._longest_lag = 0.0
        self._points.extend(self._pauses.drain())
        lines: list[dict[str, Any]] = []
        if self._stacks.new_frames:
            lines.append({"type": "frames", "rows": self._stacks.new_frames})
        if self._stacks.new_stacks:
            lines.append({"type": "stacks", "rows": self._stacks.new_stacks})
        if self._rows:
            columns = dict(zip(COLUMNS, zip(*self._rows, strict=True), strict=True))
            lines.append({"type": "samples", "columns": columns})
        if self._points:
            lines.append({"type": "points", "rows": self._points})
        if final or now - self._last_adapt >= ADAPT_SECONDS * 1e9:
            self._budget.adapt((now - self._last_adapt) / 1e9)
            self._last_adapt = now
            lines.append(self._stats(now))
        if not lines or self._spool is None:
            return
        if self._spool.write(lines):
            self._stacks.new_frames = []
            self._stacks.new_stacks = []
            self._rows = []
            self._open_rows.clear()
            self._points = []
        if final:
            self._spool.close()
            self._spool = None

    def _stats(self, now: int) -> dict[str, Any]:
        seconds = max((now - self._started) / 1e9, 1e-9)
        return {
            "type": "stats",
            "time": time.time_ns(),
            "asked_hz": self._hz,
            "effective_hz": round(self._ticks / seconds, 3),
            "round_hz": round(1 / self._budget.round_period, 3),
            "samples": self._samples,
            "missed": int(self._missed),
            "lost": self._lost,
            "torn": self._torn,
            "cost_seconds": round(self._budget.total, 6),
            "cpu_seconds": round(time.process_time(), 6),
            "elapsed_seconds": round(seconds, 6),
            "unsampled_threads": len(self._unsampled),
            "disabled": self.disabled,
        }

    # What happens to the process.

    def _stolen(self, reason: str) -> None:
        self._end(reason)

    def _before_exec(self) -> None:
        if self._pid == os.getpid() and not self._busy:
            self._flush(final=False)

    def _after_fork(self) -> None:
        """In a forked child: the parent's file and rows are the parent's."""
        if not self.running:
            return
        try:
            if self._spool is not None:
                self._spool.close()
            self._stacks.forget()
            self._suspended.forget()
            self._workers.forget()
            self._pauses.drain()
            self._begin()
            self._open()
            self._learn_modules()
            self._timer.arm(self._budget.tick_period)
        except Exception as error:  # noqa: BLE001  # the application goes on without us
            self._fail(error)


def _is_foreign(error: Exception) -> bool:
    """Whether an exception came from a signal handler of the application that ran in ours."""
    here = os.path.dirname(__file__)
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.dirname(file) != here and os.sep in file and not _is_stdlib(file):
            return True
        trace = trace.tb_next
    return False


def _is_stdlib(file: str) -> bool:
    from .stacks import origin_of

    return origin_of(file) == "stdlib"


_sampler: Sampler | None = None


def start(spool: str, hz: float = 100.0, budget: float = 0.01) -> Sampler:
    """Start the sampler of this process, or return the one that runs already."""
    global _sampler
    if _sampler is None or not _sampler.running:
        _sampler = Sampler(spool, hz, budget)
        _sampler.start()
    return _sampler


def stop() -> None:
    """Stop the sampler of this process, if one runs."""
    if _sampler is not None:
        _sampler.stop()
