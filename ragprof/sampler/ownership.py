"""The interval timers in somebody else's process: take them politely, give them back in time.

An armed timer survives `exec` while its handler does not, and the new program dies of it. A timer
does not survive `fork`. Somebody else's signals and timers have precedence over ours: without
ITIMER_REAL there is no sampling, without ITIMER_PROF it goes by wall time alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]


class Timers:
    """ITIMER_REAL with SIGALRM and, by CPU time, ITIMER_PROF with SIGPROF, while nobody wants them.

    `on_stolen(reason)` is called just before somebody else takes the first, `on_cpu_stolen()` the
    second; `on_exec()` before the process becomes another program, and `on_fork()` in a forked
    child that goes on as Python. `by_cpu`: whether ITIMER_PROF is ours.
    """

    def __init__(
        self,
        handler: Handler,
        on_stolen: Callable[[str], None],
        on_cpu_stolen: Callable[[], None],
        on_exec: Callable[[], None],
        on_fork: Callable[[], None],
    ) -> None:
        self._handler = handler
        self._on_stolen = on_stolen
        self._on_cpu_stolen = on_cpu_stolen
        self._on_exec = on_exec
        self._on_fork = on_fork
        self.by_cpu = False
        self._armed: dict[int, float] = {}  # timer -> period, as long as it runs
        self._paused: dict[int, float] = {}  # what ran before an exec, for when that fails
        self._owned = False
        self._forking = 0
        self._undo: list[Callable[[], None]] = []

    def take(self, by_cpu: bool) -> str:
        """Install the handler; returns why that is not possible, or "" when it is done."""
        if threading.current_thread() is not threading.main_thread():
            return "started outside the main thread"
        if not hasattr(signal, "setitimer"):
            return "this system has no interval timer"
        if owner := _owner("SIGALRM", "ITIMER_REAL"):
            return owner
        self._install(signal.SIGALRM)
        self.by_cpu = by_cpu and not _owner("SIGPROF", "ITIMER_PROF")
        if self.by_cpu:
            self._install(signal.SIGPROF)
        self._owned = True
        self._wrap_signal_module()
        _watch(self)
        return ""

    def _install(self, signalnum: int) -> None:
        signal.signal(signalnum, self._handler)
        # System calls of libraries that do not expect EINTR are restarted.
        signal.siginterrupt(signalnum, False)

    def arm(self, period: float, first: float = 0.0) -> None:
        """Ask for a signal every `period` seconds, the first after `first` seconds if given."""
        self._arm(signal.ITIMER_REAL, period, first)

    def arm_cpu(self, period: float) -> None:
        """Ask for a signal every `period` seconds of the process's CPU time."""
        if self.by_cpu:
            self._arm(signal.ITIMER_PROF, period)

    def _arm(self, which: int, period: float, first: float = 0.0) -> None:
        if self._owned:
            self._armed[which] = period
            self._setitimer(which, first or period, period)

    def disarm(self) -> None:
        for which in list(self._armed):
            self._setitimer(which, 0.0, 0.0)
        self._armed.clear()

    def resume(self) -> None:
        """Arm again what an `exec` that failed had disarmed."""
        for which, period in self._paused.items():
            self._arm(which, period)

    def release(self) -> None:
        """Give signals and timers back."""
        if not self._owned:
            return
        self.disarm()
        self._owned = False
        while self._undo:
            self._undo.pop()()
        for signalnum in (signal.SIGALRM, signal.SIGPROF):
            if signal.getsignal(signalnum) == self._handler:
                signal.signal(signalnum, signal.SIG_DFL)

    def _release_cpu(self) -> None:
        if self._owned and self.by_cpu:
            self.by_cpu = False
            if self._armed.pop(signal.ITIMER_PROF, 0.0):
                self._setitimer(signal.ITIMER_PROF, 0.0, 0.0)
            self._on_cpu_stolen()

    def _stolen(self, reason: str) -> None:
        if self._owned:
            self._on_stolen(reason)

    def _wrap_signal_module(self) -> None:
        """Notice in time when the application wants the signal or the timer for itself."""
        timer = self
        set_handler, set_timer, alarm = signal.signal, signal.setitimer, signal.alarm
        set_wakeup = signal.set_wakeup_fd
        self._setitimer = set_timer

        @functools.wraps(set_handler)
        def observed_signal(signalnum: Any, handler: Any) -> Any:
            if threading.get_ident() == _main_ident():
                if signalnum == signal.SIGALRM:
                    timer._stolen("the application has taken SIGALRM")
                elif signalnum == signal.SIGPROF:
                    timer._release_cpu()
            return set_handler(signalnum, handler)

        @functools.wraps(set_timer)
        def observed_setitimer(which: Any, *values: Any) -> Any:
            if which == signal.ITIMER_REAL:
                timer._stolen("the application has taken ITIMER_REAL")
            elif which == signal.ITIMER_PROF:
                timer._release_cpu()
            return set_timer(which, *values)

        @functools.wraps(alarm)
        def observed_alarm(seconds: int, /) -> int:
            timer._stolen("the application has taken ITIMER_REAL")
            return alarm(seconds)

        @functools.wraps(set_wakeup)
        def observed_set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = False) -> int:
            # A loop that is blocked for seconds does not read our signals' bytes: no warning.
            return set_wakeup(fd, warn_on_full_buffer=warn_on_full_buffer)

        for name, ours in (
            ("signal", observed_signal),
            ("setitimer", observed_setitimer),
            ("alarm", observed_alarm),
            ("set_wakeup_fd", observed_set_wakeup_fd),
        ):
            original = getattr(signal, name)
            setattr(signal, name, ours)
            self._undo.append(functools.partial(_restore, signal, name, ours, original))

    def before_exec(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The process becomes another program, unless that fails."""
        if self._owned:
            self._on_exec()
            self._paused = dict(self._armed)
            self.disarm()

    def in_child(self) -> None:
        """A forked child; one that C code forked will only become another program."""
        self._armed.clear()
        if not self._owned:
            return
        if self._forking == threading.get_ident():
            self._forking = 0
            self._on_fork()
        else:
            self._owned = False  # what is left of the wrappers does nothing any more


_timer: Timers | None = None
_watching = False


def _owner(signal_name: str, timer_name: str) -> str:
    """What says that a signal or its timer is somebody else's, or ""."""
    if signal.getsignal(getattr(signal, signal_name)) not in (signal.SIG_DFL, signal.SIG_IGN):
        return f"{signal_name} has another owner"
    if signal.getitimer(getattr(signal, timer_name)) != (0.0, 0.0):
        return f"{timer_name} has another owner"
    return ""


def _watch(timer: Timers) -> None:
    """Audit hooks and fork hooks cannot be removed: one set of them, for the present timer."""
    global _timer, _watching
    _timer = timer
    if _watching:
        return
    _watching = True
    os.register_at_fork(after_in_child=_after_fork)
    os.execv = _rearming(os.execv)
    os.execve = _rearming(os.execve)
    os._exit = _storing(os._exit)
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.exec":
        if _timer is not None:
            keep_bootstrap_first(arguments[2])
            _timer.before_exec(event, arguments)
    elif (event == "os.fork" or event == "os.forkpty") and _timer is not None:
        _timer._forking = threading.get_ident()


def _after_fork() -> None:
    if _timer is not None:
        _timer.in_child()


def _rearming(execute: Any) -> Any:
    """`os.execv` that goes on sampling when it fails."""

    @functools.wraps(execute)
    def observed(*args: Any, **kwargs: Any) -> Any:
        try:
            return execute(*args, **kwargs)
        finally:
            if _timer is not None:
                _timer.resume()

    return observed


def _storing(leave: Any) -> Any:
    """`os._exit`, by which children of multiprocessing end: the last samples are stored first."""

    @functools.wraps(leave)
    def observed(status: int) -> Any:
        if _timer is not None:
            with contextlib.suppress(Exception):
                _timer.before_exec("os._exit", ())
        return leave(status)

    return observed


def keep_bootstrap_first(environment: Any) -> None:
    """Put our folder first on the PYTHONPATH that the next program gets.

    `opentelemetry-instrument` puts its own `sitecustomize` before ours, and Python runs only the
    first; ours chains to the next.
    """
    bootstrap = os.environ.get("RAGPROF_BOOTSTRAP", "")
    target = os.environ if environment is None else environment
    if not bootstrap or not hasattr(target, "__setitem__") or not hasattr(target, "get"):
        return
    path = target.get("PYTHONPATH")
    if not isinstance(path, str) or bootstrap not in path.split(os.pathsep):
        return
    rest = [part for part in path.split(os.pathsep) if part != bootstrap]
    target["PYTHONPATH"] = os.pathsep.join([bootstrap, *rest])


def _main_ident() -> int | None:
    return threading.main_thread().ident


def _restore(owner: Any, name: str, ours: Any, original: Any) -> None:
    if getattr(owner, name) is ours:
        setattr(owner, name, original)
