"""The sampler of one process: timers whose handler looks at what the main thread is doing.

Two clocks tick. The process's CPU time, at the rate asked: such a look sees what runs, and its
sample weighs the CPU time that the thread used since the last one. Wall time, at the second rate:
such a look sees what the thread waits in, and its sample weighs the wall time since the last one.
Above `FINEST_CPU_HZ`, or where ITIMER_PROF is somebody else's, wall time alone ticks, at the rate
asked, and every look sees both.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  # wrapped before it is first used
import os
import signal
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any

from .awaiting import Suspended
from .blocking import Blocking
from .budget import ROUND_SECONDS, Budget
from .clocks import thread_cpu_ns
from .lockwaits import LockWaits
from .loops import Loops
from .ownership import Timers
from .pauses import Pauses, Point
from .rates import Rates
from .sinks import Line, Sink, Sinks
from .spans import UNKNOWN, Label, SpanReader
from .spool import Spool
from .stacks import StackTable
from .workers import Workers, current_frames

FLUSH_SECONDS = 0.45
ADAPT_SECONDS = 1.0
LAG_SECONDS = 0.005  # shorter lags are told as the longest of a flush
CHEAP_NS = 150_000  # wall time below which a handler's cost is not worth asking a CPU clock
STILL_NS = 500_000  # CPU time between two looks that is no work: signals and our own callbacks
LATE_NS = 15_000_000  # a tick of wall time that comes so much later was held up
KNOWN_NS = 50_000_000  # how long it is taken for known whose call a select is
REST_AFTER = 0.5  # seconds without work or a request in flight, then there are fewer rounds
REST_ROUND = 0.2
FINEST_CPU_HZ = 100.0  # the kernel looks at CPU timers every 1 to 10 ms (CONFIG_HZ)
LOOKS = 20  # ticks in which modules that were begun to be imported should be complete
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

    Without a folder ("") only the sinks that `join` are given what is sampled. `hz` is the rate
    asked for running code, `budget` the most that sampling may cost, as a share of one core.
    Nothing here raises into the application: what goes wrong ends the sampling, and the reason is
    in the `stats` of the spool.
    """

    def __init__(self, spool: str, hz: float = 100.0, budget: float = 0.01) -> None:
        self._folder = spool
        self._hz = min(max(hz, 1.0), 1000.0)
        self._share = budget
        self._timers = Timers(
            self._tick, self._stolen, self._cpu_stolen, self._before_exec, self._after_fork
        )
        self._spans = SpanReader()
        self._stacks = StackTable()
        self._loops = Loops()
        self._blocking = Blocking()
        self._suspended = Suspended(self._stacks, self._spans)
        self._workers = Workers(self._spans)
        self._lockwaits = LockWaits()
        self._pauses = Pauses()
        self.running = False
        self.disabled = ""
        self._begin()

    def _begin(self) -> None:
        """State of one process: set at the start, and anew in a forked child."""
        self._budget = Budget(self._hz, self._share)
        self._spool: Spool | None = None
        self._sinks = Sinks()
        self._retiring = False
        self._pid = os.getpid()
        self._main = threading.get_native_id()
        self._busy = False
        self._rows: list[list[Any]] = []
        self._open_rows: dict[tuple[Any, ...], list[Any]] = {}  # waits, prolonged until stored
        self._points: list[Point] = []
        self._samples = 0
        self._lost = 0
        self._torn = 0
        self._unsampled: set[int] = set()
        now = time.monotonic_ns()
        self._last_look = self._last_wall = self._last_round = now
        self._last_walk = self._last_adapt = now
        self._next_round = self._next_flush = now
        self._last_cpu = time.thread_time_ns()
        self._last_place = (0, 0)
        self._threads: dict[int, tuple[int, int, int]] = {}  # CPU time and place, at last look
        self._last_process_cpu = time.process_time_ns()
        self._last_main_cpu = self._last_cpu
        self._busy_at = now
        self._unseen = 0  # ns of CPU time of the main thread that no sample stands for yet
        self._idle_frame = 0  # the loop's own, if it was idle at the last look
        self._idle_code: CodeType | None = None
        self._known_until = 0  # until when a frame of that code is taken for the loop's own
        self._resting = False
        self._unpaid = 0  # ns of CPU time that the budget has not heard of
        self._contended = False  # other threads used up the time since the last round
        self._asked_walk = 0  # when a walk of the tasks was asked for; 0: none is pending
        self._loop: Any = None
        self._longest_lag = 0.0
        self._flushes = 1
        self._period = self._budget.tick_period
        self._rates = Rates(self._hz, self._timers.by_cpu)
        self._modules = self._modules_seen = 0
        self._looks = 0
        self._complete = False

    def start(self) -> bool:
        """Begin; False when the timer has another owner (`disabled` says so)."""
        if self.running:
            return True
        try:
            self._open()
            self.disabled = self._timers.take(by_cpu=self._hz <= FINEST_CPU_HZ)
            if self.disabled:
                self._flush(final=True)
                return False
            self._look_around()
            self._learn_modules()
            self._pauses.start()
            self._lockwaits.wrap()
            self._blocking.skip(self._lockwaits.codes)
            self.running = True
            atexit.register(self.stop)
            self._last_look = self._last_wall = time.monotonic_ns()
            self._last_cpu = time.thread_time_ns()
            self._arm()
        except Exception as error:  # noqa: BLE001  # the application goes on without us
            self._fail(error)
            return False
        return True

    def stop(self) -> None:
        """End, give the timer back and store what is left."""
        if not self.running:
            return
        self._end("")

    def join(self, sink: Sink, seconds: float = 2.0) -> None:
        """Give `sink` what is sampled from now on; waits for the next tick, at most `seconds`."""
        self._settle_soon(self._sinks.ask_in(sink), seconds)

    def leave(self, sink: Sink, seconds: float = 2.0) -> bool:
        """Give `sink` what is left for it, then nothing more; False when no tick came in time."""
        return self._settle_soon(self._sinks.ask_out(sink), seconds)

    @property
    def sinks(self) -> list[Sink]:
        """The sinks that are in."""
        return list(self._sinks.present)

    @property
    def suspended(self) -> Suspended:
        """What knows the numbers of tasks."""
        return self._suspended

    def thread_label(self, ident: int) -> Label:
        """The span that a worker thread works for; unknown when that is not known."""
        return self._workers.label(ident)

    def flush_soon(self) -> None:
        """Give out at the next tick what was sampled so far."""
        self._next_flush = 0

    def retire(self) -> None:
        """End at the next tick, unless a sink has come by then; from any thread."""
        self._retiring = True
        self._next_flush = 0

    def _settle_soon(self, done: threading.Event, seconds: float) -> bool:
        self._next_flush = 0
        if not self.running:
            self._sinks.close()
        elif threading.get_ident() == threading.main_thread().ident and not self._busy:
            self._busy = True  # a tick that comes now looks again in a millisecond
            try:
                self._flush()
            finally:
                self._busy = False
        return done.wait(seconds)

    def _end(self, reason: str) -> None:
        self.running = False
        self.disabled = self.disabled or reason
        self._lockwaits.unwrap()
        self._timers.release()
        self._pauses.stop()
        self._workers.unwrap()
        atexit.unregister(self.stop)
        if self._pid == os.getpid():
            self._flush(final=True)

    def _open(self) -> None:
        start_ns = time.time_ns()
        self._process: Line = {
            "type": "process",
            "pid": self._pid,
            "start_ns": start_ns,
            "python": sys.version.split()[0],
            "argv": list(getattr(sys, "orig_argv", sys.argv)),
            "service": os.environ.get("OTEL_SERVICE_NAME", ""),
            "hz": self._hz,
        }
        if self._folder:
            self._spool = Spool(self._folder, self._pid, start_ns)
            self._spool.write([self._process])

    def _fail(self, error: Exception) -> None:
        """Sampling ends, the application does not."""
        try:
            self._end(f"{type(error).__name__}: {error}")
        except Exception:  # noqa: BLE001  # nothing that goes wrong here is the application's
            self.running = False
            self._timers.disarm()

    def _arm(self) -> None:
        """Both clocks, at their present periods."""
        by_cpu = self._timers.by_cpu
        self._wall_period = max(ROUND_SECONDS, self._period) if by_cpu else self._period
        self._rates.begin(by_cpu, self._period)
        self._timers.arm_cpu(self._period)
        self._timers.arm(self._wall_period)

    # What the timers call.

    def _tick(self, signum: int, frame: FrameType | None) -> None:
        if not self.running or frame is None:
            return
        by_cpu = signum != signal.SIGALRM
        if self._busy:  # it came while the tasks are walked: once more, soon
            if not by_cpu:
                self._timers.arm(self._wall_period, 0.001)
            return
        self._busy = True
        now = time.monotonic_ns()
        cpu = time.thread_time_ns()
        try:
            self._rates.looks += 1
            self._rates.cpu_looks += by_cpu
            # What a look touches first has left the caches: one that would see what the last one
            # saw ends here.
            if (
                id(frame) == self._idle_frame
                and frame.f_code is self._idle_code
                and now < self._known_until
                and cpu - self._last_cpu < STILL_NS
            ):
                self._last_look = now
                if not by_cpu:
                    self._last_wall = now
                spent = time.monotonic_ns() - now
                self._last_cpu = cpu + spent
                self._unpaid += spent
                return
            if not self._complete:
                self._look_soon()
            self._observe_main(frame, now, cpu, by_cpu)
            # Wall time is never less than CPU time, and is asked for free.
            spent = time.monotonic_ns() - now
            if spent > CHEAP_NS:
                spent = time.thread_time_ns() - cpu
            self._last_cpu += spent
            self._unpaid += spent
            if now >= self._next_round:
                self._round(now)
            if now >= self._next_flush:
                self._keep_up()
        except Exception as error:
            if _is_foreign(error):
                raise
            self._fail(error)
        finally:
            self._busy = False

    def _observe_main(self, frame: FrameType, now: int, cpu: int, by_cpu: bool) -> None:
        """One look at the main thread.

        Time since the last look is taken by the clock that it belongs to: what ran by a tick of
        CPU time, what waited by one of wall time.
        """
        elapsed, used = now - self._last_look, cpu - self._last_cpu
        passed, late = 0, False
        if not by_cpu:
            passed, self._last_wall = now - self._last_wall, now
            late = passed > self._wall_period * 1e9 + LATE_NS
        loops = self._loops
        loop = loops.running()
        if loop is not self._loop:
            self._loop, loops.frame, self._asked_walk = loop, 0, 0
        alone = len(threading._active) == 1  # type: ignore[attr-defined]
        if used >= STILL_NS:
            self._busy_at = now
        if loop is not None and (by_cpu or used * 2 < elapsed) and self._is_idle(frame, loop, now):
            self._take(now, cpu, used)
            if by_cpu and alone:
                self._unseen = 0  # the loop's own, which is not recorded
            self._idle_frame = id(frame)
            return  # the loop has nothing to do
        self._idle_frame = 0
        self._busy_at = now
        if self._resting:
            self._resting = False
            self._next_round = self._last_round + int(self._budget.round_period * 1e9)
        place, self._last_place = self._last_place, (id(frame), frame.f_lasti)
        if by_cpu and alone:
            state, wait = "running", ""  # nobody else can have made this clock tick
        else:
            stayed = place == self._last_place
            state, wait = self._state(frame, used, elapsed, stayed, late)
        running = state == "running"
        if self._timers.by_cpu and running is not by_cpu:
            return  # the other clock's
        self._take(now, cpu, used)
        weight = passed
        if by_cpu:
            weight, self._unseen = self._unseen, 0
        if wait == "gil":
            self._points.append([time.time_ns(), "python.gil.wait", (elapsed - used) / 1e9, {}])
        task = loops.current_task(loop) if loop is not None else None
        self._add(
            weight,
            self._stacks.of_frame(frame, loops.boundary, loops.frame),
            self._main,
            self._suspended.number(task) if task is not None else 0,
            state,
            wait,
            self._spans.current(),
        )

    def _take(self, now: int, cpu: int, used: int) -> None:
        self._unseen += used
        self._last_look, self._last_cpu = now, cpu

    def _is_idle(self, frame: FrameType, loop: Any, now: int) -> bool:
        """Whether the loop itself has the thread; asking whose call a select is, is dear."""
        loops = self._loops
        if frame.f_code is self._idle_code and now < self._known_until:
            return loops.current_task(loop) is None
        if not loops.is_idle(frame):
            return False
        self._idle_code = frame.f_code
        self._known_until = min(self._next_round, self._next_flush, now + KNOWN_NS)
        return True

    def _state(
        self, frame: FrameType, used: int, elapsed: int, stayed: bool, late: bool
    ) -> tuple[str, str]:
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
        if late:
            wait = self._blocking.entered(frame)
            if wait:
                return "waiting", wait
        # A call that waits uses next to nothing; one that runs on a busy host, some of the time.
        if called is not None and (stayed or late) and used * 16 < elapsed:
            return "waiting", ""
        # It goes on in small steps, or not at all, while others use up the time.
        return ("waiting", "gil") if self._contended else ("running", "")

    def _add(
        self, weight: int, stack: int, thread: int, task: int, state: str, wait: str, label: Label
    ) -> list[Any] | None:
        """Keep a sample and return its row; one that waits on makes its row longer instead."""
        if not stack:
            return None
        self._samples += 1
        if state != "running":
            key = (thread, task, stack, wait, label)
            row = self._open_rows.get(key)
            if row is not None:
                row[0] = time.time_ns()
                row[1] += weight
                return row
        if len(self._rows) >= MAX_ROWS:
            self._lost += 1
            return None
        row = [time.time_ns(), weight, stack, thread, task, state, wait, *label]
        self._rows.append(row)
        if state != "running":
            self._open_rows[key] = row
        return row

    # The second rate: worker threads here, suspended tasks in a callback inside the loop.

    def _round(self, now: int) -> None:
        cpu = time.thread_time_ns()
        self._pay()
        if len(threading._active) > 1:  # type: ignore[attr-defined]
            self._observe_threads(now, cpu)
        else:
            self._contended = False
        self._last_round = now
        if self._loop is not None and not self._asked_walk:
            self._asked_walk = now
            try:
                self._loop.call_soon_threadsafe(self._walk, self._loop)
            except RuntimeError:  # it is closing
                self._asked_walk = 0
        spent = time.thread_time_ns() - cpu
        self._last_cpu += spent
        period = self._budget.spend_round(spent / 1e9, begins=True)
        self._resting = now - self._busy_at > REST_AFTER * 1e9
        if self._resting:
            period = max(period, REST_ROUND)
        self._next_round = now + int(period * 1e9)

    def _pay(self) -> None:
        self._budget.spend_tick(self._unpaid / 1e9)
        self._unpaid = 0

    def _keep_up(self) -> None:
        """What is due twice a second: new modules, the spool, the period of ticks."""
        cpu = time.thread_time_ns()
        if not self._complete or len(sys.modules) != self._modules:
            self._look_around()
            if len(sys.modules) != self._modules:
                self._learn_modules()
        learnt = time.thread_time_ns()
        self._budget.spend_setup((learnt - cpu) / 1e9)
        self._pay()
        self._flush()
        if self._retiring and not self._sinks.present:
            self._end("")
            return
        self._retiring = False
        done = time.thread_time_ns()
        self._last_cpu += done - cpu
        self._budget.spend_tick((done - learnt) / 1e9)
        if self._budget.tick_period != self._period:
            self._period = self._budget.tick_period
            self._arm()

    def _observe_threads(self, now: int, cpu: int) -> None:
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
        used = process_cpu - self._last_process_cpu
        self._contended = used * 4 >= elapsed * 3
        if used - (cpu - self._last_main_cpu) >= STILL_NS:
            self._busy_at = now
        self._last_process_cpu, self._last_main_cpu = process_cpu, cpu
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
            stayed = place == last[1:]
            state, wait = self._state(frame, used_now - last[0], elapsed, stayed, late=True)
            if state == "waiting" and not label[0]:
                continue
            stack = self._stacks.of_frame(frame, self._loops.boundary)
            if frame.f_lasti != place[1] or self._workers.now(ident) != work:
                self._torn += 1  # the thread went on meanwhile: stack and label may not fit
                continue
            self._add(elapsed, stack, native, 0, state, wait, label)
            if label[0]:
                self._busy_at = now
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
            elapsed, self._last_walk = now - self._last_walk, now
            fresh = min(elapsed, int(self._budget.round_period * 1e9))
            self._samples += self._suspended.walk(
                self._loops.tasks(loop), elapsed, fresh, self._flushes, self._keep_task
            )
            if self._suspended.labelled:
                self._busy_at = now
        except Exception as error:
            if _is_foreign(error):
                raise
            self._fail(error)
        finally:
            self._busy = False
            spent = time.thread_time_ns() - began
            self._last_cpu += spent  # what is used there is no work of the application
            period = self._budget.spend_round(spent / 1e9)
            self._next_round = max(self._next_round, self._last_round + int(period * 1e9))

    def _keep_task(
        self, weight: int, stack: int, task: int, wait: str, label: Label
    ) -> list[Any] | None:
        return self._add(weight, stack, self._main, task, "awaiting", wait, label)

    def _look_soon(self) -> None:
        """Look around while modules are being loaded, and a little longer: they are not ready."""
        modules = len(sys.modules)
        if modules != self._modules_seen:
            self._modules_seen = modules
            self._looks = LOOKS
        if self._looks:
            self._looks -= 1
            self._look_around()
            # Also when nothing uses the CPU: what is handed over before has no label.
            self._timers.arm(self._wall_period, self._budget.asked_period)

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
        self._next_flush = now + int(FLUSH_SECONDS * 1e9)
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
        if lines and (self._spool is None or self._spool.write(lines)):
            complete = self._sinks.write(lines)
            self._stacks.new_frames = []
            self._stacks.new_stacks = []
            if not complete:
                self._tell_anew()
            self._rows = []
            self._open_rows.clear()
            self._flushes += 1
            self._points = []
        if self._sinks.pending:
            stats = self._stats(now)
            if self._sinks.settle([self._process, stats], [stats]):
                self._tell_anew()  # who comes late has missed what was told before
        if final:
            self._sinks.close()
            if self._spool is not None:
                self._spool.close()
            self._spool = None

    def _tell_anew(self) -> None:
        self._stacks.retell()
        self._suspended.forget()

    def _stats(self, now: int) -> dict[str, Any]:
        return {
            "type": "stats",
            "time": time.time_ns(),
            **self._rates.told(now),
            "round_hz": round(1 / self._budget.round_period, 3),
            "samples": self._samples,
            "lost": self._lost,
            "torn": self._torn,
            "cost_seconds": round(self._budget.total, 6),
            "setup_seconds": round(self._budget.setup, 6),
            "cpu_seconds": round(time.process_time(), 6),
            "unsampled_threads": len(self._unsampled),
            "disabled": self.disabled,
        }

    # What happens to the process.

    def _stolen(self, reason: str) -> None:
        self._end(reason)

    def _cpu_stolen(self) -> None:
        """From now on by wall time alone."""
        if self.running:
            self._arm()

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
            staying = self._sinks.forked()
            self._begin()
            self._open()
            for sink in staying:
                self._sinks.ask_in(sink)
            self._learn_modules()
            self._arm()
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
