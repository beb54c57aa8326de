"""The interval timer in somebody else's process: take it politely, give it back in time.

An armed timer survives `exec` while its handler does not, and the new program dies of it. A timer
does not survive `fork`. Somebody else's SIGALRM or ITIMER_REAL has precedence over ours.
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


class Timer:
    """ITIMER_REAL and SIGALRM, as long as nobody else wants them.

    `on_stolen(reason)` is called just before somebody else takes them over, `on_exec()` before the
    process becomes another program and `on_fork()` in a forked child that goes on as Python.
    """

    def __init__(
        self,
        handler: Handler,
        on_stolen: Callable[[str], None],
        on_exec: Callable[[], None],
        on_fork: Callable[[], None],
    ) -> None:
        self._handler = handler
        self._on_stolen = on_stolen
        self._on_exec = on_exec
        self._on_fork = on_fork
        self.armed = False
        self._period = 0.01
        self._owned = False
        self._forking = 0
        self._undo: list[Callable[[], None]] = []

    def take(self) -> str:
        """Install the handler; returns why that is not possible, or "" when it is done."""
        if threading.current_thread() is not threading.main_thread():
            return "started outside the main thread"
        if not hasattr(signal, "setitimer"):
            return "this system has no interval timer"
        if signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, signal.SIG_IGN):
            return "SIGALRM has another owner"
        if signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):
            return "ITIMER_REAL has another owner"
        signal.signal(signal.SIGALRM, self._handler)
        # System calls of libraries that do not expect EINTR are restarted.
        signal.siginterrupt(signal.SIGALRM, False)
        self._owned = True
        self._wrap_signal_module()
        _watch(self)
        return ""

    def arm(self, period: float, first: float = 0.0) -> None:
        """Ask for a signal every `period` seconds, the first after `first` seconds if given."""
        if self._owned:
            self.armed = True
            self._period = period
            self._setitimer(signal.ITIMER_REAL, first or period, period)

    def disarm(self) -> None:
        if self.armed:
            self.armed = False
            self._setitimer(signal.ITIMER_REAL, 0.0, 0.0)

    def release(self) -> None:
        """Give signal and timer back."""
        if not self._owned:
            return
        self.disarm()
        self._owned = False
        while self._undo:
            self._undo.pop()()
        if signal.getsignal(signal.SIGALRM) == self._handler:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

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
            if signalnum == signal.SIGALRM and threading.get_ident() == _main_ident():
                timer._stolen("the application has taken SIGALRM")
            return set_handler(signalnum, handler)

        @functools.wraps(set_timer)
        def observed_setitimer(which: Any, *values: Any) -> Any:
            if which == signal.ITIMER_REAL:
                timer._stolen("the application has taken ITIMER_REAL")
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
            self.disarm()

    def in_child(self) -> None:
        """A forked child; one that C code forked will only become another program."""
        self.armed = False
        if not self._owned:
            return
        if self._forking == threading.get_ident():
            self._forking = 0
            self._on_fork()
        else:
            self._owned = False  # what is left of the wrappers does nothing any more


_timer: Timer | None = None
_watching = False


def _watch(timer: Timer) -> None:
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
                _timer.arm(_timer._period)

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
